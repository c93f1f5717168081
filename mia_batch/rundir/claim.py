"""Which run a directory holds: two runs never mix in it, but a run may go on with another attack, gate or report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError
from mia_batch.files import holds, sha256
from mia_batch.locks import in_turn
from mia_batch.rundir.earlier import earlier_digests
from mia_batch.rundir.file_system import try_once
from mia_batch.rundir.identity import (
    OF_VERDICT,
    TRAJECTORY,
    VERDICT_FILES,
    differences,
    features_identity,
    of_rows,
    refuse_differences,
)
from mia_batch.rundir.manifest import Manifest, read_manifest, write_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.reference_files import inclusion_digest, inclusion_file, reference_digests
from mia_batch.rundir.sharing import share_run
from mia_batch.rundir.state import read_rows
from mia_batch.settings.outputs import NoModel, OutputsConfig
from mia_batch.settings.schema import Config

REPORT_FILES = "report."  # of slices
UNREAD = ("model", "data", "extract")  # sections whose files only `claim` reads again


def claim(paths: RunPaths, manifest: Manifest, begun: Mapping[str, Any] | None = None) -> Manifest:
    """Make the directory this run's.

    Args:
        paths: of the directory.
        manifest: of the run.
        begun: how the stage was started that claims it, for the history of launches.

    Returns:
        The manifest in force, which is in run.json now: `manifest`, with the history of the run that is there already.

    Raises:
        InputError: the directory holds rows or results of another model, data or extraction; in words.
    """
    paths.create()
    if not paths.features.exists():
        try_places(paths, manifest)
    in_force(paths, manifest)  # what is refused leaves nothing behind
    with in_turn(paths.lock):
        wanted = in_force(paths, manifest)
        if begun:
            wanted = wanted.model_copy(update={"launches": (*wanted.launches, dict(begun))})
        rows = read_rows(paths)
        if rows and not rows.held and rows.differences(wanted):
            paths.features.unlink()
        put_in_force(paths, wanted)
    return wanted


def try_places(paths: RunPaths, manifest: Manifest) -> None:
    """Try before the first stage whether the file systems that the stages write to bear what they do there.

    Raises:
        InputError: naming what does not work, and where.
    """
    try_once(paths.root)
    if "references" in manifest.config:
        try_once(Path(manifest.config["references"]["store"]))


def in_force(paths: RunPaths, manifest: Manifest) -> Manifest:
    """What `claim` gives, and what it refuses, without writing anything."""
    found = read_manifest(paths)
    if found is None:
        stray = [file.name for file in (paths.features, paths.summary_json) if file.exists()]
        if stray:
            rule = "--out: must be empty or a run of this config"
            raise InputError(f"{paths.root}: {rule}, got {stray[0]} without {paths.manifest.name}")
        return manifest
    holder = _holder(paths, found)
    if holder:
        refuse_differences(paths, differences(features_identity(holder), features_identity(manifest)))
    if features_identity(found) != features_identity(manifest):
        return manifest
    kept = {name: getattr(found, name) for name in ("created", "versions", "launches")}
    origin = found.checkpoint if found.checkpoint.modified else manifest.checkpoint
    return manifest.model_copy(update={**kept, "checkpoint": origin})


def in_force_with(paths: RunPaths, config: Config, now: Mapping[str, str] | None = None) -> Manifest:
    """The manifest of a run that is there already, with another configuration, which may be no other run's.

    No file is read again but those that only the verdict reads, what audits of earlier checkpoints hold, what says who
    was trained on what, and all files of references where that or their names have changed; so what is known of the
    other files stays as it was.

    Args:
        paths: of the run.
        config: the configuration.
        now: digests of what is audited and of the references, if they were taken just now.

    Raises:
        InputError: there is no run, or one of another model, data or extraction.
    """
    found = read_manifest(paths)
    if found is None:
        raise InputError(f"{paths.root}: must be a run directory with {paths.manifest.name}; run extract first")
    others = now is None and _has_other_references(found, config)
    afresh = (*VERDICT_FILES, REPORT_FILES, TRAJECTORY, *([] if now is None and not others else ["references."]))
    known = {field: digest for field, digest in found.digests.items() if not field.startswith(afresh)}
    named = config.data.named_files() | config.report.files()
    read = {field: file for field, file in named.items() if field.startswith(afresh)}
    digests = known | {field: sha256(file) for field, file in read.items()} | earlier_digests(config.attack.trajectory)
    digests |= reference_digests(config.references) if others else now or {}
    here = found.model_copy(update={"config": config.resolved(), "digests": digests, "changes": config.changes})
    in_force(paths, here)
    unread = {
        name: of_rows(name, found.config[name]) | _only(here.config[name], OF_VERDICT.get(name, ()))
        for name in UNREAD if name in found.config
    }
    return here.model_copy(update={"config": here.config | unread})


def _has_other_references(found: Manifest, config: Config) -> bool:
    """Whether they are named otherwise than in run.json, or what says who was trained on what has another content.

    What is not there any more, as of models that were removed when all was done, is no other.
    """
    if config.resolved().get("references") != found.config.get("references"):
        return True
    if config.references is None:
        return False
    inclusion = inclusion_digest(config.references)
    return inclusion is not None and inclusion != found.digests.get(inclusion_file(config.references)[0])


def audited_files(config: Config) -> dict[str, Path]:
    """What is audited, by field: the checkpoint, or imported outputs."""
    if isinstance(config.model, NoModel):
        assert isinstance(config.data, OutputsConfig)
        return config.data.output_files()
    return {"model.checkpoint": config.model.checkpoint}


def _only(section: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key in keys}


def put_in_force(paths: RunPaths, manifest: Manifest) -> None:
    """Write run.json, unless it says the same, and open the run to its group, if it has one."""
    if not paths.manifest.exists() or not holds(paths.manifest, manifest.text()):
        write_manifest(paths, manifest)
    share_run(paths.root, manifest)


def _holder(paths: RunPaths, found: Manifest) -> Manifest | None:
    """What the rows, else the results, of a run directory were made from; None while there are none."""
    rows = read_rows(paths)
    if rows and rows.held:
        return rows.origin.manifest
    return found if paths.summary_json.exists() or any(paths.attacks.glob("*.h5")) else None
