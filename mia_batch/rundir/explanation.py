"""Why a stage is not done: what its last start has said, and whether it has begun at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mia_batch.locks import in_use
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.stage_log import ending, last_words
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import NOT_EVALUABLE, StageStatus

NOT_STARTED = "not started"
UNEXPLAINED = ("missing", "partial")  # states of which the files do not say whether anybody is at it


def explained(paths: RunPaths, stages: Sequence[StageStatus]) -> list[StageStatus]:
    """The stages with the log and the last words of those that have failed.

    Args:
        paths: of the run.
        stages: in order, with what a scheduler says of their jobs.

    Returns:
        Behind a stage that has failed, those of which nothing was ever begun are "not started".
    """
    found = [_with_log(paths, each) for each in stages]
    failed = next((_kind(each) for each in found if _has_failed(each)), "")
    kinds = list(dict.fromkeys(map(_kind, found)))
    followers = kinds[kinds.index(failed) + 1 :] if failed else []
    return [
        replace(each, state=NOT_STARTED) if _kind(each) in followers and _never_began(each) else each for each in found
    ]


def _has_failed(stage: StageStatus) -> bool:
    return stage.state == "failed" and not stage.detail.startswith(NOT_EVALUABLE)


def _never_began(stage: StageStatus) -> bool:
    return stage.state in ("missing", "failed") and not stage.log


def _kind(stage: StageStatus) -> str:
    """All attacks are one stage: none follows another."""
    return stage.stage.partition(" ")[0]


def _with_log(paths: RunPaths, stage: StageStatus) -> StageStatus:
    if stage.state in ("done", "stale", "damaged", "queued"):
        return stage
    local = paths.local_log(_kind(stage))
    if _is_newer(local, paths.jobs):
        return _as_local(stage, local)
    log = _job_log(paths, stage)
    if log is None:
        return stage
    return replace(stage, log=str(log), said=last_words(log) if stage.state == "failed" else "")


def _is_newer(local: Path, jobs: Path) -> bool:
    if not local.is_file():
        return False
    return not jobs.exists() or local.stat().st_mtime >= jobs.stat().st_mtime


def _job_log(paths: RunPaths, stage: StageStatus) -> Path | None:
    """Of its last job; of an array's task that had no directory yet, that of the whole array."""
    job = stage.job.partition(" ")[0]
    own = paths.job_log(_kind(stage), job)
    shared = RunPaths(paths.root.parent).job_log(_kind(stage), job.partition("_")[0])
    return next((each for each in (own, shared) if job and each.is_file()), None)


def _as_local(stage: StageStatus, log: Path) -> StageStatus:
    """A stage of `mia-batch run`: its log is locked as long as it runs."""
    found = replace(stage, log=str(log), job="")
    if stage.state == "running" or in_use(log):
        return replace(found, state="running")
    code = ending(log)
    if code in (OK, RESUME) or (stage.state not in UNEXPLAINED and stage.state != "failed"):
        return found
    said = "it was killed" if code is None else last_words(log)
    return replace(found, state="failed", said=said)
