"""Read a configuration from YAML and refuse it whole, every problem as one line."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mia_batch.errors import InputError, did_you_mean
from mia_batch.files import no_folder, open_bytes, read_text
from mia_batch.settings.changes import BLOCKS, OPTION, Change, make_changes, read_changes
from mia_batch.settings.outputs import OWN, NoModel, OutputColumns, OutputsConfig
from mia_batch.settings.schema import (
    FROM_FILES,
    SECTIONS,
    ColumnsConfig,
    Config,
    DataConfig,
    KeyProblems,
    MethodConfig,
    ModelConfig,
    QueriesConfig,
    ReferencesConfig,
    RuleConfig,
    SampleBlock,
    Section,
    factory_file,
    shown_keys,
    unknown_key,
)
from mia_batch.settings.yaml_text import MOST_BYTES, parse

REQUIRED = ("model", "data", "attack")


def load_config(
    path: str | Path, *, checkpoint: str | Path | None = None, need: Collection[str] = ("checkpoint", "data"),
    changes: Sequence[str] = (),
) -> Config:
    """Read and validate a configuration.

    Args:
        path: the YAML file. Paths in it may use environment variables and are relative to its folder.
        checkpoint: audited instead of `model.checkpoint`, relative to the current folder.
        need: which of the files it names must be there: "checkpoint", "data".
        changes: as `--set` takes them, KEY=VALUE; they count as if they stood in the file.

    Raises:
        InputError: with every problem found, a line each.
    """
    path = Path(path)
    raw, parsed = read_yaml(path, "configuration", REQUIRED), read_changes(changes)
    _refuse_checkpoints(parsed, checkpoint)
    make_changes(raw, parsed)
    return make_config(raw, path, checkpoint=checkpoint, need=need, changes=changes)


def make_config(
    raw: dict[str, Any], path: Path, *, checkpoint: str | Path | None = None, need: Collection[str] = (),
    changes: Sequence[str] = (),
) -> Config:
    """The configuration that a file at `path` has, or is to have.

    Args:
        raw: its sections, as YAML gives them, with the changes made.
        path, checkpoint, need, changes: as `load_config` has them.

    Raises:
        InputError: with every problem found, a line each.
    """
    imports = isinstance(raw.get("data"), dict) and raw["data"].get("source") == FROM_FILES
    if checkpoint is not None and imports:
        rule = f"must not be {FROM_FILES} where a checkpoint is named"
        raise InputError(f"{path}: data.source: {rule}, got {checkpoint}")
    if checkpoint is not None and isinstance(raw.get("model"), dict):
        raw = raw | {"model": raw["model"] | {"checkpoint": Path(checkpoint).absolute()}}
    sections = SECTIONS | ({"data": OutputsConfig} if imports else {})
    required = [name for name in REQUIRED if not (imports and name == "model")]
    problems = [f"{path}: {name}: is required" for name in required if name not in raw]
    problems += [f"{path}: {key}: {unknown_key(str(key), SECTIONS)}" for key in raw if key not in SECTIONS]
    parts: dict[str, Any] = {"model": NoModel()} if imports else {}
    for name, section in sections.items():
        if name in raw:
            try:
                parts[name] = section.model_validate(raw[name], context={"base": path.absolute().parent})
            except ValidationError as error:
                problems += [line for item in error.errors() for line in _lines(path, name, section, item)]
    problems += [*_missing_files(path, parts, need), *_unfit_references(path, parts), *_two_columns(path, parts)]
    if problems:
        raise InputError(_of_changes(problems, path, read_changes(changes)))
    return Config(path=path.absolute(), changes=tuple(changes), **parts)


def _unfit_references(path: Path, parts: Mapping[str, Any]) -> list[str]:
    """One line for each key of other sections that references do not go with."""
    references, data = parts.get("references"), parts.get("data")
    if references is None or data is None:
        return []
    if isinstance(data, OutputsConfig):
        return [f"{path}: references: must have a network to run, got data.source: {FROM_FILES}"]
    problems = []
    if data.augment_members:  # a reference's answers would depend on who is a member of the target
        problems.append(f"{path}: data.augment_members: must be false beside references, got true")
    if references.queries and not data.is_image:
        rule = "must be left out where samples are no images"
        problems.append(f"{path}: references.queries: {rule}, got data.preprocess: {data.preprocess}")
    return problems


def _two_columns(path: Path, parts: Mapping[str, Any]) -> list[str]:
    """One line for each name that a column of imported outputs and one of `report.slices_by` have."""
    data, report = parts.get("data"), parts.get("report")
    if not isinstance(data, OutputsConfig) or report is None:
        return []
    both = [name for name in report.slices_by if name in data.columns.slices]
    rule = "must be another name than those of data.columns.slices"
    return [f"{path}: report.slices_by.{name}: {rule}, got the same" for name in both]


def _refuse_checkpoints(changes: Sequence[Change], checkpoint: str | Path | None) -> None:
    if checkpoint is not None and any(change.path == ("model", "checkpoint") for change in changes):
        rule = "must not be set where --checkpoint, --checkpoints or --watch names the checkpoint"
        raise InputError(f"{OPTION}: model.checkpoint: {rule}, got both")


def _of_changes(problems: Sequence[str], path: Path, changes: Sequence[Change]) -> list[str]:
    """The lines, where a field was set on the command line with the option's name in the place of the file's."""
    lines = []
    for line in problems:
        field = line.removeprefix(f"{path}: ")
        lines.append(f"{OPTION}: {field}" if any(_is_of(change, field) for change in changes) else line)
    return lines


def _is_of(change: Change, line: str) -> bool:
    """Whether a line is of what was set, or of an unknown key that the setting has made on its way."""
    unknown = line.partition(": unknown key")[0]
    within = re.match(rf"{re.escape(_one(change.key))}(?=[.:\[])", _one(line))
    return within is not None or change.key.startswith(f"{unknown}.")


def _one(field: str) -> str:
    """A field, without the number of the first block, which may be the only one and have none."""
    return re.sub(rf"^(data\.(?:{'|'.join(BLOCKS)}))\[0\]", r"\1", field)


def read_section(name: str, raw: Any, section: type[Section] | None = None) -> Any:
    """One section, from what a file would have there. Paths in it are relative to the current folder.

    Raises:
        InputError: with every problem found, a line each.
    """
    section, here = section or SECTIONS[name], Path("-")
    try:
        return section.model_validate(raw, context={"base": Path.cwd()})
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _lines(here, name, section, item)]
        raise InputError(line.removeprefix(f"{here}: ") for line in lines) from None


def with_checkpoint(config: Config, checkpoint: str | Path) -> Config:
    """`config` of another checkpoint, relative to the current folder; only what that changes is checked.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    changed = config.model.model_copy(update={"checkpoint": Path(checkpoint).absolute()})
    problems = _missing_files(config.path, {"model": changed}, ("checkpoint",))
    if problems:
        raise InputError(problems)
    return config.model_copy(update={"model": changed})


