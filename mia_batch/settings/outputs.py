"""`data.source: outputs`: the sections of a configuration whose outputs come from files, of whatever framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from mia_batch.settings.schema import (
    FROM_FILES,
    Blocks,
    ConfigPath,
    DataConfig,
    ModelConfig,
    Section,
    as_tuple,
    resolve_path,
    unique,
)
from mia_batch.signals import OUTPUTS

KINDS = (*OUTPUTS, "loss")  # of outputs; where a file has several, the first counts
SIDES = ("members", "nonmembers")
# Keys of `data`:
OWN = ("source", "files", "columns", "randomised", "canaries", "nonmembers_used_for", "max_duplicates")

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(min_length=1)]
OneOrMore = Annotated[Name | Names | None, BeforeValidator(as_tuple)]
Parts = dict[str, Path]  # by what each file holds; "" for a file that holds everything


class OutputColumns(Section):
    """What the columns, arrays or datasets are called, where the names are not the usual ones.

    Attributes:
        logits: a matrix, columns one by one, or what the names of numbered columns begin with. So are the next two.
        probabilities: one of `logits`, `probabilities` and `loss` at most is named.
        loss: one number of each sample.
        label: the true class, from 0.
        member: 1 or true for a member, 0 or false for a non-member.
        group: samples of one value belong together.
        slices: subsets of the samples, by the values of these columns.
        sample_id: a name of each sample, no two the same.
    """

    logits: OneOrMore = None
    probabilities: OneOrMore = None
    loss: Name | None = None
    label: Name | None = None
    member: Name | None = None
    group: Name | None = None
    slices: Annotated[tuple[Name, ...], BeforeValidator(as_tuple)] = ()
    sample_id: Name | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> OutputColumns:
        named = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(named) > 1:
            raise ValueError(f"must name one of {', '.join(KINDS)}, not {' and '.join(named)}")
        unique(self.slices)
        return self


def _as_files(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, Mapping):
        return resolve_path(value, info)
    if not value:
        raise ValueError("must name a file")
    if not set(SIDES) & value.keys():
        return _as_parts(value, info)
    if set(value) != set(SIDES):
        rule = f"must have {SIDES[0]} and {SIDES[1]}, and nothing beside them"
        raise ValueError(f"{rule}, got {', '.join(map(str, value))}")
    return {side: _as_parts(found, info) for side, found in value.items()}


def _as_parts(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, Mapping):
        return resolve_path(value, info)
    for name, file in value.items():
        if not isinstance(name, str) or not name or not str(file).endswith(".npy"):
            raise ValueError(f"must be a file, or .npy files by what they hold, got {name!r}: {file!r}")
    return {name: resolve_path(file, info) for name, file in value.items()}


class OutputsConfig(DataConfig):
    """Outputs of any framework, from files, and who is a member.

    Attributes:
        source: outputs.
        files: one file; or those of members and of nonmembers; or, of .npy, a file for each of what there is.
        columns: what the columns, arrays or datasets are called, where the names are not the usual ones.
        randomised: whether a fair coin made each sample a member or not.
        canaries: blocks of the samples of which coins decided, where they decided of some only; the split is outputs.
        max_duplicates: share of a side whose outputs and labels may be on the other side too, bit for bit.
        nonmembers_used_for: whether the non-members were used for early stopping or tuning.
    """

    source: str
    files: Annotated[Path | dict[str, Path | dict[str, Path]], BeforeValidator(_as_files)]
    columns: OutputColumns = OutputColumns()  # type: ignore[assignment]
    members: Blocks = ()
    nonmembers: Blocks = ()

    @field_validator(*(key for key in DataConfig.model_fields if key not in OWN), mode="before")
    @classmethod
    def _only_of_samples(cls, value: Any) -> None:
        raise ValueError(f"does not go with source {FROM_FILES}: data.files holds all that is known")

    @model_validator(mode="after")
    def _what_the_source_takes(self) -> OutputsConfig:
        return self

    @model_serializer(mode="wrap")
    def _own(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in OWN}

    @property
    def borrowed(self) -> tuple[str, ...]:
        """Nothing is preprocessed here."""
        return ()

    @property
    def two_sided(self) -> bool:
        """Whether members and non-members are in files of their own."""
        return isinstance(self.files, dict) and set(self.files) == set(SIDES)

    def by_side(self) -> dict[str, Parts]:
        """The files of members and of non-members, or those of all samples under ""."""
        found = self.files if self.two_sided else {"": self.files}
        assert isinstance(found, dict)
        return {side: parts if isinstance(parts, dict) else {"": parts} for side, parts in found.items()}  # type: ignore[misc]

    @staticmethod
    def field(side: str, part: str) -> str:
        """What a file of `by_side` is called, such as data.files.members."""
        return ".".join(filter(None, ("data.files", side, part)))

    def output_files(self) -> dict[str, Path]:
        """The files of outputs by field, such as data.files.members."""
        return {
            self.field(side, part): file for side, parts in self.by_side().items() for part, file in parts.items()
        }

    def named_files(self) -> dict[str, Path]:
        """The files of outputs and the index files of canaries, by field."""
        return self.output_files() | super().named_files()


class NoModel(ModelConfig):
    """The section that a configuration of imported outputs may lack: nothing is run."""

    factory: str = ""
    checkpoint: ConfigPath = Path()
    output: Literal["logits", "probabilities"] = "logits"

    @model_serializer(mode="plain")
    def _nothing(self) -> None:
        return None
