"""The verdict of a finished audit, for those that show it again."""

from __future__ import annotations

from mia_batch.errors import InputError
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.manifest import Manifest, known_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import reduce_status


def read_verdict(paths: RunPaths) -> tuple[Manifest, Summary]:
    """What a run is, and what it has found.

    Raises:
        InputError: there is no verdict, or it is of another configuration than the run's: nobody may take it for this.
    """
    manifest = known_manifest(paths)
    found = reduce_status(paths, manifest)
    if found.state == "damaged":
        raise InputError(found.detail)
    if found.state != "done":
        said = ": ".join(filter(None, (found.state, found.detail)))
        raise InputError(f"{paths.root}: must hold a finished audit, got a verdict that is {said}")
    return manifest, read_summary(paths.summary_json)
