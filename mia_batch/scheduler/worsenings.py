"""Verdicts that got worse, each told once: by the site's command, which `nightly` runs.

Who makes the directory of an attempt tells. Nothing is locked, so that it holds on any file system and any hosts, and
a process that was killed keeps nobody from telling later.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.report.entries import Entry
from mia_batch.report.markdown import pull_request_text
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.trainings import audited_file
from mia_batch.rundir.verdicts import read_verdict
from mia_batch.scheduler.history import History, read_history

log = logging.getLogger(__name__)
WORSE = {"no leak": 0, "inconclusive": 1, "leak": 2}  # a higher number is worse
LIMIT_S = 600.0  # for the command
STALE_S = 3600.0  # an attempt that has ended in nothing for so long is of a process that died
TOLD, FAILED = "told", "failed"


@dataclass(frozen=True)
class Worsening:
    """A finished audit, and the one before of the same training that has a verdict; None without one."""

    entry: Entry
    before: Entry | None


def worsenings(history: History) -> Iterator[Worsening]:
    """Verdicts that are worse than the one before of the same training; a first one if it is a leak."""
    known = (entry for entry in history.entries if entry.outcome and entry.training)
    for _, group in groupby(known, key=lambda entry: entry.training):
        before: Entry | None = None
        for entry in group:
            was = WORSE[before.outcome] if before else WORSE["inconclusive"]
            if WORSE[entry.outcome] > was:
                yield Worsening(entry, before)
            before = entry


def check_command(command: Sequence[str]) -> None:
    """Refuse a command that cannot be run before it is needed.

    Raises:
        InputError: its first word is no program.
    """
    if command and not shutil.which(command[0]):
        raise InputError(f"--site: on_worse: must begin with a program that can be run, got {command[0]}")


def tell_of_worsenings(command: Sequence[str], runs: Path, *, dry_run: bool = False) -> None:
    """Run the command for each verdict in `runs` that got worse and was not told yet; one that fails is told again.

    Args:
        command: its words, as they are: no shell reads them.
        runs: directory of the run directories.
        dry_run: only say what would be told.
    """
    if not command or not runs.is_dir():
        return
    for found in worsenings(read_history(runs)):
        paths, outcome = RunPaths(runs / found.entry.run), found.entry.outcome
        if dry_run and not _is_told(_attempts(paths, outcome)):
            log.info("would tell of %s: %s", paths.root, _words(found))
        elif not dry_run and (attempt := _claim(paths, outcome)):
            _tell(command, paths, found, attempt)


def _tell(command: Sequence[str], paths: RunPaths, found: Worsening, attempt: Path) -> None:
    log.info("telling of %s: %s", paths.root, _words(found))
    try:
        problem = _run(command, paths, found)
    except InputError as error:  # the verdict was removed or made anew at this moment
        problem = str(error)
    (attempt / (FAILED if problem else TOLD)).touch()
    if problem:
        log.warning("on_worse: not told of %s, and tried again next time: %s", paths.root, problem)


def _words(found: Worsening) -> str:
    return f"{found.before.outcome if found.before else 'the first verdict'}, then {found.entry.outcome}"


def _run(command: Sequence[str], paths: RunPaths, found: Worsening) -> str:
    """Why it has failed; empty if it has not."""
    manifest, summary = read_verdict(paths)
    environ = {
        "MIA_BATCH_RUN": str(paths.root), "MIA_BATCH_CHECKPOINT": str(audited_file(manifest)[0]),
        "MIA_BATCH_OUTCOME": found.entry.outcome, "MIA_BATCH_STEP": found.entry.step,
        "MIA_BATCH_BEFORE": found.before.outcome if found.before else "",
        "MIA_BATCH_BEFORE_RUN": str(paths.root.parent / found.before.run) if found.before else "",
        "MIA_BATCH_REPORT": str(paths.page) if paths.page.is_file() else "",
    }  # fmt: skip
    try:
        done = subprocess.run(
            list(command), input=pull_request_text(summary).encode("utf-8", "replace"), env={**os.environ, **environ},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {said[-1] if said else 'nothing said'}"


def _attempts(paths: RunPaths, outcome: str) -> list[Path]:
    return sorted(paths.root.glob(f".worse-{outcome.replace(' ', '-')}-*"))


def _is_told(attempts: Sequence[Path]) -> bool:
    return any((attempt / TOLD).exists() for attempt in attempts)


def _claim(paths: RunPaths, outcome: str) -> Path | None:
    """A directory for this process's attempt; None if it was told, or another process is at it."""
    attempts = _attempts(paths, outcome)
    if _is_told(attempts) or (attempts and _is_under_way(attempts[-1])):
        return None
    attempt = paths.root / f".worse-{outcome.replace(' ', '-')}-{len(attempts):04d}"
    try:
        attempt.mkdir()
    except FileExistsError:  # another was faster
        return None
    return attempt


def _is_under_way(attempt: Path) -> bool:
    return not (attempt / FAILED).exists() and time.time() - attempt.stat().st_mtime < STALE_S
