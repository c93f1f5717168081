"""`mia-batch nightly`: audit every complete checkpoint of a directory that has not been audited, by its content.

A run directory is named by the checkpoint's hash, and making it is the claim to audit it: of two processes that try,
on any hosts, one succeeds. There is no lock that a killed process could leave behind.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mia_batch.checkpoint import SUFFIXES, check_whole
from mia_batch.config import load_config
from mia_batch.entry import OK
from mia_batch.errors import InputError
from mia_batch.paths import RunPaths
from mia_batch.provenance import check_same_run, sha256
from mia_batch.queued import active_jobs
from mia_batch.submit import Run, add_site_arguments, named_folder, show, show_nothing, site_from, submit_runs

log = logging.getLogger(__name__)

QUIET_S = 120.0
STALE_CLAIM_S = 3600.0  # a claim that has queued nothing for so long is of a process that died
NAME_LENGTH = 16  # hex digits of the hash


# --- which checkpoints are complete ----------------------------------------------------------------------------------


def is_whole(path: Path) -> bool:
    """Whether a checkpoint ends where its own framing says; a file that is cut short, or still grows, does not."""
    try:
        check_whole(path)
    except InputError:
        return False
    return True


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
        elif not is_whole(path):
            log.warning("left for the next time: %s ends before its last tensor does", path)
        elif (digest := _digest(path)) and _mark(path) == before:
            yield path, digest


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


# --- claims ----------------------------------------------------------------------------------------------------------


def claim(paths: RunPaths, *, retry: bool = False) -> bool:
    """Claim the audit of a checkpoint; of several processes that try, one gets True.

    Args:
        paths: of its run, named by its hash.
        retry: also claim a run whose jobs have ended without a verdict.
    """
    try:
        paths.root.mkdir(parents=True)
    except FileExistsError:
        marks = len(_marks(paths))  # before the look: who claims in between takes this number
        return _came_to_nothing(paths, retry) and _mark_claim(paths, marks)
    return _mark_claim(paths, 0)


def _marks(paths: RunPaths) -> list[Path]:
    return sorted(paths.root.glob(".claim-*"))


def _mark_claim(paths: RunPaths, number: int) -> bool:
    try:
        (paths.root / f".claim-{number:04d}").mkdir()
    except (FileExistsError, FileNotFoundError, NotADirectoryError):  # others were faster, or no folder
        return False
    return True


def _came_to_nothing(paths: RunPaths, retry: bool) -> bool:
    """Whether who claimed the run last died before queueing it, or (with `retry`) its jobs did."""
    if paths.summary_json.exists():
        return False
    try:
        claimed = max(mark.stat().st_mtime for mark in (_marks(paths) or [paths.root]))
        if paths.jobs.exists() and paths.jobs.stat().st_mtime >= claimed:
            return retry and not active_jobs([paths])[paths]
    except FileNotFoundError:  # its claimer has just released it
        return False
    return time.time() - claimed > STALE_CLAIM_S


def release(runs: Iterable[Run]) -> None:
    """Give up claims of which nothing was queued."""
    for run in runs:
        if not run.paths.jobs.exists():
            shutil.rmtree(run.paths.root, ignore_errors=True)
        for mark in _marks(run.paths)[-1:]:
            mark.rmdir()


# --- the command -----------------------------------------------------------------------------------------------------


def find_new(args: argparse.Namespace, runs: Path) -> list[Run]:
    """The runs to queue, claimed for this process unless it is a dry run."""
    found: dict[str, Path] = {}
    for path, digest in complete_checkpoints(named_folder("--watch", args.watch), quiet_s=args.quiet):
        found.setdefault(digest, path)
    named = [Run(path, RunPaths(runs / digest[:NAME_LENGTH])) for digest, path in found.items()]
    if args.dry_run:
        new = [run for run in named if not run.paths.root.exists() or _came_to_nothing(run.paths, args.retry)]
        return [run for run in new if _is_of(args.config, run)]
    claimed: list[Run] = []
    try:
        for run in named:
            claimed += [run] if claim(run.paths, retry=args.retry) else []
        foreign = [run for run in claimed if not _is_of(args.config, run)]
    except BaseException:
        release(claimed)
        raise
    release(foreign)
    return [run for run in claimed if run not in foreign]


def _is_of(config_file: str, run: Run) -> bool:
    """Whether an audit that is to be begun again is of this config; one that is not must not stop the others."""
    if not run.paths.manifest.exists():
        return True
    try:
        check_same_run(run.paths, load_config(config_file, checkpoint=run.checkpoint))
    except InputError as error:
        for problem in error.problems:
            log.warning("not queued again: %s", problem)
        return False
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --watch DIR --runs DIR."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML); its own checkpoint is not used")
    parser.add_argument(
        "--watch", metavar="DIR", required=True, help="where checkpoints appear (.ckpt, .safetensors)"
    )
    parser.add_argument("--runs", metavar="DIR", required=True, help="where the audits go, one directory for each")
    seconds = f"leave files that changed in the last S seconds for the next time (default {QUIET_S:g})"
    parser.add_argument("--quiet", metavar="S", type=float, default=QUIET_S, help=seconds)
    parser.add_argument("--retry", action="store_true", help="queue audits again whose jobs ended without a verdict")
    add_site_arguments(parser)


def _refuse_unusable(args: argparse.Namespace, runs: Path) -> None:
    """Refuse what would be wrong with any checkpoint, before one is there."""
    load_config(args.config, checkpoint=args.watch, need=("data",))  # whatever its own would be
    there = next(folder for folder in (runs, *runs.parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{runs}: --runs: must be a directory, got {there}, which is a file")
    if not args.quiet >= 0:
        raise InputError(f"--quiet: must be 0 or more, got {args.quiet:g}")


def run(args: argparse.Namespace) -> int:
    """Queue the audits of new checkpoints as one array."""
    site, runs = site_from(args), named_folder("--runs", args.runs)
    _refuse_unusable(args, runs)
    new = find_new(args, runs)
    if not new:
        log.info("no new checkpoint in %s", args.watch)
        show_nothing(args)
        return OK
    try:
        submission = submit_runs(Path(args.config), new, runs, site, dry_run=args.dry_run)
    except BaseException:
        if not args.dry_run:
            release(new)
        raise
    show(args, submission, new)
    return OK
