"""The configuration's sections: frozen, typed, every rule that needs no file."""

from __future__ import annotations

import glob
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mia_batch.attacks.reference_plan import COUNT_RULE, is_count
from mia_batch.errors import Problem, did_you_mean
from mia_batch.settings.grids import expand_values, normalise_grid
from mia_batch.signals import OUTPUTS
from mia_batch.verdict.rules import GATE_RULES, RULES, TUTORIAL, Claim, Gate, Rule

MAX_CANDIDATES = 100_000  # of one method
SOURCES = ("cifar100", "cifar10")
RECORD_CHANNELS = 3
PREPROCESSING = ("image", "none")
CLASS = "class"  # of report.slices: a slice for each class
FROM_FILES = "outputs"  # the source of imports: see settings/outputs.py
MAX_SHIFT = 4  # pixels, of queries
JOINT_KEYS = ("rule", "threshold", "metrics", "bound")


def expand(text: str) -> str:
    """`text` with ~ and environment variables replaced; a ValueError for one that is not set."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset and unset[1] not in os.environ:
        raise ValueError(f"uses the environment variable {unset[1]}, which is not set")
    return expanded


def resolve_path(value: Any, info: ValidationInfo) -> Path:
    """A validator: a path, expanded, and relative to the configuration's folder."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return Path(os.path.normpath((info.context or {}).get("base", Path.cwd()) / expand(value)))


def _resolve_factory(value: Any, info: ValidationInfo) -> str:
    location, _, function = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not location or not function.isidentifier():
        raise ValueError("must be package.module:function or path/to/file.py:function")
    return f"{resolve_path(location, info)}:{function}" if location.endswith(".py") else value


def word_or_function(words: Collection[str], others: Collection[str] = ()) -> Callable[[Any, ValidationInfo], str]:
    """A validator: one of these words, or the user's function; of `others` only messages say that there are such."""

    def check(value: Any, info: ValidationInfo) -> str:
        if isinstance(value, str) and value in words:
            return value
        try:
            return _resolve_factory(value, info)
        except ValueError:
            known = (*words, *others)
            rule = f"must be {', '.join(known)}, package.module:function or path/to/file.py:function"
            raise UnknownValueError(rule, known) from None

    return check


def as_tuple(value: Any) -> Any:
    """A validator: YAML's list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _as_blocks(value: Any) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        raise ValueError("must be a block with split, or a list of blocks")
    return (value,) if isinstance(value, Mapping) else as_tuple(value)


def _as_names(value: Any) -> Any:
    """A name, or a tuple of names."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError("must be a name or a list of names")
    if len(set(names)) < len(names):
        raise ValueError("must name each once")
    return value if isinstance(value, str) else tuple(names)


def _as_files(value: Any, info: ValidationInfo) -> Any:
    """Files by name or glob, at least one."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of files, which may be globs")
    return _matching(value, info)


def _as_runs(value: Any, info: ValidationInfo) -> Any:
    """Run directories by name or glob."""
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of run directories, which may be globs")
    return _matching(value, info)


def _matching(value: Collection[Any], info: ValidationInfo) -> tuple[Path, ...]:
    """Paths by name or glob, in natural order within each glob."""
    files: list[Path] = []
    for item in value:
        named = resolve_path(item, info)
        found = [named] if named.exists() else [Path(file) for file in glob.glob(str(named), recursive=True)]
        if not found and glob.has_magic(str(named)):
            raise ValueError(f"must match a file, none matches {item}")
        files += sorted(found, key=_natural) or [named]
    return tuple(files)


def _as_count(count: int) -> int:
    if not is_count(count):
        raise ValueError(COUNT_RULE)
    return count


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """A key by which ref_10 comes after ref_9."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _as_lengths(value: Any) -> Any:
    """One length, or one for each of the first axes."""
    lengths = value if isinstance(value, list | tuple) else [value]
    if not lengths or not all(type(length) is int and length >= 1 for length in lengths):
        raise ValueError("must be a length of at least 1, or a list of lengths")
    return tuple(lengths)


def _as_group(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Mapping) and value:
        return {str(split): resolve_path(file, info) for split, file in value.items()}
    if value is not None and not (isinstance(value, str) and value.isidentifier()):
        raise ValueError("must be the name of a column or attribute, or a file for each split: {train: FILE}")
    return value


