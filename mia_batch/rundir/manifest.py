"""What a run is: resolved config, digests of what it reads, versions. Two runs never mix in one directory."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import mia_batch
from mia_batch.errors import InputError, one_line
from mia_batch.files import sha256, write_text
from mia_batch.rundir.identity import differences, identity, refuse_differences
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.schema import Config

SCHEMA = 1
PARTS = {"config": dict, "digests": dict}  # of run.json: what its identity is made of
PACKAGES = ("mindspore", "scikit-learn", "numpy", "scipy", "joblib", "mpi4py", "h5py", "numba")


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
