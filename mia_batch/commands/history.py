"""`mia-batch history RUNS`: what the audits in a directory have found, by training run, and how it changed.

The run directories themselves are the record: there is no database to share or to repair.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from mia_batch.files import write_text
from mia_batch.process.exit_codes import BY_OUTCOME, INCONCLUSIVE, LEAK, OK
from mia_batch.report.entries import Entry, entries_csv, entries_json
from mia_batch.report.history_page import TrainingOnPage, history_page
from mia_batch.report.media import terminal
from mia_batch.report.summary import MetricSummary
from mia_batch.report.tables import has_colours, table_text, terminal_width, wrapped
from mia_batch.rundir.identity import CONTENT
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.trainings import Training
from mia_batch.scheduler.history import History, read_history

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch history epochs",
    "mia-batch history epochs --format csv > epochs.csv",
    "mia-batch history epochs --html epochs.html   # charts; sort and filter",
)
T = TypeVar("T")
FORMATS = ("table", "csv", "json")
FORMATS_HELP = f"form of the output: {', '.join(FORMATS)} (default table)"
SHOWN = 5  # keys in a title, before a count stands for the rest
COLUMNS = ("created", "checkpoint", "run", "verdict", "auc", "change", "")


def table(entries: Sequence[Entry]) -> str:
    """Audits as aligned columns, or as a paragraph each where the terminal is too narrow for them."""
    rows, judging = [_table_row(entry) for entry in entries], COLUMNS.index("verdict")
    return table_text(rows, header=COLUMNS, width=terminal_width(), judging=judging, colours=has_colours())


def _table_row(entry: Entry) -> tuple[str, ...]:
    verdict = entry.outcome or entry.state
    auc = "" if entry.auc is None else f"{entry.auc:.4f}"
    difference = "" if entry.auc_change is None else f"{entry.auc_change:+.4f}"
    notes = (entry.verdict_change, "" if entry.outcome in ("leak", "no leak") else entry.detail)
    created = entry.created[:16].replace("T", " ")
    return created, entry.checkpoint, entry.run, verdict, auc, difference, ": ".join(filter(None, notes))


def titles(found: Sequence[Training]) -> dict[str, str]:
    """By training's id a line that tells it from the others: its checkpoints, and what is its own in the config."""
    keys = dict.fromkeys(key for training in found for key in training.identity)
    differ = (key for key in keys if len({json.dumps(each.identity.get(key, "")) for each in found}) > 1)
    own = sorted(differ, key=lambda key: key.startswith(CONTENT))  # what somebody has written says more
    more = [f"and {len(own) - SHOWN} more that differ"] if len(own) > SHOWN else []
    return {
        each.id: ", ".join([f"training {each.id}", *filter(None, [each.like]), *(
            f"{key} {_brief(each.identity[key]) if key in each.identity else 'default'}" for key in own[:SHOWN]
        ), *more])
        for each in found
    }  # fmt: skip


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def as_text(history: History) -> str:
    """The tables; with a title each if there are several trainings, or runs that cannot be read."""
    blocks = [(key, table(list(group))) for key, group in groupby(history.entries, key=lambda entry: entry.training)]
    if len(blocks) == 1:
        return blocks[0][1]
    names = titles(history.trainings) | {"": "cannot be read"}
    return "\n\n".join(f"{wrapped(terminal(names[key]), terminal_width())}\n{text}" for key, text in blocks)


def in_form(history: History, form: str) -> str:
    """The history as "table", "csv" or "json" (an array of objects)."""
    if form == "table":
        return as_text(history) if history.entries else ""
    return {"csv": entries_csv, "json": entries_json}[form](history.entries)


def exit_code(entries: Iterable[Entry], *, of_any: bool = False) -> int:
    """The worst of the trainings' newest audits, a leak before one that cannot say; without any nobody can.

    Args:
        entries: training by training, each oldest first.
        of_any: the worst of all audits instead.
    """
    newest: dict[str, int] = {}
    for number, entry in enumerate(entries):
        alone = of_any or not entry.training  # nobody can tell what is newer than one that cannot be read
        key = str(number) if alone else entry.training
        unjudged = LEAK if newest.get(key) == LEAK else INCONCLUSIVE  # a leak is one until an audit finds none
        newest[key] = BY_OUTCOME.get(entry.outcome, unjudged)
    return next((code for code in (LEAK, INCONCLUSIVE) if code in newest.values()), OK if newest else INCONCLUSIVE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUNS, the output's form, and whose exit code it is."""
    parser.add_argument("runs", metavar="RUNS", help="directory that holds run directories")
    parser.add_argument("--any", action="store_true", help="exit 3 if any audit found a leak, 4 if any cannot say")
    parser.add_argument("--format", metavar="FORM", choices=FORMATS, default="table", help=FORMATS_HELP)
    add_html_argument(parser)


def add_html_argument(parser: argparse.ArgumentParser) -> None:
    """Add --html."""
    page = "write a page with charts, and a table to sort and filter"
    parser.add_argument("--html", metavar="FILE", type=Path, help=page)


def run(args: argparse.Namespace) -> int:
    """Print the history; the exit code is the worst of the newest verdicts, or with --any of all."""
    folder = Path(args.runs)
    history = read_history(folder)
    if not history.entries:
        log.info("no run directory in %s", args.runs)
    if args.html:
        runs = {entry.run: RunPaths(folder / entry.run) for entry in history.entries}
        write_html(args.html, history, runs, title=f"History of {folder.absolute().name}")
    if text := in_form(history, args.format):
        print(text)
    return exit_code(history.entries, of_any=args.any)


def write_html(file: Path, history: History, runs: Mapping[str, RunPaths], *, title: str) -> None:
    """Write the page, with links from it to each report that is there.

    Raises:
        InputError: it cannot be written.
    """
    from mia_batch.stages.trajectory import Step, first_leak  # SciPy takes a second
    from mia_batch.stages.trajectory_report import leak_sentence

    named, blocks = titles(history.trainings), []
    for training in history.trainings:
        entries = [entry for entry in history.entries if entry.training == training.id]
        steps = tuple(_step(Step, entry) for entry in entries if entry.outcome)
        said = leak_sentence(first_leak(steps), steps)
        blocks.append(TrainingOnPage(training.id, named[training.id], tuple(entries), said))
    if unread := tuple(entry for entry in history.entries if not entry.training):
        blocks.append(TrainingOnPage("", "cannot be read", unread, ""))
    here = file.absolute().parent
    links = {name: os.path.relpath(paths.page, here) for name, paths in runs.items() if paths.page.is_file()}
    write_text(file, history_page(title, blocks, links, level=history.level))


def _step(step: Callable[..., T], entry: Entry) -> T:
    """As `trajectory` has it."""
    found = None
    if entry.balanced_accuracy is not None:
        low, high = entry.balanced_accuracy_low, entry.balanced_accuracy_high
        found = MetricSummary(value=entry.balanced_accuracy, low=low, high=high, reason=None)
    return step(entry.run, entry.checkpoint, entry.step, entry.outcome, entry.balanced_accuracy_attack, found)
