"""The configuration: frozen dataclass-like models, read from YAML and validated whole before anything runs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mia_batch.errors import InputError
from mia_batch.factory import one_line
from mia_batch.grid import expand_values, normalise_grid

METRICS = ("precision", "accuracy", "recall", "balanced_accuracy", "auc", "advantage", "tpr_at_fpr")
GATE_METRICS = ("accuracy", "precision", "recall", "balanced_accuracy", "auc", "advantage")
MAX_CANDIDATES = 100_000  # of one method
SOURCES = ("cifar100", "cifar10")


def expand(text: str) -> str:
    """`text` with ~ and environment variables replaced; a ValueError for one that is not set."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset and unset[1] not in os.environ:
        raise ValueError(f"uses the environment variable {unset[1]}, which is not set")
    return expanded


def _resolve_path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return Path(os.path.normpath((info.context or {}).get("base", Path.cwd()) / expand(value)))


def _resolve_factory(value: Any, info: ValidationInfo) -> str:
    location, _, function = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not location or not function.isidentifier():
        raise ValueError("must be package.module:function or path/to/file.py:function")
    return f"{_resolve_path(location, info)}:{function}" if location.endswith(".py") else value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_blocks(value: Any) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        raise ValueError("must be a block with split, or a list of blocks")
    return (value,) if isinstance(value, Mapping) else _as_tuple(value)


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


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"must name each once, {', '.join(repeated)} repeated")
    return values


ConfigPath = Annotated[Path, BeforeValidator(_resolve_path)]
Pair = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]
Triple = Annotated[tuple[float, float, float], BeforeValidator(_as_tuple)]
Positive = Annotated[int, Field(ge=1)]
Kwargs = Annotated[dict[str, Any], BeforeValidator(_check_plain)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """The network and the checkpoint that is audited."""

    factory: Annotated[str, BeforeValidator(_resolve_factory)]
    kwargs: Kwargs = {}
    checkpoint: ConfigPath

    def factory_file(self) -> Path | None:
        """The file of a factory given as path/to/file.py:function."""
        return factory_file(self.factory)


class SampleBlock(_Section):
    """Samples of one split, in file order (`num_samples`, `range`) or in the order of an index file."""

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


Blocks = Annotated[tuple[SampleBlock, ...], BeforeValidator(_as_blocks), Field(min_length=1)]


class DataConfig(_Section):
    """Where samples come from, which are members, and how they are preprocessed."""

    source: str
    path: ConfigPath | None = None
    kwargs: Kwargs = {}
    label: Literal["fine", "coarse"] = "fine"
    image_size: Annotated[tuple[Positive, Positive], BeforeValidator(_as_tuple)] = (32, 32)
    mean: Triple = (0.4465, 0.4822, 0.4914)
    std: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]],
        BeforeValidator(_as_tuple),
    ] = (0.2010, 0.1994, 0.2023)
    members: Blocks
    nonmembers: Blocks
    augment_members: bool = False

    @field_validator("source", mode="before")
    @classmethod
    def _known_source(cls, value: Any, info: ValidationInfo) -> str:
        if value in SOURCES:
            return str(value)
        try:
            return _resolve_factory(value, info)
        except ValueError:
            rule = f"must be {', '.join(SOURCES)}, package.module:function or path/to/file.py:function"
            raise ValueError(rule) from None

    @model_validator(mode="after")
    def _what_the_source_takes(self) -> DataConfig:
        if self.source in SOURCES:
            if self.path is None:
                raise ValueError(f"path is required for source {self.source}")
            if self.kwargs:
                raise ValueError(f"kwargs go to a function: source {self.source} takes none")
        elif "label" in self.model_fields_set:
            raise ValueError(f"label chooses between the labels of records: source {self.source} gives its own")
        elif {"split", "path"} & self.kwargs.keys():
            raise ValueError("kwargs must not have split or path: they come from the blocks and from data.path")
        return self


class ExtractConfig(_Section):
    """The forward pass over members and non-members."""

    device: Literal["auto", "Ascend", "GPU", "CPU"] = "auto"
    batch_size: Positive = 64


class MethodConfig(_Section):
    """One attack and its grid: every parameter's distinct values."""

    method: str
    params: dict[str, Any] = {}
    notes: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _expand_grid(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("params", {}), Mapping):
            return raw
        problems: list[str] = []
        notes: list[str] = []
        params = {}
        for name, values in raw.get("params", {}).items():
            try:
                params[name] = expand_values(values)
            except ValueError as error:
                problems.append(f"params.{name} {error}")
        if not problems and isinstance(raw.get("method"), str):
            params, notes, problems = _check_grid(raw["method"], params)
        if problems:
            raise ValueError(problems)
        return {**raw, "params": params, "notes": tuple(notes)}


