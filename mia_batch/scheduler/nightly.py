"""`mia-batch nightly`: audit every complete checkpoint of a directory that has not been audited, by its content.

A run directory is named by the checkpoint's hash, and who makes it audits the checkpoint: of two processes that try,
on any hosts, one succeeds. There is no lock that a killed process could leave behind.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError
from mia_batch.process.exit_codes import OK
from mia_batch.rundir.claim import in_force_with
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler.arguments import add_site_arguments, show, show_nothing, site_from
from mia_batch.scheduler.arrays import submit_arrays
from mia_batch.scheduler.claims import NAME_LENGTH, claim, is_abandoned, release
from mia_batch.scheduler.submission import Run
from mia_batch.scheduler.watch import QUIET_S, complete_checkpoints
from mia_batch.scheduler.worsenings import check_command, tell_of_worsenings
from mia_batch.settings.loading import load_config, with_checkpoint
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import add_config_arguments, named_folder

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch nightly audit.yaml --watch checkpoints --runs nights --site gpu",
    "mia-batch nightly audit.yaml --watch checkpoints --runs nights --retry",
)


# Versions before named --unchanged so, with S.
QUIET: dict[str, Any] = {
    "action": "store", "nargs": "?", "type": float, "const": True, "default": False, "metavar": "S",
    "help": "only results, warnings and errors; with S as --unchanged, its former name",
}  # fmt: skip


def find_new(args: argparse.Namespace, config: Config, runs: Path) -> list[Run]:
    """The runs to queue, claimed for this process unless it is a dry run."""
    found: dict[str, Path] = {}
    for path, digest in complete_checkpoints(named_folder("--watch", args.watch), quiet_s=_unchanged(args)[1]):
        found.setdefault(digest, path)
    named = [Run(path, RunPaths(runs / digest[:NAME_LENGTH])) for digest, path in found.items()]
    if args.dry_run:
        new = [run for run in named if _is_new(run, args.retry)]
        return [run for run in new if _may_continue(config, run)][: args.at_most]
    claimed: list[Run] = []
    try:
        for run in named:
            if len(claimed) == args.at_most:
                log.info("left for the next time: what is newer than %s (--at-most)", claimed[-1].checkpoint)
                break
            with _left_alone_if_it_fails(run):
                if claim(run.paths, retry=args.retry):
                    claimed.append(run)
            if run in claimed and not _may_continue(config, run):
                release([claimed.pop()])
    except BaseException:
        release(claimed)
        raise
    return claimed


def _is_new(run: Run, retry: bool) -> bool:
    found = False
    with _left_alone_if_it_fails(run):
        found = not run.paths.root.exists() or is_abandoned(run.paths, retry)
    return found


@contextmanager
def _left_alone_if_it_fails(run: Run) -> Iterator[None]:
    """A run directory that the system refuses us hides no other."""
    try:
        yield
    except OSError as error:
        if not os.path.lexists(run.paths.root):  # it is not this directory's fault
            raise
        log.warning("left alone: %s: must be a directory that can be read and written, got: %s", run.paths.root, error)


def _may_continue(config: Config, run: Run) -> bool:
    """Whether `config` may continue a run; if not, a warning says why, and the other runs are queued all the same."""
    if not run.paths.manifest.exists():
        return True
    try:
        in_force_with(run.paths, with_checkpoint(config, run.checkpoint))
    except InputError as error:
        for problem in error.problems:
            log.warning("not queued again: %s", problem)
        return False
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --watch DIR --runs DIR."""
    add_config_arguments(parser, "; its own checkpoint is not used")
    parser.add_argument("--watch", metavar="DIR", required=True, help="where checkpoints appear (.ckpt, .safetensors)")
    parser.add_argument("--runs", metavar="DIR", required=True, help="where the audits go, one directory for each")
    seconds = f"leave files that changed in the last S seconds for the next time (default {QUIET_S:g})"
    parser.add_argument("--unchanged", metavar="S", type=float, help=seconds)
    parser.add_argument("--retry", action="store_true", help="queue audits again whose jobs ended without a verdict")
    most = "queue no more than N checkpoints, the oldest; the others are left for the next time"
    parser.add_argument("--at-most", metavar="N", type=int, help=most)
    add_site_arguments(parser)


def _unchanged(args: argparse.Namespace) -> tuple[str, float]:
    """By which option, and how long files must not have changed, in seconds."""
    if args.unchanged is None and not isinstance(args.quiet, bool):
        return "--quiet", float(args.quiet)
    return "--unchanged", QUIET_S if args.unchanged is None else float(args.unchanged)


def _checked_config(args: argparse.Namespace) -> Config:
    """The config; what would be wrong with any checkpoint is refused before one is there."""
    config = load_config(  # whatever its own checkpoint would be
        args.config, checkpoint=args.watch, need=("data",), changes=args.changes
    )
    option, seconds = _unchanged(args)
    if option == "--quiet":
        log.warning("--quiet S: is called --unchanged S now")
    if not seconds >= 0:
        raise InputError(f"{option}: must be 0 or more, got {seconds:g}")
    if args.at_most is not None and args.at_most < 1:
        raise InputError(f"--at-most: must be at least 1, got {args.at_most}")
    return config


def run(args: argparse.Namespace) -> int:
    """Tell of verdicts that got worse since the last time; queue the audits of new checkpoints as one array.

    Behind them comes what joins all audits by training and step.
    """
    site, runs = site_from(args), named_folder("--runs", args.runs)
    check_command(site.on_worse)
    config = _checked_config(args)
    tell_of_worsenings(site.on_worse, runs, dry_run=args.dry_run)
    new = find_new(args, config, runs)
    if not new:
        log.info("no new checkpoint in %s", args.watch)
        show_nothing(args)
        return OK
    try:
        submission = submit_arrays(config, new, runs, site, join=True, dry_run=args.dry_run)
    except BaseException:
        if not args.dry_run:
            release(new)
        raise
    show(args, site, submission, new)
    return OK
