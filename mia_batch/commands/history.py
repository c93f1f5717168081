"""`mia-batch history RUNS`: what the audits in a directory have found, oldest first, and how it changed.

The run directories themselves are the record: there is no database to share or to repair.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from mia_batch.errors import InputError, one_line
from mia_batch.process.exit_codes import BY_OUTCOME, INCONCLUSIVE, LEAK, OK
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.jobs import latest_jobs
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import reduce_status
from mia_batch.scheduler import slurm as scheduler
from mia_batch.scheduler.queue import states_now

log = logging.getLogger(__name__)
FORMATS = ("table", "csv", "json")


@dataclass(frozen=True)
class Entry:
    """One audit of the history.

    Attributes:
        run: name of the run directory.
        created: when the run was set up, ISO 8601, UTC.
        checkpoint: file name of the checkpoint.
        sha256: of the checkpoint.
        state: done, queued (jobs are waiting or running), incomplete (no job, and no verdict of the configuration in
            force), unknown (no verdict, and Slurm does not answer) or damaged.
        leak: the verdict; None until there is one, and where it is inconclusive.
        auc: the highest over the attacks, in [0, 1]; None where undefined.
        accuracy: likewise.
        verdict_change: "new", "same", "worse" (a leak now) or "better", against the audit before that says whether
            there is a leak; "" for an audit that does not.
        auc_change: difference to that audit's.
        detail: what else is to be said: the deciding sentence, or the failed job.
        outcome: the verdict in a word: leak, no leak or inconclusive; "" until there is one.
    """

    run: str
    created: str
    checkpoint: str
    sha256: str
    state: str
    leak: bool | None = None
    auc: float | None = None
    accuracy: float | None = None
    verdict_change: str = ""
    auc_change: float | None = None
    detail: str = ""
    outcome: str = ""


def read_history(runs: Path) -> list[Entry]:
    """The audits in `runs`, oldest first.

    Raises:
        InputError: `runs` is no directory.
    """
    if not runs.is_dir():
        raise InputError(f"{runs}: RUNS: must be a directory of run directories")
    found = [_by_files(paths) for paths in runs_in(runs)]
    states = states_now(job for _, jobs in found for job in jobs.values())
    entries = [_with_jobs(entry, jobs, states) if entry.state == "incomplete" else entry for entry, jobs in found]
    return with_changes(sorted(entries, key=lambda entry: (entry.created, entry.run)))


def _by_files(paths: RunPaths) -> tuple[Entry, dict[str, str]]:
    """An audit as its files say, and if it is incomplete its last jobs, by stage."""
    name = paths.root.name
    try:
        manifest = read_manifest(paths)
        assert manifest is not None  # runs_in has seen it
        verdict = reduce_status(paths, manifest)
        entry = Entry(
            run=name,
            created=manifest.created,
            checkpoint=Path(manifest.config["model"]["checkpoint"]).name,
            sha256=manifest.digests["model.checkpoint"],
            state={"done": "done", "damaged": "damaged"}.get(verdict.state, "incomplete"),
            detail=verdict.detail,
        )
        if entry.state == "done":
            return _with_verdict(entry, paths), {}
        return entry, latest_jobs(paths) if entry.state == "incomplete" else {}
    except InputError as error:
        said = " ".join(str(error).split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"run.json or summary.json: must be as a run writes it, got {one_line(error)}"
    return Entry(name, "", "", "", "damaged", detail=said), {}


def _with_verdict(entry: Entry, paths: RunPaths) -> Entry:
    summary = read_summary(paths.summary_json)
    verdict, auc, accuracy = summary.verdict, _highest(summary, "auc"), _highest(summary, "accuracy")
    return replace(
        entry, leak=verdict.leak, outcome=verdict.outcome, detail=verdict.sentence, auc=auc, accuracy=accuracy
    )


def _highest(summary: Summary, metric: str) -> float | None:
    found = (method.metrics[metric].value for method in summary.methods.values() if metric in method.metrics)
    return max((value for value in found if value is not None), default=None)


def _with_jobs(entry: Entry, last: Mapping[str, str], states: Mapping[str, str]) -> Entry:
    """An audit without a verdict, with what a scheduler says of its last jobs."""
    jobs = [(stage, job, states.get(job, scheduler.UNKNOWN)) for stage, job in last.items()]
    active = [(stage, job, state) for stage, job, state in jobs if state in scheduler.ACTIVE]
    if active:
        stage, job, state = active[0]
        return replace(entry, state="queued", detail=f"{stage} job {job} {state}")
    if any(state == scheduler.UNKNOWN for _, _, state in jobs):
        return replace(entry, state="unknown", detail="Slurm does not answer whether its jobs are queued")
    stopped = [f"{stage} job {job} {state}" for stage, job, state in jobs if state != "COMPLETED"]
    return replace(entry, detail=stopped[0] if stopped else entry.detail or "no job is queued")


def with_changes(entries: Sequence[Entry]) -> list[Entry]:
    """Each entry that says whether there is a leak, with its change against the last one before that does."""
    changed = []
    before: Entry | None = None
    for entry in entries:
        if entry.leak is not None:
            entry = replace(entry, verdict_change=_verdict_change(before, entry), auc_change=_difference(before, entry))
            before = entry
        changed.append(entry)
    return changed


def _verdict_change(before: Entry | None, entry: Entry) -> str:
    if before is None:
        return "new"
    return "same" if before.leak == entry.leak else "worse" if entry.leak else "better"


def _difference(before: Entry | None, entry: Entry) -> float | None:
    if before is None or before.auc is None or entry.auc is None:
        return None
    return entry.auc - before.auc


def table(entries: Sequence[Entry]) -> str:
    """The history as aligned columns for a terminal."""
    rows: list[tuple[str, ...]] = [("created", "checkpoint", "run", "verdict", "auc", "change", "")]
    rows += [_table_row(entry) for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _table_row(entry: Entry) -> tuple[str, ...]:
    verdict = entry.outcome or entry.state
    auc = "" if entry.auc is None else f"{entry.auc:.4f}"
    change = "" if entry.auc_change is None else f"{entry.auc_change:+.4f}"
    note = entry.detail if entry.leak is None else entry.verdict_change
    names = (entry.checkpoint, entry.run)
    created = entry.created[:16].replace("T", " ")
    return (created, *("".join(c if c.isprintable() else "?" for c in n) for n in names), verdict, auc, change, note)


def print_history(entries: Sequence[Entry], form: str) -> None:
    """Print the entries as "table", "csv" or "json" (an array of objects)."""
    if form == "json":
        print(json.dumps([asdict(entry) for entry in entries], indent=1))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)
    elif entries:
        print(table(entries))


def exit_code(entries: Sequence[Entry], *, of_any: bool = False) -> int:
    """That of the newest audit that has a verdict, 0 without one; `of_any`: the worst of all, leak before the rest."""
    codes = [BY_OUTCOME[entry.outcome] for entry in entries if entry.outcome]
    if not of_any:
        return codes[-1] if codes else OK
    return next((code for code in (LEAK, INCONCLUSIVE) if code in codes), OK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUNS, the output's form, and whose exit code it is."""
    parser.add_argument("runs", metavar="RUNS", help="directory that holds run directories")
    parser.add_argument("--any", action="store_true", help="exit 3 if any audit found a leak, 4 if any cannot say")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the output (default table)")


def run(args: argparse.Namespace) -> int:
    """Print the history; the exit code is that of the newest verdict, or with --any the worst of all."""
    entries = read_history(Path(args.runs))
    if not entries:
        log.info("no run directory in %s", args.runs)
    print_history(entries, args.format)
    return exit_code(entries, of_any=args.any)
