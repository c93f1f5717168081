"""`mia-batch run`: extract, attack and reduce on this machine, each only as far as it is not done."""

from __future__ import annotations

import argparse
import logging
import sys

from mia_batch.config import Config
from mia_batch.entry import OK, RESUME
from mia_batch.errors import InputError
from mia_batch.launch import mpi_environment, mpirun_command, run_stage, stage_command
from mia_batch.paths import RunPaths
from mia_batch.plan import prepare
from mia_batch.provenance import claim
from mia_batch.stage import add_run_arguments, load_run
from mia_batch.store import features_progress

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --out DIR --ranks N."""
    add_run_arguments(parser)
    parser.add_argument("--ranks", metavar="N", type=int, default=1, help="MPI ranks of the extraction (default 1)")


def run(args: argparse.Namespace) -> int:
    """Run the stages; returns the reducer's exit code, or that of the first stage that failed."""
    if args.ranks < 1:
        raise InputError(f"--ranks: must be at least 1, got {args.ranks}")
    config, paths = load_run(args, need=("checkpoint", "data"))
    claim(paths, prepare(config).manifest)
    for stage, command in _commands(args, config, paths):
        log.info("stage %s", stage)
        code = run_stage(command, mpi_environment())
        if stage == "reduce" or code != OK:
            return _explain(stage, code)
    return OK


def _commands(args: argparse.Namespace, config: Config, paths: RunPaths) -> list[tuple[str, list[str]]]:
    """What is still to be run."""
    arguments = [args.config, "--out", args.out]
    arguments += ["--checkpoint", args.checkpoint] if args.checkpoint else []
    arguments += ["--verbose"] if args.verbose else []
    commands = [("reduce", stage_command("reduce", arguments))]
    if any(not paths.attack(method.method).exists() for method in config.attack.methods):
        commands.insert(0, ("attack", stage_command("attack", arguments)))
    rows = features_progress(paths.features)
    if rows is None or rows[0] < rows[1]:
        commands.insert(0, ("extract", mpirun_command(args.ranks, stage_command("extract", arguments))))
    return commands


def _explain(stage: str, code: int) -> int:
    if code == RESUME:
        log.warning("%s was stopped and has saved its state; the same command goes on from there", stage)
    elif stage != "reduce" and code not in (OK, 2):
        print(f"mia-batch: {stage} failed with exit code {code}; the same command goes on from there", file=sys.stderr)
        return 1
    return code