def _as_columns(value: Any, info: ValidationInfo) -> Any:
    """By name the files of its splits that have a name for each sample."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping: {NAME: {SPLIT: FILE}}")
    found = {}
    for name, given in value.items():
        if name == CLASS or not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"must have names of letters, digits and _ that are not {CLASS}, not {name!r}")
        if not isinstance(given, Mapping) or not given:
            raise KeyProblems((name, "must be a file of a name for each sample, for each split: {train: FILE}"))
        found[name] = {str(split): resolve_path(file, info) for split, file in given.items()}
    return found


def _as_slices(value: Any, info: ValidationInfo) -> Any:
    """By name the index files of its splits; `class` is true or false, and false is as good as nothing."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping: {class: true, NAME: {SPLIT: FILE}}")
    found: dict[str, Any] = {}
    for name, given in value.items():
        if name == CLASS:
            if not isinstance(given, bool):
                raise KeyProblems((CLASS, "must be true or false"))
            found |= {CLASS: True} if given else {}
        elif not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"must have names of letters, digits and _, not {name!r}")
        elif not isinstance(given, Mapping) or not given:
            raise KeyProblems((name, "must be a file of indices for each split: {train: FILE}"))
        else:
            found[name] = {str(split): resolve_path(file, info) for split, file in given.items()}
    return found


def _check_plain(value: Any, *, name: str = "") -> Any:
    """Only what JSON can hold goes into a run's identity; YAML's dates, sets and binary cannot."""
    where = f"{name} " if name else ""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}must have names that are text, got {key!r}")
            _check_plain(item, name=f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_plain(item, name=f"{name}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}must be a finite number, got {value}")
    elif not isinstance(value, str | bool | int | float | None):
        kind = type(value).__name__
        raise ValueError(f"{where}must be text, a number, true, false, null, a list or a mapping, got a {kind}")
    return value


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """A validator: values of which none is given twice."""
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"must name each once, {', '.join(repeated)} repeated")
    return values


def _one_of(names: Callable[[], Collection[str]]) -> Callable[[Any], str]:
    """A validator that asks a registry what there is, each time: a new entry is one line there and none here."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names():
            quoted = [f"'{name}'" for name in names()]
            choices = " or ".join([*filter(None, [", ".join(quoted[:-1])]), quoted[-1]])
            raise PydanticCustomError("unknown_name", "Input should be {choices}", {"choices": choices})
        return value

    return check


# The registries import SciPy: only when a configuration names something of theirs.
def report_metrics() -> Collection[str]:
    from mia_batch.metrics.registry import groups

    return groups()


def measures() -> Collection[str]:
    from mia_batch.verdict.measures import MEASURES

    return MEASURES


def gate_metrics() -> Collection[str]:
    from mia_batch.metrics.registry import in_gate

    return in_gate()


ConfigPath = Annotated[Path, BeforeValidator(resolve_path)]
Pair = Annotated[tuple[int, int], BeforeValidator(as_tuple)]
Means = Annotated[tuple[float, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Deviations = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
]
Positive = Annotated[int, Field(ge=1)]
Kwargs = Annotated[dict[str, Any], BeforeValidator(_check_plain)]


class UnknownValueError(ValueError):
    """A value that is none of the words there are; `choices` are those that it may be a slip of."""

    def __init__(self, rule: str, choices: Collection[str]) -> None:
        super().__init__(rule)
        self.choices = choices


class KeyProblems(ValueError):  # noqa: N818  (it has several)
    """What is wrong with keys of a section, of each the rule as a line has it after the key."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{key}: {rule}" for key, rule in problems))
        self.problems = problems


class Section(BaseModel):
    """A part of the configuration: what cannot be changed, and takes no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The network and the checkpoint that is audited.

    Attributes:
        factory: the function that builds the network: package.module:function, or path/to/file.py:function.
        kwargs: passed to the factory, which gets image_size too if it has a parameter of that name.
        checkpoint: the audited weights, a .ckpt, .safetensors or .npz file.
        output: what the network gives: logits, probabilities, or the function that makes logits of it.
        key: which entry of a dict that the network gives.
        index: which entry of a tuple or list that the network gives, from 0.
        prefix: what the names of the checkpoint's entries begin with that are audited, such as network.
        rename: a YAML or JSON file, the names in the checkpoint to the network's.
    """

    factory: Annotated[str, BeforeValidator(_resolve_factory)]
    kwargs: Kwargs = {}
    checkpoint: ConfigPath
    output: Annotated[str, BeforeValidator(word_or_function(OUTPUTS))] = "logits"
    key: Annotated[str, Field(min_length=1)] | None = None
    index: Annotated[int, Field(ge=0)] | None = None
    prefix: Annotated[str, Field(min_length=1)] | None = None
    rename: ConfigPath | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> ModelConfig:
        if self.key is not None and self.index is not None:
            raise ValueError("must have one of key (of a dict) and index (of a tuple or list), not both")
        return self

    def factory_file(self) -> Path | None:
        """The file of a factory given as path/to/file.py:function."""
        return factory_file(self.factory)

    def n_columns(self) -> int | None:
        """Columns of the logits, as far as this says: one output makes two, and a function makes what it likes."""
        stated = self.kwargs.get("num_classes")
        if self.output not in OUTPUTS or type(stated) is not int or stated < 1:
            return None
        return max(stated, 2)

    def files(self) -> dict[str, Path]:
        """The files that it names beside the checkpoint, by field."""
        files = {
            "model.factory": self.factory_file(), "model.output": factory_file(self.output),
            "model.rename": self.rename,
        }
        return {field: file for field, file in files.items() if file}