def read_yaml(path: Path, kind: str, keys: Collection[str]) -> dict[str, Any]:
    """The mapping in a file of this kind, which has such keys.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: must be a {kind} file, got: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be YAML text in UTF-8, got a byte that is not at {error.start}") from error
    raw = parse(text, str(path))
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be a mapping with {', '.join(keys)}, got {type(raw).__name__}")
    return raw


def _lines(path: Path, name: str, section: type[Section], item: Any) -> list[str]:
    """The lines for one of pydantic's errors."""
    location = [name, *(str(part) for part in item["loc"] if not str(part).startswith("function-"))]
    field = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(location))
    if item["type"] == "extra_forbidden":
        *where, key = item["loc"]
        return [f"{path}: {field}: {unknown_key(str(key), _keys_at(section, where))}"]
    if item["type"] == "missing":
        return [f"{path}: {field}: is required"]
    if item["type"] == "value_error":
        error = item["ctx"]["error"]
        if isinstance(error, KeyProblems):
            return [f"{path}: {field}.{key}: {rule}" for key, rule in error.problems]
        shown = "" if isinstance(item["input"], Mapping | Section | tuple) else f", got {_brief(item['input'])}"
        return [f"{path}: {field}: {error}{shown}{_near(item)}"]
    rule = re.sub(r"^Input should be", "must be", item["msg"])
    rule = re.sub(r"a valid dictionary or instance of \w+", "a mapping", rule)
    rule = re.sub(r"a valid (tuple|list)", "a list", rule)
    rule = re.sub(r"^\w+ should have at least (\d+) items? .*", r"must have at least \1", rule)
    return [f"{path}: {field}: {rule[0].lower() + rule[1:]}, got {_brief(item['input'])}{_near(item)}"]


