"""Which process audits a checkpoint: the one that makes its run directory."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.rundir.jobs import latest_jobs
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler.queue import active_jobs
from mia_batch.scheduler.submission import Run

log = logging.getLogger(__name__)

STALE_CLAIM_S = 3600.0  # a claim that has queued nothing for so long is of a process that died
NAME_LENGTH = 16  # hex digits of the hash


def claim(paths: RunPaths, *, retry: bool = False) -> bool:
    """Claim the audit of a checkpoint; one of several processes that try gets True.

    Args:
        paths: of its run, named by its hash.
        retry: also claim a run whose jobs have ended without a verdict.
    """
    try:
        paths.root.mkdir(parents=True)
    except FileExistsError:
        marks = len(_marks(paths))  # before the look: who claims in between takes this number
        return is_abandoned(paths, retry) and _mark_claim(paths, marks)
    return _mark_claim(paths, 0)


def _marks(paths: RunPaths) -> list[Path]:
    return sorted(paths.root.glob(".claim-*"))


def _mark_claim(paths: RunPaths, number: int) -> bool:
    try:
        (paths.root / f".claim-{number:04d}").mkdir()
    except (FileExistsError, FileNotFoundError, NotADirectoryError):  # others were faster, or no folder
        return False
    return True


def is_abandoned(paths: RunPaths, retry: bool) -> bool:
    """Whether the last claimer died before it queued the run, or (with `retry`) the jobs ended without a verdict."""
    if paths.summary_json.exists():  # a verdict, of this configuration or of another
        return False
    try:
        claimed = (_marks(paths) or [paths.root])[-1].stat().st_mtime  # the last by number, whatever its date
        if paths.jobs.exists() and paths.jobs.stat().st_mtime >= claimed:
            return retry and _jobs_are_known(paths) and not active_jobs([paths])[paths]
    except FileNotFoundError:  # its claimer has just released it
        return False
    return abs(time.time() - claimed) > STALE_CLAIM_S  # also one of a clock that was ahead


def _jobs_are_known(paths: RunPaths) -> bool:
    """Whether jobs.json can be read; a run whose jobs nobody knows is left alone, and the others are not."""
    try:
        latest_jobs(paths)
    except InputError as error:
        log.warning("left alone: %s", error)
        return False
    return True


def release(runs: Iterable[Run]) -> None:
    """Give up the claims of runs of which nothing was queued."""
    for run in runs:
        if not run.paths.jobs.exists():
            shutil.rmtree(run.paths.root, ignore_errors=True)
        for mark in _marks(run.paths)[-1:]:
            mark.rmdir()