class SampleBlock(Section):
    """Samples of one split, in file order (`num_samples`, `range`) or in the order of an index file.

    Attributes:
        split: train or test of records; of a source of your own, the name that it is called with.
        num_samples: the first so many.
        range: [first, end), by position.
        indices: a file that lists the samples: .npy, or text with one number a line.
    """

    split: str
    num_samples: Positive | None = None
    range: Pair | None = None
    indices: ConfigPath | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> SampleBlock:
        given = [name for name in ("num_samples", "range", "indices") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"must have one of num_samples, range, indices, not {' and '.join(given)}")
        if self.range is not None and not 0 <= self.range[0] < self.range[1]:
            raise ValueError(f"range must be [first, end) with 0 <= first < end, not {list(self.range)}")
        return self


AnyBlocks = Annotated[tuple[SampleBlock, ...], BeforeValidator(_as_blocks)]
Blocks = Annotated[AnyBlocks, Field(min_length=1)]


IMAGE_KEYS = ("image_size", "mean", "std")  # that go with preprocess: image alone


class ColumnsConfig(Section):
    """Which columns of a dataset, or entries of a sample that is a dictionary, are what.

    Attributes:
        inputs: one name, or a list of the network's inputs in their order; null for image, or for the one other.
        label: name of the true class.
    """

    inputs: Annotated[str | tuple[str, ...], BeforeValidator(_as_names)] | None = None
    label: Annotated[str, Field(min_length=1)] = "label"

    @model_validator(mode="after")
    def _the_label_is_no_input(self) -> ColumnsConfig:
        if self.label in self.named():
            raise ValueError(f"inputs must not have the label's column {self.label!r}")
        return self

    def named(self) -> tuple[str, ...]:
        """The inputs' names; none where nothing is said of them."""
        return (self.inputs,) if isinstance(self.inputs, str) else self.inputs or ()


