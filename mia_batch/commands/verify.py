"""`mia-batch verify DIR`: whether every file of a run is whole, and of this run.

All bytes are read: of features.h5, the attacks' results, the verdict's files, and the outputs of references that the
run names. Nothing is changed.
"""

from __future__ import annotations

import argparse

from mia_batch.process.exit_codes import BAD_INPUT, OK
from mia_batch.report.media import terminal
from mia_batch.report.tables import terminal_width, wrapped
from mia_batch.rundir.paths import RunPaths
from mia_batch.stages.verify import BAD, verify_run

EXAMPLES = ("mia-batch verify runs/one   # exit code 0, or 2 where a file is damaged",)
WIDTH = 7  # of the states


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR."""
    parser.add_argument("dir", metavar="DIR", help="run directory")


def run(args: argparse.Namespace) -> int:
    """Print a line for each file."""
    paths, n_bad, width = RunPaths(args.dir), 0, terminal_width()
    for each in verify_run(paths):
        n_bad += each.state == BAD
        name = each.path.relative_to(paths.root) if each.path.is_relative_to(paths.root) else each.path
        print(wrapped(terminal(f"{each.state.ljust(WIDTH)}  {name}: {each.detail}"), width), flush=True)
    return BAD_INPUT if n_bad else OK