def _check_grid(method: str, params: dict[str, tuple[Any, ...]]) -> tuple[dict[str, Any], list[str], list[str]]:
    # scikit-learn: only when a grid is there
    from mia_batch.attacks.classifiers import METHODS, check_grid, n_candidates

    if method not in METHODS:
        return params, [], [f"method must be one of {', '.join(METHODS)}, got {method!r}"]
    params, notes = normalise_grid(method, params)
    if n_candidates(params) > MAX_CANDIDATES:
        rule = f"params must give at most {MAX_CANDIDATES} candidates together, got {n_candidates(params)}"
        return params, [], [rule]
    return params, notes, check_grid(method, params)


class AttackConfig(_Section):
    """Fit and evaluation split, and grid search of the attacks."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    cv: Annotated[int, Field(ge=2)] = 3
    features: Literal["logits_loss", "mindarmour"] = "logits_loss"
    search: Literal["shared", "exact", "random", "halving"] = "shared"
    n_iter: Positive = 10
    memory_gib: Annotated[float, Field(gt=0)] = 4.0
    backend: Literal["loky", "dask"] = "loky"
    scheduler: str | None = None
    methods: Annotated[tuple[MethodConfig, ...], BeforeValidator(_as_tuple), Field(min_length=1)]

    @field_validator("methods")
    @classmethod
    def _each_method_once(cls, methods: tuple[MethodConfig, ...]) -> tuple[MethodConfig, ...]:
        _unique(tuple(method.method for method in methods))
        return methods

    @model_validator(mode="after")
    def _scheduler_for_dask(self) -> AttackConfig:
        if (self.backend == "dask") != (self.scheduler is not None):
            raise ValueError("scheduler (an address or a scheduler file) goes with backend: dask, and only with it")
        return self


class ReportConfig(_Section):
    """What the reducer prints."""

    metrics: Annotated[
        tuple[Literal[METRICS], ...],  # type: ignore[valid-type]
        BeforeValidator(_as_tuple), Field(min_length=1), AfterValidator(_unique),
    ] = ("precision", "accuracy", "recall")


class GateConfig(_Section):
    """The rule of the verdict; a metric is above when it is greater than `threshold`."""

    rule: Literal["all_above", "any_above"] = "all_above"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.6
    metrics: Annotated[
        tuple[Literal[GATE_METRICS], ...],  # type: ignore[valid-type]
        BeforeValidator(_as_tuple), Field(min_length=1), AfterValidator(_unique),
    ] = ("accuracy", "precision", "recall")
    bound: Literal["point", "lower"] = "point"


class TrainConfig(_Section):
    """How `jobs/train.py` trains the network on the members."""

    epochs: Positive = 100
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    checkpoint_every: Positive = 10


class Config(_Section):
    """A whole configuration and the file that it came from."""

    path: Path = Field(exclude=True)
    model: ModelConfig
    data: DataConfig
    extract: ExtractConfig = ExtractConfig()
    attack: AttackConfig
    report: ReportConfig = ReportConfig()
    gate: GateConfig = GateConfig()
    train: TrainConfig = TrainConfig()

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain JSON types."""
        return self.model_dump(mode="json")


SECTIONS: dict[str, type[_Section]] = {
    "model": ModelConfig, "data": DataConfig, "extract": ExtractConfig, "attack": AttackConfig,
    "report": ReportConfig, "gate": GateConfig, "train": TrainConfig,
}
REQUIRED = ("model", "data", "attack")


def factory_file(factory: str) -> Path | None:
    """The file of `path/to/file.py:function`; None for `package.module:function` and named sources."""
    location = factory.rpartition(":")[0]
    return Path(location) if location.endswith(".py") else None