def _near(item: Any) -> str:
    """The choice that is close to a value for which there are choices."""
    context = item.get("ctx", {})
    quoted = re.findall(r"'([^']*)'", context.get("expected") or context.get("choices") or "")
    return did_you_mean(item["input"], getattr(context.get("error"), "choices", quoted))


def _brief(value: Any) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _keys_at(section: type[Section], location: Sequence[Any]) -> Collection[str]:
    nested: dict[str, type[Section]] = {
        "members": SampleBlock, "nonmembers": SampleBlock, "canaries": SampleBlock,
        "columns": OutputColumns if section is OutputsConfig else ColumnsConfig,
        "methods": MethodConfig, "rules": RuleConfig, "queries": QueriesConfig,
    }
    where: type[Section] = next((nested[part] for part in location if part in nested), section)
    return OWN if where is OutputsConfig else shown_keys(where)


def _missing_files(path: Path, parts: Mapping[str, Any], need: Collection[str]) -> list[str]:
    """One line for each file that a later stage would miss."""
    wanted: list[tuple[str, Path]] = []
    others: list[str] = []
    if "model" in parts and not isinstance(parts["model"], NoModel):
        model: ModelConfig = parts["model"]
        wanted += model.files().items()
        wanted += [("model.checkpoint", model.checkpoint)] if "checkpoint" in need else []
    if "references" in parts and "checkpoint" in need:
        references: ReferencesConfig = parts["references"]
        wanted += references.files().items()
        folders = {key: getattr(references, key) for key in ("shadows", "store")}
        others = [
            f"{path}: references.{key}: must be a directory, got {got}"
            for key, folder in folders.items() if folder and (got := no_folder(folder))
        ]
    if "data" in parts:
        factories = {"data.source": parts["data"].source, "data.preprocess": parts["data"].preprocess}
        wanted += [(field, file) for field, name in factories.items() if (file := factory_file(name))]
        wanted += [(field.partition("[")[0], file) for field, file in _data_files(parts["data"], need).items()]
    if "report" in parts:
        wanted += parts["report"].files().items()
    problems = [
        f"{path}: {field}: must be a file that can be read, got {file}, which {state}"
        for field, file in wanted if (state := _unreadable(file)) is not None
    ]
    if "data" in need and "data" in parts and (folder := parts["data"].path):
        state = _unreadable(folder)
        if state not in (None, "is a folder"):
            problems.append(f"{path}: data.path: must exist and be readable, got {folder}, which {state}")
    return problems + others


def _data_files(data: DataConfig, need: Collection[str]) -> dict[str, Path]:
    """Its index files and files of groups, and outputs where they are needed, by field."""
    unneeded = data.output_files() if isinstance(data, OutputsConfig) and "data" not in need else {}
    return {field: file for field, file in data.named_files().items() if field not in unneeded}


def _unreadable(file: Path) -> str | None:
    """Why a file cannot be read; None where it can."""
    try:
        with open_bytes(file):
            return None
    except IsADirectoryError:
        return "is a folder" if os.access(file, os.R_OK | os.X_OK) else "cannot be read"
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


@contextmanager
def named_in(path: Path) -> Iterator[None]:
    """Put the config's name before problems that begin with one of its fields."""
    try:
        yield
    except InputError as error:
        ours = tuple(f"{section}{mark}" for section in SECTIONS for mark in ".:")
        raise InputError(
            f"{path}: {line}" if line.startswith(ours) else line for line in error.problems
        ) from error
