"""`mia-batch status DIR`: what of a run, or of every run in DIR, is done, running, queued, failed or missing.

What is done is what the files say. A writer's lock says what runs; for the rest Slurm is asked for the jobs that the
run directory remembers, and that it has forgotten them, or does not answer, is said as such.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mia_batch.errors import InputError
from mia_batch.process.exit_codes import OK
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import StageStatus, furthest
from mia_batch.scheduler.queue import statuses

EXAMPLES = (
    "mia-batch status runs/one",
    "mia-batch status runs --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR."""
    parser.add_argument("dir", metavar="DIR", help="run directory, or a directory that holds many")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the state of every stage, or a line for each run."""
    root = RunPaths(args.dir)
    if root.manifest.exists():
        (stages,) = statuses([root])
        print(json.dumps(_as_json(root, stages)) if args.json else _stage_lines(stages))
        return OK
    runs = runs_in(root.root)
    if not runs:
        raise InputError(f"{root.root}: must be a run directory, got none with {root.manifest.name} here or below")
    found = statuses(runs)
    if args.json:
        pairs = zip(runs, found, strict=True)
        print(json.dumps({"dir": str(root.root), "runs": [_as_json(paths, stages) for paths, stages in pairs]}))
    else:
        print(_run_lines(runs, found))
    return OK


def _as_json(paths: RunPaths, stages: Sequence[StageStatus]) -> dict[str, Any]:
    return {"dir": str(paths.root), "stages": [asdict(stage) for stage in stages]}


def _stage_lines(stages: Sequence[StageStatus]) -> str:
    rows = [(each.stage, each.state, each.detail, f"job {each.job}" if each.job else "") for each in stages]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _run_lines(runs: Sequence[RunPaths], found: Sequence[Sequence[StageStatus]]) -> str:
    """A line for each run, which is as far as its first stage that is not done, and how many there are of each."""
    at = [furthest(stages) for stages in found]
    rows = [
        StageStatus(_printable(paths.root.name), stage.state, f"{stage.stage} {stage.detail}".rstrip(), stage.job)
        for paths, stage in zip(runs, at, strict=True)
    ]
    counts = Counter(stage.state for stage in at)
    counted = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    return f"{_stage_lines(rows)}\n{len(runs)} run(s): {counted}"


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
