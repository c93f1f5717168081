"""`mia-batch status DIR`: what of a run, or of every run in DIR, is done, running, queued, failed or missing, and why.

What is done is what the files say. A writer's lock says what runs; for the rest Slurm is asked for the jobs that the
run directory remembers, and that it has forgotten them, or does not answer, is said as such. Under a stage that has
failed stand its log and the last line that says why; at the end stands the command that goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from mia_batch.errors import InputError
from mia_batch.process.exit_codes import OK
from mia_batch.report.media import shell, terminal
from mia_batch.report.tables import has_colours, row_texts, terminal_width, wrapped
from mia_batch.rundir.next_command import AT_IT, next_command
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import StageStatus, furthest
from mia_batch.scheduler.queue import statuses

EXAMPLES = (
    "mia-batch status runs/one",
    "mia-batch status runs/one --watch     # until nothing runs or waits",
    "mia-batch status runs --json",
)
EVERY_S = 10.0
CLEAR = "\x1b[H\x1b[2J\x1b[3J"
Runs = Sequence[RunPaths]
Found = Sequence[Sequence[StageStatus]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR --json --watch [SECONDS]."""
    parser.add_argument("dir", metavar="DIR", help="run directory, or a directory that holds many")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    watch = f"look again every S seconds (default {EVERY_S:g}) until nothing runs or waits"
    how.add_argument("--watch", metavar="S", nargs="?", type=float, const=EVERY_S, help=watch)


def run(args: argparse.Namespace) -> int:
    """Print the state of every stage, or a line for each run."""
    if args.watch is not None and not 0.1 <= args.watch < float("inf"):
        raise InputError(f"--watch: must be 0.1 seconds or more, got {args.watch:g}")
    if args.watch is not None:
        _watch(args.dir, args.watch)
        return OK
    runs, found = _look(args.dir)
    print(_as_json(args.dir, runs, found) if args.json else _as_text(args.dir, runs, found))
    return OK


def _look(folder: str) -> tuple[Runs, Found]:
    """The run in a directory, or the runs below it, and their stages."""
    root = RunPaths(folder)
    runs = [root] if root.manifest.exists() else runs_in(root.root)
    if not runs:
        raise InputError(f"{root.root}: must be a run directory, got none with {root.manifest.name} here or below")
    return runs, statuses(runs)


def _watch(folder: str, seconds: float) -> None:
    """Print what there is when it is another, on a terminal in the place of what was."""
    before = ""
    while True:
        runs, found = _look(folder)
        text = _as_text(folder, runs, found)
        if text != before:
            print((CLEAR if sys.stdout.isatty() else "\n" * bool(before)) + text, flush=True)
            before = text
        if not any(stage.state in AT_IT for stages in found for stage in stages):
            return
        time.sleep(seconds)


def _as_json(folder: str, runs: Runs, found: Found) -> str:
    each = [
        {"dir": str(paths.root), "stages": [asdict(stage) for stage in stages], "next": next_command(paths, stages)}
        for paths, stages in zip(runs, found, strict=True)
    ]
    return json.dumps(each[0] if _is_run(folder) else {"dir": str(RunPaths(folder).root), "runs": each})


def _as_text(folder: str, runs: Runs, found: Found) -> str:
    width = terminal_width()
    if _is_run(folder):
        return _of_run(runs[0], found[0], width)
    return _of_runs(RunPaths(folder), runs, found, width)


def _is_run(folder: str) -> bool:
    return RunPaths(folder).manifest.exists()


def _of_run(paths: RunPaths, stages: Sequence[StageStatus], width: int | None) -> str:
    """A line for each stage, below one that has failed why, and the command that goes on."""
    rows = [(each.stage, each.state, _detail(each), _job(each)) for each in stages]
    lines: list[str] = []
    for i, text in enumerate(row_texts(rows, width=width, judging=1, colours=has_colours())):
        lines += [text, *_why(stages, i, width)]
    return "\n".join([*lines, *_next(next_command(paths, stages))])


def _detail(stage: StageStatus) -> str:
    return ": ".join(filter(None, (stage.detail, stage.figures)))


def _job(stage: StageStatus) -> str:
    return f"job {stage.job}" if stage.job else ""


def _why(stages: Sequence[StageStatus], i: int, width: int | None) -> list[str]:
    """The last words of a stage that has failed, and its log, whose path is never cut; of attacks that share them,
    below the last.
    """
    own, below = stages[i], stages[i + 1] if i + 1 < len(stages) else None
    if own.state != "failed" or (below and (below.state, below.log, below.said) == (own.state, own.log, own.said)):
        return []
    said = [wrapped(f"    {terminal(own.said)}", width, 8)] if own.said else []
    return [*said, f"    log: {terminal(str(own.log))}"] if own.log else said


def _next(command: str) -> list[str]:
    """Never cut: it is to be copied."""
    return [f"next: {command}"] if command else []


def _of_runs(folder: RunPaths, runs: Runs, found: Found, width: int | None) -> str:
    """A line for each run, which is as far as its first stage that is not done, and how many there are of each."""
    at = [furthest(stages) for stages in found]
    rows = [
        (paths.root.name, stage.state, f"{stage.stage} {_detail(stage)}".rstrip(), _job(stage))
        for paths, stage in zip(runs, at, strict=True)
    ]
    lines: list[str] = []
    for text, stage in zip(row_texts(rows, width=width, judging=1, colours=has_colours()), at, strict=True):
        lines += [text, *_why([stage], 0, width)]
    counts = Counter(stage.state for stage in at)
    counted = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    counted = wrapped(f"{len(runs)} run(s): {counted}", width)
    return "\n".join([*lines, counted, *_next(_next_of_runs(folder, runs, at))])


def _next_of_runs(folder: RunPaths, runs: Runs, at: Sequence[StageStatus]) -> str:
    """Look at one that has failed, else watch, else see what was found."""
    failed = next((paths for paths, stage in zip(runs, at, strict=True) if stage.state in ("failed", "damaged")), None)
    if failed:
        return shell("mia-batch", "status", str(failed.root))
    if any(stage.state in AT_IT for stage in at):
        return shell("mia-batch", "status", str(folder.root), "--watch")
    return shell("mia-batch", "history", str(folder.root))
