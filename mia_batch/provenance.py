"""What a run is: resolved config, digests of what it reads, versions. Two runs never mix in one directory."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import mia_batch
from mia_batch.config import Config, factory_file
from mia_batch.errors import InputError
from mia_batch.factory import one_line
from mia_batch.paths import RunPaths, write_text

SCHEMA = 1
PARTS = {"config": dict, "digests": dict}  # of run.json: what its identity is made of
PACKAGES = ("mindspore", "scikit-learn", "numpy", "scipy", "joblib", "mpi4py", "h5py", "numba")
# A run that moved to another mount is still the same run: files count by their digests, not by their names. Where the
# search is computed, and in how much memory, changes no number, so that a run can go on elsewhere.
NOT_IDENTITY = (
    "train", "model.checkpoint", "model.factory", "data.path", "data.source",
    "attack.memory_gib", "attack.backend", "attack.scheduler",
)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, got: {error.strerror}") from error


def _sha256(file: Any) -> str:  # Python 3.10 has no file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digests(config: Config) -> dict[str, str]:
    """SHA-256 of the checkpoint, the data files, index files and factories given as files, by field."""
    from mia_batch.data import data_digests

    files: dict[str, Path | None] = {
        "model.checkpoint": config.model.checkpoint,
        "model.factory": config.model.factory_file(),
        "data.source": factory_file(config.data.source),
    }
    for side in ("members", "nonmembers"):
        for i, block in enumerate(getattr(config.data, side)):
            files[f"data.{side}[{i}].indices"] = block.indices
    found = {field: sha256(file) for field, file in files.items() if file}
    return found | {f"data:{name}": digest for name, digest in data_digests(config.data).items()}


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


def make_manifest(config: Config) -> dict[str, Any]:
    """The content of run.json for `config` as it and its files are now."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        "schema": SCHEMA, "created": created, "config_file": str(config.path), "config": config.resolved(),
        "digests": digests(config), "versions": versions(), "launches": [],
    }


def claim(paths: RunPaths, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Make the directory this run's; if it is one already it must be the same.

    Returns:
        The manifest in force: the one found there, or else `manifest`, now written.

    Raises:
        InputError: the directory holds another run; says what differs.
    """
    paths.create()
    found = read_manifest(paths)
    if found is None:
        stray = [file.name for file in (paths.features, paths.summary_json) if file.exists()]
        if stray:
            rule = "--out: must be empty or a run of this config"
            raise InputError(f"{paths.root}: {rule}, got {stray[0]} without {paths.manifest.name}")
        write_text(paths.manifest, json.dumps(manifest, indent=1) + "\n")
        return dict(manifest)
    refuse_differences(paths, differences(identity(found), identity(manifest)))
    return found


def check_same_run(paths: RunPaths, config: Config, *, checkpoint: bool = False) -> dict[str, Any]:
    """The manifest of the run in `paths`, which must have been made with `config`.

    No file is read again but, if asked for, the checkpoint.
    """
    found = read_manifest(paths)
    if found is None:
        raise InputError(f"{paths.root}: must be a run directory with {paths.manifest.name}; run extract first")
    digests_here = {"model.checkpoint": sha256(config.model.checkpoint)} if checkpoint else {}
    here = {**found, "config": config.resolved(), "digests": found["digests"] | digests_here}
    refuse_differences(paths, differences(identity(found), identity(here)))
    return found


def read_manifest(paths: RunPaths) -> dict[str, Any] | None:
    """run.json, or None where there is none.

    Raises:
        InputError: it cannot be read as one.
    """
    try:
        manifest = json.loads(paths.manifest.read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise InputError(f"{paths.manifest}: schema: must be {SCHEMA}, got {manifest['schema']!r}")
        if not all(isinstance(manifest[key], kind) for key, kind in PARTS.items()):
            raise InputError(f"{paths.manifest}: must have {', '.join(PARTS)} as a run writes them")
        return dict(manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{paths.manifest}: must be a run's manifest, got {one_line(error)}") from error


def what_is_damaged(error: Exception) -> str:
    """The line for a run of which run.json or summary.json cannot be used; other files have said it themselves."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    return f"run.json or summary.json: must be as a run writes it, got {one_line(error)}"


def add_launch(paths: RunPaths, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Append one stage's start to run.json; returns the new manifest."""
    manifest = read_manifest(paths) or {}
    manifest["launches"] = [*manifest.get("launches", []), dict(entry)]
    write_text(paths.manifest, json.dumps(manifest, indent=1) + "\n")
    return manifest


def end_launch(paths: RunPaths, measured: Mapping[str, Any]) -> None:
    """Add what was measured to the entry that `add_launch` appended last."""
    manifest = read_manifest(paths) or {}
    manifest["launches"] = [*manifest["launches"][:-1], {**manifest["launches"][-1], **measured}]
    write_text(paths.manifest, json.dumps(manifest, indent=1) + "\n")


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two manifests to be of the same run, as a flat mapping."""
    flat = _flatten(manifest["config"])
    kept = {
        key: value for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY) and not key.endswith(".indices")
    }
    functions = {f"{key} (function)": str(flat[key]).rpartition(":")[2] for key in ("model.factory", "data.source")}
    modules = {key: flat[key] for key in ("model.factory", "data.source") if ".py:" not in str(flat[key])}
    return kept | functions | modules | {f"SHA-256 of {key}": value for key, value in manifest["digests"].items()}


def run_digest(manifest: Mapping[str, Any]) -> str:
    """Hex digest of a run's identity: what results carry to show which run they belong to."""
    text = json.dumps(identity(manifest), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(manifest: Mapping[str, Any]) -> str:
    """Hex digest of what a run's samples are: the same for runs that differ in model, attacks or gate alone."""
    ours = ("data.", "SHA-256 of data")
    text = json.dumps({key: value for key, value in identity(manifest).items() if key.startswith(ours)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One phrase for each key that is not the same."""
    keys = [*there, *(key for key in here if key not in there)]
    absent = "nothing"
    return [
        f"{key} is {_brief(there.get(key, absent))} there and {_brief(here.get(key, absent))} here"
        for key in keys if there.get(key, absent) != here.get(key, absent)
    ]


def refuse_differences(paths: RunPaths, found: list[str]) -> None:
    """Raise an InputError that lists the differences, if there are any."""
    if found:
        advice = "; choose another --out, or remove that directory to audit anew"
        raise InputError([f"{paths.root}: --out: holds another run: {phrase}{advice}" for phrase in found])


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = [(f"{prefix}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {prefix: value}
    return {name: leaf for key, item in items for name, leaf in _flatten(item, key).items()}


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
