"""Which checkpoints are complete, and which process audits each: the one that makes its run directory."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.network.checkpoint_bytes import SUFFIXES, check_whole
from mia_batch.rundir.jobs import latest_jobs
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler.queue import active_jobs
from mia_batch.scheduler.submission import Run

log = logging.getLogger(__name__)

QUIET_S = 120.0
STALE_CLAIM_S = 3600.0  # a claim that has queued nothing for so long is of a process that died
NAME_LENGTH = 16  # hex digits of the hash


def complete_checkpoints(folder: Path, *, quiet_s: float = QUIET_S) -> Iterator[tuple[Path, str]]:
    """Checkpoints below `folder` that nobody writes to any more, and their SHA-256, in the order they were written.

    Args:
        folder: searched with its subfolders; hidden files are left out.
        quiet_s: a file that changed less than so many seconds ago may still be written to.

    Raises:
        InputError: `folder` is no directory.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: --watch: must be a directory")
    for path in sorted(_candidates(folder), key=lambda path: (_mark(path), path)):
        before = _mark(path)
        if time.time() - before[0] / 1e9 < quiet_s:
            log.info("left for the next time: %s changed in the last %g s", path, quiet_s)
        elif _is_whole(path) and (digest := _digest(path)) and _mark(path) == before:
            yield path, digest


def _is_whole(path: Path) -> bool:
    """A file that is cut short, or still grows, is not."""
    try:
        check_whole(path)
    except InputError as error:
        log.warning("left for the next time: %s", error)
        return False
    return True


def _candidates(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _mark(path: Path) -> tuple[int, int]:
    """Time of the last change in nanoseconds and size; zeros for a file that has gone."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except InputError as error:
        log.warning("left for the next time: %s", error)
        return ""


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
        claimed = max(mark.stat().st_mtime for mark in (_marks(paths) or [paths.root]))
        if paths.jobs.exists() and paths.jobs.stat().st_mtime >= claimed:
            return retry and _jobs_are_known(paths) and not active_jobs([paths])[paths]
    except FileNotFoundError:  # its claimer has just released it
        return False
    return time.time() - claimed > STALE_CLAIM_S


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
