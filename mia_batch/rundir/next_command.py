"""The command that takes a run further, by what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from mia_batch.errors import InputError
from mia_batch.report.media import shell
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import StageStatus

AT_IT = ("running", "queued")


def next_command(paths: RunPaths, stages: Sequence[StageStatus]) -> str:
    """As a line for a shell; empty where a damaged file must be looked at first."""
    states = {each.state for each in stages}
    if "damaged" in states:
        return ""
    if stages[-1].state == "done":
        return shell("mia-batch", "show", str(paths.root))
    if states & set(AT_IT):
        return shell("mia-batch", "status", str(paths.root), "--watch")
    return _again(paths)


def _again(paths: RunPaths) -> str:
    """The audit, from where it is: on the scheduler if it was there."""
    try:
        manifest = read_manifest(paths)
    except InputError:  # which is a state, and said
        return ""
    if manifest is None:
        return ""
    command = "submit" if paths.jobs.exists() else "run"
    words = ["mia-batch", command, manifest.config_file, f"--out={paths.root}", *_checkpoint(manifest)]
    return shell(*words, *(f"--set={change}" for change in manifest.changes))


def _checkpoint(manifest: Manifest) -> list[str]:
    model = manifest.config.get("model", {})
    return [f"--checkpoint={model['checkpoint']}"] if "checkpoint" in model else []
