"""`mia-batch compare RUN RUN...`: finished audits side by side, each with its change since the first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mia_batch.commands.history import FORMATS, FORMATS_HELP, add_html_argument, exit_code, write_html
from mia_batch.errors import InputError
from mia_batch.report.entries import Entry, entries_csv, entries_json
from mia_batch.report.tables import has_colours, table_text, terminal_width
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler.history import compared, history_of

EXAMPLES = (
    "mia-batch compare runs/one runs/two",
    "mia-batch compare runs/one runs/two runs/three --html comparison.html",
)
COLUMNS = ("run", "checkpoint", "verdict", "balanced acc.", "AUC", "TPR at 1 %", "test acc.", "change of AUC", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN RUN..., and the output's form."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directory of a finished audit")
    parser.add_argument("--format", metavar="FORM", choices=FORMATS, default="table", help=FORMATS_HELP)
    add_html_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; the exit code is the worst of the verdicts."""
    runs = _named(args.runs)
    entries = compared(runs)
    if args.html:
        write_html(args.html, history_of(runs), runs, title="Comparison of audits")
    print({"table": as_text, "csv": entries_csv, "json": entries_json}[args.format](entries))
    return exit_code(entries, of_any=True)


def _named(names: Sequence[str]) -> dict[str, RunPaths]:
    """By the names given.

    Raises:
        InputError: there are less than two, or one comes twice.
    """
    runs = {name: RunPaths(Path(name)) for name in names}
    if len({paths.root.resolve() for paths in runs.values()}) < max(2, len(names)):
        raise InputError(f"RUN: must name two run directories or more, each once, got {', '.join(names)}")
    return runs


def as_text(entries: Sequence[Entry]) -> str:
    """A row for each, values with their intervals."""
    rows, judging = [_row(entry) for entry in entries], COLUMNS.index("verdict")
    return table_text(rows, header=COLUMNS, width=terminal_width(), judging=judging, colours=has_colours())


def _row(entry: Entry) -> tuple[str, ...]:
    known = entry.auc_change is not None
    change = f"{entry.auc_change:+.3f} ({entry.auc_change_low:+.3f} to {entry.auc_change_high:+.3f})" if known else ""
    notes = ": ".join(filter(None, (entry.verdict_change, entry.detail if entry.verdict_change == "" else "")))
    return (
        entry.run, entry.checkpoint, entry.outcome,
        _interval(entry.balanced_accuracy, entry.balanced_accuracy_low, entry.balanced_accuracy_high),
        _interval(entry.auc, entry.auc_low, entry.auc_high), _interval(entry.tpr, entry.tpr_low, entry.tpr_high),
        "" if entry.test_accuracy is None else f"{entry.test_accuracy:.3f}", change, notes,
    )  # fmt: skip


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "nan" if value is None or low is None or high is None else f"{value:.3f} {low:.3f}-{high:.3f}"
