"""run.json: what a run is (its config, the digests of what it reads, versions) and how it was launched."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

import mia_batch
from mia_batch import json_text
from mia_batch.errors import InputError, one_line
from mia_batch.files import write_text
from mia_batch.locks import in_turn
from mia_batch.rundir.paths import RunPaths, refuse_links

SCHEMA = 2
READABLE = (1, 2)  # 1 is of the version whose files carry the digest of a whole run; it holds the same
PACKAGES = ("mindspore", "scikit-learn", "numpy", "scipy", "joblib", "mpi4py", "h5py", "numba")


class CheckpointOrigin(BaseModel):
    """When the checkpoint was made: of no result's identity, since a copy has another time.

    Attributes:
        modified: the file's last change, ISO 8601, UTC; empty in a run of a version that did not record it.
        epoch_num: as its training has put it into the file, 0 or more; None where it has not.
        step_num: likewise.
    """

    model_config = ConfigDict(frozen=True)

    modified: str = ""
    epoch_num: int | None = None
    step_num: int | None = None


class Manifest(BaseModel):
    """What a run is.

    Attributes:
        created: when the run was set up, ISO 8601, UTC.
        config_file: the configuration's file.
        config: every key with its value, by section, as plain JSON types.
        digests: SHA-256 of the checkpoint, the data files, index files and factories given as files, by field.
        versions: of Python, the product and what computes its numbers, when the run was set up.
        launches: how extractions and references' stages were started, reference models trained, and what was measured,
            oldest first.
        checkpoint: when the checkpoint was made.
        changes: of `config_file`, by --set, as they were said: KEY=VALUE. `config` has their values.
    """

    model_config = ConfigDict(frozen=True)

    created: str
    config_file: str
    config: dict[str, dict[str, Any]]
    digests: dict[str, str]
    versions: dict[str, str]
    launches: tuple[dict[str, Any], ...] = ()
    checkpoint: CheckpointOrigin = CheckpointOrigin()
    changes: tuple[str, ...] = ()

    @field_validator("config")
    @classmethod
    def _names_its_methods(cls, config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        methods = config.get("attack", {}).get("methods", [])
        named = isinstance(methods, list) and all(isinstance(each, dict) and "method" in each for each in methods)
        if not named or not all(isinstance(each["method"], str) for each in methods):
            raise ValueError("attack.methods must be a list of methods with their names")
        return config

    @property
    def methods(self) -> list[str]:
        """The attacks, in the order of the configuration."""
        return [method["method"] for method in self.config.get("attack", {}).get("methods", [])]

    def as_json(self) -> dict[str, Any]:
        """The content of run.json."""
        return {"schema": SCHEMA, **self.model_dump(mode="json")}

    def text(self) -> str:
        """The text of run.json."""
        return json_text.written(self.as_json())


def versions() -> dict[str, str]:
    """Versions of Python, the product and what computes its numbers, without importing any of it."""
    found = {"python": platform.python_version(), "mia_batch": mia_batch.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def launch(stage: str, *, environ: Mapping[str, str] = os.environ, **layout: Any) -> dict[str, Any]:
    """How one stage was started: time, host, scheduler job, and `layout` (rank_size, n_nodes, device, ...)."""
    job = {key.lower(): environ[key] for key in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT") if key in environ}
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"stage": stage, "started": started, "host": platform.node(), **job, **layout}


def read_manifest(paths: RunPaths) -> Manifest | None:
    """run.json, or None where there is none.

    Raises:
        InputError: it cannot be read as one; one line with the first field that is wrong. Or there are links beside it.
    """
    refuse_links(paths)
    try:
        raw = json_text.read(paths.manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{paths.manifest}: must be a run's manifest, got {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{paths.manifest}: must be a run's manifest, a mapping, got {json.dumps(raw)[:80]}")
    if raw.get("schema") not in READABLE:
        readable = " or ".join(map(str, READABLE))
        raise InputError(f"{paths.manifest}: schema: must be {readable}, got {raw.get('schema')!r}")
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{paths.manifest}: {_first_problem(error)}") from error


def known_manifest(paths: RunPaths) -> Manifest:
    """`run.json` of a directory that must be a run's.

    Raises:
        InputError: there is none, or it is not as a run writes it.
    """
    manifest = read_manifest(paths)
    if manifest is None:
        raise InputError(f"{paths.root}: must be a run directory, got none with {paths.manifest.name}")
    return manifest


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{field}: is required"
    rule = problem["msg"].replace("Input should be", "must be").replace("a valid dictionary", "a mapping")
    rule = rule.replace("a valid tuple", "a list").replace("a valid string", "text")
    return f"{field}: {rule.removeprefix('Value error, ')}, got {repr(problem['input'])[:80]}"


def write_manifest(paths: RunPaths, manifest: Manifest) -> None:
    """Put run.json in place, whole or not at all."""
    write_text(paths.manifest, manifest.text())


def add_launch(paths: RunPaths, entry: Mapping[str, Any], before: Sequence[Mapping[str, Any]] = ()) -> Manifest:
    """Append one stage's start to run.json, after those of `before` that are not there; returns the new manifest."""

    def change(launches: tuple[dict[str, Any], ...]) -> tuple[Any, ...]:
        return (*launches, *(dict(each) for each in before if each not in launches), dict(entry))

    return _change_launches(paths, change)


def end_launch(paths: RunPaths, begun: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Add what was measured to the entry `begun`; tasks of an array may have appended theirs since."""

    def change(launches: tuple[dict[str, Any], ...]) -> tuple[Any, ...]:
        last = max(i for i, entry in enumerate(launches) if entry == begun)
        return (*launches[:last], {**begun, **measured}, *launches[last + 1 :])

    _change_launches(paths, change)


def _change_launches(paths: RunPaths, change: Callable[[tuple[dict[str, Any], ...]], tuple[Any, ...]]) -> Manifest:
    with in_turn(paths.lock):
        found = read_manifest(paths)
        if found is None:
            raise InputError(f"{paths.manifest}: must stay there while a stage runs")
        manifest = found.model_copy(update={"launches": change(found.launches)})
        write_manifest(paths, manifest)
    return manifest