class DataConfig(Section):
    """Where samples come from, which are members, and how they are preprocessed.

    Attributes:
        source: records, cifar100 or cifar10; or a function: package.module:function, or path/to/file.py:function.
        path: the folder of the records, or what the function gets as path.
        kwargs: passed to a source that is a function.
        label: which of the two labels of a CIFAR-100 record.
        columns: which columns or entries of a source's samples are inputs and label.
        preprocess: image, or none, or a function of a batch: package.module:function, or path/to/file.py:function.
        image_size: height and width after the bilinear resize.
        mean: subtracted per channel from pixels / 255.
        std: divided by, per channel, after that.
        pad: value that shorter samples are filled with at their ends; null refuses samples that differ in length.
        pad_to: length of the first axis after padding, or of the first few; null for the largest of all samples.
        members: what the model was trained on: a block, or a list of blocks.
        nonmembers: what it has never seen: a block, or a list of blocks.
        augment_members: whether members alone are cropped and flipped, as MindArmour's tutorial does.
        group: samples that belong together: the name of a column or attribute, or a file for each split.
        max_duplicates: share of a side that may have its inputs on the other side too.
        randomised: whether a fair coin made each sample a member or not.
        canaries: blocks of the samples of which coins decided, where they decided of some only.
        nonmembers_used_for: whether the non-members were used for early stopping or tuning.
    """

    source: Annotated[str, BeforeValidator(word_or_function(SOURCES, (FROM_FILES,)))]
    path: ConfigPath | None = None
    kwargs: Kwargs = {}
    label: Literal["fine", "coarse"] = "fine"
    columns: ColumnsConfig | None = None
    preprocess: Annotated[str, BeforeValidator(word_or_function(PREPROCESSING))] = "image"
    image_size: Annotated[tuple[Positive, Positive], BeforeValidator(as_tuple)] = (32, 32)
    mean: Means = (0.4465, 0.4822, 0.4914)
    std: Deviations = (0.2010, 0.1994, 0.2023)
    pad: float | None = None
    pad_to: Annotated[tuple[int, ...], BeforeValidator(_as_lengths)] | None = None
    members: Blocks
    nonmembers: Blocks
    augment_members: bool = False
    group: Annotated[str | dict[str, Path] | None, BeforeValidator(_as_group)] = None
    max_duplicates: Annotated[float, Field(ge=0, le=1)] = 0.05
    randomised: bool = False
    canaries: AnyBlocks = ()  # none, as a config in force has it too
    nonmembers_used_for: Literal["none", "selection", "unknown"] = "unknown"

    @property
    def borrowed(self) -> tuple[str, ...]:
        """Keys of the preprocessing that are CIFAR's because nothing is said of them, where the source is another."""
        if self.source in SOURCES or not self.is_image:
            return ()
        return tuple(key for key in IMAGE_KEYS if key not in self.model_fields_set)

    @property
    def is_image(self) -> bool:
        """Whether a sample is an image that is resized, rescaled and normalised."""
        return self.preprocess == "image"

    @property
    def network_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's images; None where its inputs are not said to be images."""
        return self.image_size if self.is_image else None

    @model_validator(mode="after")
    def _randomised_all_or_some(self) -> DataConfig:
        if self.randomised and self.canaries:
            raise ValueError("must have one of randomised (of all samples) and canaries (of some), not both")
        return self

    def named_files(self) -> dict[str, Path]:
        """The index files of all blocks and the files of groups, by field."""
        blocks = {
            f"data.{name}[{i}].indices": block.indices
            for name in ("members", "nonmembers", "canaries") for i, block in enumerate(getattr(self, name))
        }
        named = self.group if isinstance(self.group, dict) else {}
        groups = {f"data.group.{split}": named[split] for split in self.splits() if named}
        return {field: file for field, file in blocks.items() if file} | groups

    @model_validator(mode="after")
    def _what_the_preprocessing_takes(self) -> DataConfig:
        others = [key for key in (*IMAGE_KEYS, "augment_members") if self.is_given(key)]
        if not self.is_image and others:
            raise ValueError(f"{' and '.join(others)} only with preprocess: image, not {self.preprocess}")
        if self.is_image and self.pad is not None:
            raise ValueError("pad is for arrays: with preprocess: image all are resized")
        if self.pad is None and self.pad_to is not None:
            raise ValueError("pad (the value to pad with) is required beside pad_to")
        if len(self.mean) != len(self.std):
            both = f"{len(self.mean)} and {len(self.std)}"
            raise ValueError(f"mean and std must have one value for each channel, got {both}")
        return self

    def is_given(self, key: str) -> bool:
        """Whether the file states `key`; of a switch, whether it is on."""
        return key in self.model_fields_set and getattr(self, key) is not False

    @model_validator(mode="after")
    def _what_the_source_takes(self) -> DataConfig:
        if self.source in SOURCES:
            self._check_records()
        elif "label" in self.model_fields_set:
            raise ValueError(f"label chooses between the labels of records: source {self.source} gives its own")
        elif {"split", "path"} & self.kwargs.keys():
            raise ValueError("kwargs must not have split or path: they come from the blocks and from data.path")
        missing = [split for split in self.splits() if isinstance(self.group, dict) and split not in self.group]
        if missing:
            raise ValueError(f"group must have a file for each split, {', '.join(missing)} missing")
        return self

    def _check_records(self) -> None:
        if self.path is None:
            raise ValueError(f"path is required for source {self.source}")
        if self.kwargs:
            raise ValueError(f"kwargs go to a function: source {self.source} takes none")
        if isinstance(self.group, str):
            raise ValueError(f"group must be a file for each split, {{train: FILE}}: source {self.source} has none")
        for key in ("columns", "pad"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key} is for samples of a function: source {self.source} has images of one size")
        if len(self.mean) != RECORD_CHANNELS:
            rule = f"mean and std must have one value for each of {RECORD_CHANNELS} channels"
            raise ValueError(f"{rule}, got {len(self.mean)}")

    def splits(self) -> list[str]:
        """Names of the splits in use, sorted."""
        return sorted({block.split for block in (*self.members, *self.nonmembers)})


class ExtractConfig(Section):
    """The forward pass over members and non-members.

    Attributes:
        device: where the network runs; auto takes the card that MindSpore finds, else the CPU.
        batch_size: samples per forward pass of a rank.
    """

    device: Literal["auto", "Ascend", "GPU", "CPU"] = "auto"
    batch_size: Positive = 64


class MethodConfig(Section):
    """One attack and its grid: every parameter's distinct values.

    Attributes:
        method: the attack.
        params: its grid: for each parameter a list of values, or {logspace|linspace|range: [...]}.
    """

    method: str
    params: dict[str, Any] = {}
    notes: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _expand_grid(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("params", {}), Mapping):
            return raw
        problems: list[Problem] = []
        if "notes" in raw:  # it is not a user's
            problems.append(("notes", unknown_key("notes", shown_keys(cls))))
        notes: list[str] = []
        params = {}
        for name, values in raw.get("params", {}).items():
            try:
                params[name] = expand_values(values)
            except ValueError as error:
                problems.append((f"params.{name}", str(error)))
        if not problems and isinstance(raw.get("method"), str):
            params, notes, problems = _check_grid(raw["method"], params)
        if problems:
            raise KeyProblems(*problems)
        return {**raw, "params": params, "notes": tuple(notes)}