def load_config(
    path: str | Path, *, checkpoint: str | Path | None = None, need: Collection[str] = ("checkpoint", "data")
) -> Config:
    """Read and validate a configuration.

    Args:
        path: the YAML file. Paths in it may use environment variables and are relative to its folder.
        checkpoint: audited instead of `model.checkpoint`, relative to the current folder.
        need: which of the files it names must be there: "checkpoint", "data".

    Raises:
        InputError: with every problem found, a line each.
    """
    path = Path(path)
    raw = _read_yaml(path)
    if checkpoint is not None and isinstance(raw.get("model"), dict):
        raw["model"]["checkpoint"] = Path(checkpoint).absolute()
    problems = [f"{path}: {name}: is required" for name in REQUIRED if name not in raw]
    problems += [_unknown(path, str(key), SECTIONS) for key in raw if key not in SECTIONS]
    parts: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        if name in raw:
            try:
                parts[name] = section.model_validate(raw[name], context={"base": path.absolute().parent})
            except ValidationError as error:
                problems += [line for item in error.errors() for line in _lines(path, name, section, item)]
    problems += _missing_files(path, parts, need)
    if problems:
        raise InputError(problems)
    return Config(path=path.absolute(), **parts)


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses a key given twice."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be text", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise InputError(f"{path}: must be a configuration file, got: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be YAML text in UTF-8, got a byte that is not at {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{path}: {where}YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:  # a date or a number that is none, or nesting without end
        raise InputError(f"{path}: YAML: must hold values that can be read, got {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be a mapping with {', '.join(REQUIRED)}, got {type(raw).__name__}")
    return raw


def _unknown(path: Path, field: str, valid: Collection[str]) -> str:
    return f"{path}: {field}: unknown key; valid keys: {', '.join(valid)}"


def _lines(path: Path, name: str, section: type[_Section], item: Any) -> list[str]:
    """The lines for one of pydantic's errors."""
    location = [name, *(str(part) for part in item["loc"] if not str(part).startswith("function-"))]
    field = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(location))
    if item["type"] == "extra_forbidden":
        return [_unknown(path, field, _keys_at(section, item["loc"][:-1]))]
    if item["type"] == "missing":
        return [f"{path}: {field}: is required"]
    if item["type"] == "value_error":
        reasons = item["ctx"]["error"].args[0]
        if isinstance(reasons, list):
            split = (reason.partition(" ") for reason in reasons)
            return [f"{path}: {field}.{name}: {rule}" for name, _, rule in split]
        shown = "" if isinstance(item["input"], Mapping | _Section | tuple) else f", got {_brief(item['input'])}"
        return [f"{path}: {field}: {reasons}{shown}"]
    rule = re.sub(r"^Input should be", "must be", item["msg"])
    rule = re.sub(r"a valid dictionary or instance of \w+", "a mapping", rule)
    rule = re.sub(r"a valid (tuple|list)", "a list", rule)
    rule = re.sub(r"^\w+ should have at least (\d+) items? .*", r"must have at least \1", rule)
    return [f"{path}: {field}: {rule[0].lower() + rule[1:]}, got {_brief(item['input'])}"]


def _brief(value: Any) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _keys_at(section: type[_Section], location: tuple[Any, ...]) -> list[str]:
    nested: dict[str, type[_Section]] = {"members": SampleBlock, "nonmembers": SampleBlock, "methods": MethodConfig}
    where: type[_Section] = next((nested[part] for part in location if part in nested), section)
    return [name for name, field in where.model_fields.items() if not field.exclude]


def _missing_files(path: Path, parts: Mapping[str, Any], need: Collection[str]) -> list[str]:
    """One line for each file that a later stage would miss."""
    wanted: list[tuple[str, Path]] = []
    if "model" in parts:
        model: ModelConfig = parts["model"]
        wanted += [("model.factory", file)] if (file := model.factory_file()) else []
        wanted += [("model.checkpoint", model.checkpoint)] if "checkpoint" in need else []
    if "data" in parts:
        wanted += [("data.source", file)] if (file := factory_file(parts["data"].source)) else []
        for side in ("members", "nonmembers"):
            wanted += [(f"data.{side}", b.indices) for b in getattr(parts["data"], side) if b.indices]
    problems = [
        f"{path}: {field}: must be a file that can be read, got {file}, which {state}"
        for field, file in wanted if (state := _unreadable(file)) is not None
    ]
    if "data" in need and "data" in parts and (folder := parts["data"].path):
        state = _unreadable(folder)
        if state not in (None, "is a folder"):
            problems.append(f"{path}: data.path: must exist and be readable, got {folder}, which {state}")
    return problems


def _unreadable(file: Path) -> str | None:
    """Why a file cannot be read; None where it can."""
    try:
        with open(file, "rb"):
            return None
    except IsADirectoryError:
        return "is a folder" if os.access(file, os.R_OK | os.X_OK) else "cannot be read"
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