def _check_grid(method: str, params: dict[str, tuple[Any, ...]]) -> tuple[dict[str, Any], list[str], list[Problem]]:
    # scikit-learn: only when a grid is there
    from mia_batch.attacks.registry import ATTACKS
    from mia_batch.search.estimators import n_candidates

    if method not in ATTACKS:
        near = did_you_mean(method, ATTACKS)
        return params, [], [("method", f"must be one of {', '.join(ATTACKS)}, got {method!r}{near}")]
    params, notes = normalise_grid(method, params)
    if n_candidates(params) > MAX_CANDIDATES:
        rule = f"must give at most {MAX_CANDIDATES} candidates together, got {n_candidates(params)}"
        return params, [], [("params", rule)]
    return params, notes, ATTACKS[method].check(params)


class AttackConfig(Section):
    """Fit and evaluation split, and grid search of the attacks.

    Attributes:
        seed: of the split, the folds and the classifiers.
        eval: cross_fit has every row scored by models that did not see it; holdout scores one part of the rows.
        eval_fraction: share of the rows that a model scores.
        max_rows: rows that fit a model, at most.
        cv: folds of the grid search.
        features: what classifiers are fitted on.
        search: how a grid is searched: shared work, plain GridSearchCV (exact), random draws, or halving.
        n_iter: candidates of search: random.
        memory_gib: bound on what the search holds, in GiB.
        backend: this machine's cores (loky), or an existing Dask cluster.
        scheduler: of backend dask: its address, or the path of a scheduler file.
        trajectory: run directories of earlier checkpoints of the same training, of the same samples.
        methods: the attacks, each once.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    eval: Literal["cross_fit", "holdout"] = "cross_fit"
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    max_rows: Annotated[int, Field(ge=10)] = 60_000
    cv: Annotated[int, Field(ge=2)] = 3
    features: Literal["signals", "logits_loss", "mindarmour"] = "signals"
    search: Literal["shared", "exact", "random", "halving"] = "shared"
    n_iter: Positive = 10
    memory_gib: Annotated[float, Field(gt=0, le=1 << 20)] = 4.0
    backend: Literal["loky", "dask", "serial"] = "loky"
    scheduler: str | None = None
    trajectory: Annotated[tuple[Path, ...], BeforeValidator(_as_runs)] = ()
    methods: Annotated[tuple[MethodConfig, ...], BeforeValidator(as_tuple), Field(min_length=1)]

    @field_validator("methods")
    @classmethod
    def _each_method_once(cls, methods: tuple[MethodConfig, ...]) -> tuple[MethodConfig, ...]:
        unique(tuple(method.method for method in methods))
        return methods

    @model_validator(mode="after")
    def _scheduler_for_dask(self) -> AttackConfig:
        if (self.backend == "dask") != (self.scheduler is not None):
            raise ValueError("scheduler (an address or a scheduler file) goes with backend: dask, and only with it")
        return self

    def splitting(self) -> dict[str, Any]:
        """Arguments of `attacks.split.make_splits`."""
        return {
            "evaluation": self.eval, "eval_fraction": self.eval_fraction, "seed": self.seed, "cv": self.cv,
            "max_rows": self.max_rows,
        }


class ReportConfig(Section):
    """What the reducer prints, and what it says of single samples.

    Attributes:
        metrics: what is printed for each attack; the summary has all.
        slices: subsets of the samples whose metrics are looked at too, and the worst of them: class, and by name files
            of indices for each split.
        slices_by: more subsets, one for each value that samples have, by name files with a value for each sample of a
            split.
        fdr: at most this share of what an attack claims in records.csv are non-members.
        records: how many samples records.csv has at most, those of the highest scores; 0 writes none, and report.html
            lists none.
        thumbnails: whether report.html shows the images of the most exposed samples. They may be personal data.
        group: the group of users who may read the run; without one it is for its owner alone.
    """

    metrics: Annotated[
        tuple[Annotated[str, BeforeValidator(_one_of(report_metrics))], ...],
        BeforeValidator(as_tuple), Field(min_length=1), AfterValidator(unique),
    ] = ("precision", "accuracy", "recall")
    slices: Annotated[dict[str, bool | dict[str, Path]], BeforeValidator(_as_slices)] = Field(default_factory=dict)
    slices_by: Annotated[dict[str, dict[str, Path]], BeforeValidator(_as_columns)] = Field(default_factory=dict)
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.1
    records: Annotated[int, Field(ge=0)] = 1_000_000
    thumbnails: bool = False
    group: Annotated[str, Field(min_length=1)] | None = None

    def slice_files(self) -> dict[str, dict[str, Path]]:
        """Files of indices, by name of the slice and split."""
        return {name: files for name, files in self.slices.items() if isinstance(files, dict)}

    def files(self) -> dict[str, Path]:
        """The files that it names, by field."""
        return {
            f"report.{key}.{name}.{split}": file
            for key, by_name in (("slices", self.slice_files()), ("slices_by", self.slices_by))
            for name, files in by_name.items() for split, file in files.items()
        }  # fmt: skip


class RuleConfig(Section):
    """One metric and the level that no attack may exceed.

    Attributes:
        metric: what is compared.
        above: the level that no attack may exceed.
        fpr: the false positive rate of tpr_at_fpr.
        delta: of epsilon.
        bound: compare the bounds (lower), or the value itself (point).
        decides: whether the rule finds a leak, rules one out, or both; the default depends on the metric.
    """

    metric: Annotated[str, BeforeValidator(_one_of(measures))]
    above: float
    fpr: Annotated[float, Field(gt=0, lt=1)] | None = None
    delta: Annotated[float, Field(ge=0, lt=1)] | None = None
    bound: Literal["lower", "point"] = "lower"
    decides: Literal["both", "leak", "no_leak"] | None = None

    @model_validator(mode="after")
    def _what_the_metric_takes(self) -> RuleConfig:
        from mia_batch.verdict.measures import MEASURES

        measure = MEASURES[self.metric]
        for name in ("fpr", "delta"):
            if getattr(self, name) is None and name in measure.needs:
                raise ValueError(f"{name} is required for metric {self.metric}")
            if getattr(self, name) is not None and name not in measure.needs + measure.takes:
                raise ValueError(f"{name} does not go with metric {self.metric}")
        if not measure.lowest <= self.above < measure.highest:  # nothing is above the highest: every model would pass
            raise ValueError(f"above must be in [{measure.lowest:g}, {measure.highest:g}), not {self.above}")
        if self.bound == "lower" and self.decides in ("both", "no_leak") and not measure.has_upper:
            raise ValueError(f"decides must be leak for metric {self.metric}, which has no upper bound")
        return self

    def rule(self) -> Rule:
        """As the verdict takes it."""
        from mia_batch.verdict.measures import MEASURES

        decides = self.decides or MEASURES[self.metric].decides
        return Rule(self.metric, self.above, self.fpr, self.delta, self.bound, decides)


class GateConfig(Section):
    """What makes a checkpoint leaking: `rules` with an error of `alpha`, or one joint rule of points.

    The joint rule is what versions before had: `rule`, `threshold`, `metrics` and `bound`, of which one is enough.
    `gate: tutorial` is short for {tutorial: true}: the joint rule of MindArmour's tutorial, and `rules` too.

    Attributes:
        rules: metrics and levels; without any, those of the manual.
        alpha: error of the whole audit, over attacks and rules.
        tutorial: whether the joint rule of MindArmour's tutorial holds too.
        weak_model: whether a model that is untrained or weak is audited on purpose.
        rule: of a joint rule: whether all of its metrics or any of them must be above the threshold.
        threshold: of a joint rule.
        metrics: of a joint rule.
        bound: of a joint rule: compare the interval's lower bound, or the value itself (point).
    """

    rules: Annotated[
        tuple[RuleConfig, ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] | None = None
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)] = 0.05
    tutorial: bool = False
    weak_model: bool = False
    rule: Annotated[str, BeforeValidator(_one_of(lambda: GATE_RULES))] | None = None
    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    metrics: Annotated[
        tuple[Annotated[str, BeforeValidator(_one_of(gate_metrics))], ...],
        BeforeValidator(as_tuple), Field(min_length=1), AfterValidator(unique),
    ] | None = None
    bound: Literal["point", "lower"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            if raw != "tutorial":
                raise UnknownValueError("must be tutorial, or a mapping", ("tutorial",))
            return {"tutorial": True}
        return raw

    @model_validator(mode="after")
    def _one_gate(self) -> GateConfig:
        if self._joint_keys():
            others = [name for name, given in (("rules", self.rules), ("tutorial", self.tutorial)) if given]
            if others:
                keys = f"{' and '.join(self._joint_keys())} of a joint rule"
                raise ValueError(f"must have one of {others[0]} and {keys}, not both")
        try:
            self.gate()
        except ValueError as error:  # such as that no rule decides a leak
            field, _, rule = str(error).removeprefix("gate.").partition(": ")
            raise KeyProblems((field, rule)) from error
        return self

    def _joint_keys(self) -> tuple[str, ...]:
        return tuple(name for name in JOINT_KEYS if getattr(self, name) is not None)

    @model_serializer(mode="plain", when_used="always")
    def _in_force(self) -> dict[str, Any]:
        """The keys that are in force, with their values; a joint rule as versions before have written it."""
        gate = self.gate()
        if gate.joint and not gate.tutorial:
            found: dict[str, Any] = {name: getattr(gate.joint, name) for name in JOINT_KEYS}
        else:
            rules = [{key: value for key, value in asdict(rule).items() if value is not None} for rule in gate.rules]
            found = {"rules": rules, "alpha": gate.alpha} | ({"tutorial": True} if gate.tutorial else {})
        found |= {"metrics": list(found["metrics"])} if "metrics" in found else {}
        return found | ({"weak_model": True} if self.weak_model else {})

    def gate(self) -> Gate:
        """As the verdict takes it."""

        rules = tuple(rule.rule() for rule in self.rules) if self.rules else RULES
        given = {name: getattr(self, name) for name in self._joint_keys()}
        joint = replace(TUTORIAL, **given) if given or self.tutorial else None
        return Gate(rules, self.alpha, joint, self.tutorial)


class AuditConfig(Section):
    """What is claimed of the training, for the audit to contradict.

    Attributes:
        claimed_epsilon: the epsilon that the training claims; an audit that contradicts it finds a leak.
        delta: the delta of that claim.
    """

    claimed_epsilon: Annotated[float, Field(ge=0)] | None = None
    delta: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _a_whole_claim(self) -> AuditConfig:
        for name, other in (("delta", "claimed_epsilon"), ("claimed_epsilon", "delta")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise KeyProblems((name, f"is required beside {other}"))
        return self

    def claim(self) -> Claim | None:
        """As the verdict takes it; None without one."""

        if self.claimed_epsilon is None or self.delta is None:
            return None
        return Claim(self.claimed_epsilon, self.delta)


def _as_day(value: Any) -> str:
    """A day as ISO 8601 has it; YAML makes a date of it by itself."""
    try:
        return date.fromisoformat(value if isinstance(value, str) else value.isoformat()).isoformat()
    except (ValueError, AttributeError, TypeError):
        raise ValueError("must be a day, such as 2030-12-31") from None


Words = Annotated[str, Field(min_length=1)]


class DossierConfig(Section):
    """What report.html says beside the figures, for the file of a data-protection officer. It changes no figure.

    Attributes:
        organisation: who is responsible for the model.
        auditor: who made the audit.
        contact: whom to ask.
        model: the model's name.
        version: of the model.
        purpose: what the model is for.
        personal_data: what of the training data is personal, and whose it is.
        unit_of_privacy: what one member stands for, such as one image, or all records of one person.
        training_records: how many records the model was trained on, where the members are a part of them.
        parameters: of the model, where the run does not know them, as of imported outputs.
        nonmembers: how the non-members were drawn.
        access: what an adversary can ask of the model.
        knowledge: what an adversary is taken to know.
        rationale: why this criterion decides.
        measures: what is done about the result, one item each.
        retest: the day by which the audit is to be made again, such as 2030-12-31.
        retest_if: what makes it due earlier.
        notes: anything else.
    """

    organisation: Words | None = None
    auditor: Words | None = None
    contact: Words | None = None
    model: Words | None = None
    version: Words | None = None
    purpose: Words | None = None
    personal_data: Words | None = None
    unit_of_privacy: Words | None = None
    training_records: Positive | None = None
    parameters: Positive | None = None
    nonmembers: Words | None = None
    access: Words | None = None
    knowledge: Words | None = None
    rationale: Words | None = None
    measures: Annotated[tuple[Words, ...], BeforeValidator(as_tuple)] = ()
    retest: Annotated[str, BeforeValidator(_as_day)] | None = None
    retest_if: Words | None = None
    notes: Words | None = None


class TrainConfig(Section):
    """How `jobs/train.py` trains the network on the members.

    Attributes:
        epochs: passes over the members.
        batch_size: samples per step of a rank.
        learning_rate: of the first step.
        momentum: of SGD.
        weight_decay: of SGD.
        schedule: how the learning rate falls.
        seed: of the weights and of the order of samples.
        checkpoint_every: epochs between saves of the state that a restart goes on from.
    """

    epochs: Positive = 100
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    checkpoint_every: Positive = 10


class QueriesConfig(Section):
    """Several queries for each image: as it is, shifted, and each of these mirrored.

    Attributes:
        flip: whether every image is also queried mirrored.
        shifts: how many shifts by up to 4 pixels each way, drawn once for all images.
        seed: of the shifts.
    """

    flip: bool = True
    shifts: Annotated[int, Field(ge=0, le=(2 * MAX_SHIFT + 1) ** 2 - 1)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1

    @property
    def count(self) -> int:
        """Queries of a sample."""
        return (1 + self.shifts) * (1 + self.flip)


class ReferencesConfig(Section):
    """Reference models: other trainings of the audited network, of which is known what each was trained on.

    Attributes:
        checkpoints: their weights, K files; a glob stands for its files in natural order.
        inclusion: which was trained on which sample: a .npy file (K, n_samples), or a .npz file that names its samples.
        shadows: instead of these two, the folder of models that `mia-batch` plans and trains for the audit.
        count: of these models, K, an even number.
        store: the folder of their outputs, which any number of audits may share.
        logits: the type that outputs are kept in.
        group: the group of users who share the store; without one it is for its owner alone.
        queries: several queries for each image; without it one.
    """

    checkpoints: Annotated[tuple[Path, ...], BeforeValidator(_as_files)] | None = None
    inclusion: ConfigPath | None = None
    shadows: ConfigPath | None = None
    count: Annotated[int, AfterValidator(_as_count)] | None = None
    store: Annotated[ConfigPath, Field(validate_default=True)] = "references"  # type: ignore[assignment]
    logits: Literal["float32", "float16"] = "float32"
    group: Annotated[str, Field(min_length=1)] | None = None
    queries: QueriesConfig | None = None

    @model_validator(mode="after")
    def _either_given_or_trained(self) -> ReferencesConfig:
        given, trained = ("checkpoints", "inclusion"), ("shadows", "count")
        keys, others = (trained, given) if self.shadows or self.count else (given, trained)
        problems = [(key, f"must not be there beside {keys[0]}") for key in others if getattr(self, key) is not None]
        problems += [(key, "is required") for key in keys if getattr(self, key) is None]
        if problems:
            raise KeyProblems(*problems)
        return self

    @property
    def n_queries(self) -> int:
        """Queries of a sample."""
        return self.queries.count if self.queries else 1

    @property
    def n_references(self) -> int:
        """K."""
        return self.count or len(self.checkpoints or ())

    def files(self) -> dict[str, Path]:
        """The files that it names, by field; none of models that are trained for the audit."""
        weights = {f"references.checkpoints[{i}]": file for i, file in enumerate(self.checkpoints or ())}
        return weights | ({"references.inclusion": self.inclusion} if self.inclusion else {})


class Config(Section):
    """A whole configuration and the file that it came from.

    Attributes:
        path: the file.
        changes: of the file by --set, as they were said.
        model: the network and its checkpoint.
        data: the samples.
        extract: the forward pass.
        attack: the attacks.
        report: what is printed.
        gate: what is a leak.
        audit: what is claimed.
        references: other trainings of the network.
        dossier: what the report says beside the figures.
        train: jobs/train.py alone.
    """

    path: Path = Field(exclude=True)
    changes: tuple[str, ...] = Field(default=(), exclude=True)
    model: SerializeAsAny[ModelConfig]
    data: SerializeAsAny[DataConfig]
    extract: ExtractConfig = ExtractConfig()
    attack: AttackConfig
    report: ReportConfig = ReportConfig()
    gate: GateConfig = GateConfig()
    audit: AuditConfig = AuditConfig()
    references: ReferencesConfig | None = None
    dossier: DossierConfig = DossierConfig()
    train: TrainConfig = TrainConfig()

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain JSON types."""
        sections: dict[str, Any] = self.model_dump(mode="json")
        return {name: section for name, section in sections.items() if section is not None}

    @property
    def imports(self) -> bool:
        """Whether outputs are imported, instead of a network's extracted."""
        return self.data.source == FROM_FILES


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig, "data": DataConfig, "extract": ExtractConfig, "attack": AttackConfig,
    "report": ReportConfig, "gate": GateConfig, "audit": AuditConfig,
    "references": ReferencesConfig, "dossier": DossierConfig, "train": TrainConfig,
}


def factory_file(factory: str) -> Path | None:
    """The file of `path/to/file.py:function`; None for `package.module:function` and named sources."""
    location = factory.rpartition(":")[0]
    return Path(location) if location.endswith(".py") else None


def shown_keys(section: type[Section]) -> list[str]:
    """The keys that a user may write in a section."""
    return [name for name, field in section.model_fields.items() if not field.exclude]


def unknown_key(name: str, valid: Collection[str]) -> str:
    """The rule of a key that there is not: those there are, and the one here or elsewhere that may be meant."""
    found = [f"{where}.{name}" for where, section in SECTIONS.items() if name in shown_keys(section)]
    elsewhere = f"; did you mean {' or '.join(found)}?" if found else ""
    return f"unknown key; valid keys: {', '.join(valid)}{did_you_mean(name, valid) or elsewhere}"
