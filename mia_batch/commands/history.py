"""`mia-batch history RUNS`: what the audits in a directory have found, by training run, and how it changed.

The run directories themselves are the record: there is no database to share or to repair.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError, one_line
from mia_batch.metrics.differences import joint_reach
from mia_batch.process.exit_codes import BY_OUTCOME, INCONCLUSIVE, LEAK, OK
from mia_batch.report.summary import MetricSummary, Summary, read_summary
from mia_batch.rundir.identity import CONTENT, attacks_identity, training_run_identity
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import StageStatus, furthest, reduce_status
from mia_batch.rundir.trainings import Audited, Training, audited_by, trainings
from mia_batch.scheduler.queue import statuses

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch history epochs",
    "mia-batch history epochs --format csv > epochs.csv",
)
FORMATS = ("table", "csv", "json")
SHOWN = 5  # keys in a title, before a count stands for the rest
NOTE_WIDTH = 20  # of the last column at least, whose text goes on below
COLUMNS = ("created", "checkpoint", "run", "verdict", "auc", "change", "")


@dataclass(frozen=True)
class Entry:
    """One audit of the history.

    Attributes:
        run: name of the run directory.
        created: when the run was set up, ISO 8601, UTC.
        checkpoint: file name of the checkpoint.
        sha256: of the checkpoint.
        state: as in `status`: done, or of the first stage that is not.
        leak: the verdict; None until there is one, and where it is inconclusive.
        auc: the highest over the attacks, in [0, 1]; None where undefined.
        accuracy: likewise.
        verdict_change: against the audit before of the same training by the same attacks: "new" without one, "better"
            or "worse" if the interval of the difference of AUC is on one side of 0, else "same", or "unclear" where
            the verdict is another one; "" for an audit that cannot be compared.
        auc_change: the difference of AUC; `auc_change_low` and `auc_change_high` are its interval.
        detail: what else is to be said: the deciding sentence, or how far the run is.
        outcome: the verdict in a word: leak, no leak or inconclusive; "" until there is one.
        training: of which training the checkpoint is; "" where run.json cannot be read.
        step: of it, such as "10 1875" for epoch and step; "" where nothing tells it.
        modified: when the checkpoint was last changed, ISO 8601, UTC; "" in runs that did not record it.
    """

    run: str
    created: str = ""
    checkpoint: str = ""
    sha256: str = ""
    state: str = "damaged"
    leak: bool | None = None
    auc: float | None = None
    accuracy: float | None = None
    verdict_change: str = ""
    auc_change: float | None = None
    detail: str = ""
    outcome: str = ""
    training: str = ""
    step: str = ""
    modified: str = ""
    auc_change_low: float | None = None
    auc_change_high: float | None = None


@dataclass(frozen=True)
class Found:
    """What the files of one run say.

    Attributes:
        entry: without what its training tells.
        audited: the checkpoint; None where run.json cannot be read.
        area: the highest AUC of its attacks; None where it cannot be compared.
        attacks: what they are, and which of them have an AUC: others are not to be compared with.
    """

    entry: Entry
    audited: Audited | None = None
    area: MetricSummary | None = None
    attacks: str = ""


@dataclass(frozen=True)
class History:
    """The audits in a directory: training by training, each oldest first; those that cannot be read at the end."""

    entries: tuple[Entry, ...]
    trainings: tuple[Training, ...]


def read_history(runs: Path) -> History:
    """The audits in `runs`.

    Raises:
        InputError: `runs` is no directory.
    """
    if not runs.is_dir():
        raise InputError(f"{runs}: RUNS: must be a directory of run directories")
    found = {paths.root.name: (paths, _by_files(paths)) for paths in runs_in(runs)}
    undone = {run: paths for run, (paths, each) in found.items() if each.entry.state not in ("done", "damaged")}
    reached = dict(zip(undone, map(furthest, statuses(list(undone.values()))), strict=True))
    known = {run: _at(each, reached.get(run)) for run, (_, each) in found.items()}
    by_training = trainings(each.audited for each in known.values() if each.audited)
    entries = [entry for training in by_training for entry in _of_training(training, known)]
    return History((*entries, *(each.entry for each in known.values() if not each.audited)), tuple(by_training))


def _by_files(paths: RunPaths) -> Found:
    """An audit as its run.json and summary.json say."""
    found = Found(Entry(paths.root.name))
    try:
        manifest = read_manifest(paths)
        if manifest is None:
            raise InputError(f"{paths.manifest}: must stay there")
        its = audited_by(paths.root.name, manifest, training_run_identity(manifest))
        verdict = reduce_status(paths, manifest)
        found = Found(Entry(
            run=paths.root.name, created=manifest.created, checkpoint=its.path.name, sha256=its.sha256,
            state=verdict.state, detail=verdict.detail, modified=manifest.checkpoint.modified,
        ), its)  # fmt: skip
        if verdict.state != "done":
            return found
        return _with_verdict(found, read_summary(paths.summary_json), attacks_identity(manifest))
    except InputError as error:
        said = " ".join(str(error).split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"run.json or summary.json: must be as a run writes it, got {one_line(error)}"
    return replace(found, entry=replace(found.entry, state="damaged", detail=said))


def _with_verdict(found: Found, summary: Summary, attacks: Mapping[str, Any]) -> Found:
    verdict, areas = summary.verdict, _values(summary, "auc")
    highest = {name: max((value for _, value in _values(summary, name)), default=None) for name in ("auc", "accuracy")}
    entry = replace(
        found.entry, leak=verdict.leak, outcome=verdict.outcome, detail=verdict.sentence, auc=highest["auc"],
        accuracy=highest["accuracy"],
    )  # fmt: skip
    if not areas or (summary.audited and summary.audited.reasons):  # nothing to compare, or the model is no model
        return replace(found, entry=entry)
    best, _ = max(areas, key=lambda area: area[1])
    key = json.dumps([attacks, sorted(method for method, _ in areas)], sort_keys=True)
    return replace(found, entry=entry, area=summary.methods[best].metrics["auc"], attacks=key)


def _values(summary: Summary, metric: str) -> list[tuple[str, float]]:
    """Of each attack that has it."""
    found = ((name, method.metrics.get(metric)) for name, method in summary.methods.items())
    return [(name, each.value) for name, each in found if each is not None and each.value is not None]


def _at(found: Found, stage: StageStatus | None) -> Found:
    """A run without a verdict of the configuration in force, as `status` says it."""
    if stage is None:
        return found
    job = f"job {stage.job}" if stage.job else ""
    detail = " ".join(word for word in (stage.stage, stage.detail, job) if word)
    return replace(found, entry=replace(found.entry, state=stage.state, detail=detail))


def _of_training(training: Training, known: Mapping[str, Found]) -> list[Entry]:
    """Its audits, each with the change since the last one before with the same attacks."""
    before: dict[str, Found] = {}
    entries = []
    for audited, step in training.audits:
        each = known[audited.run]
        entry = replace(each.entry, training=training.id, step=" ".join(map(str, step)))
        if each.area:
            entry = replace(entry, **change(before.get(each.attacks), each))
            before[each.attacks] = each
        entries.append(entry)
    return entries


def change(before: Found | None, now: Found) -> dict[str, Any]:
    """What `now` says of itself against `before`, as fields of an `Entry`.

    The interval of the difference is made of both audits' intervals (Zou & Donner 2008) as of independent samples. The
    samples are the same, so that it is rather too wide; so it is for the highest of several AUC.
    """
    if before is None:
        return {"verdict_change": "new"}
    (was, was_low, was_high), (value, low, high) = (
        (area.value or 0.0, area.low or 0.0, area.high or 0.0) for area in (before.area, now.area) if area
    )
    difference = value - was
    down = difference - joint_reach(value - low, was_high - was)
    up = difference + joint_reach(high - value, was - was_low)
    alike = "same" if before.entry.outcome == now.entry.outcome else "unclear"
    word = "worse" if down > 0 else "better" if up < 0 else alike
    return {
        "verdict_change": word, "auc_change": difference, "auc_change_low": max(-1.0, down),
        "auc_change_high": min(1.0, up),
    }


def table(entries: Sequence[Entry]) -> str:
    """Audits as aligned columns, or as a paragraph each where the terminal is too narrow for them."""
    rows = [COLUMNS, *map(_table_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    indent, columns = sum(widths[:-1]) + 2 * len(widths[:-1]), _terminal()
    if columns and columns < indent + min(widths[-1], NOTE_WIDTH):
        lines, indent = ["  ".join(filter(None, row)) for row in rows[1:]], 4
    return "\n".join(_wrapped(line, columns, indent) for line in lines)


def _terminal() -> int | None:
    """Width of the terminal, or as COLUMNS has it; None where there is none."""
    return shutil.get_terminal_size((0, 0)).columns or None


def _wrapped(text: str, columns: int | None, indent: int = 4) -> str:
    return textwrap.fill(text, max(columns, indent + 4), subsequent_indent=" " * indent) if columns else text


def _table_row(entry: Entry) -> tuple[str, ...]:
    verdict = entry.outcome or entry.state
    auc = "" if entry.auc is None else f"{entry.auc:.4f}"
    difference = "" if entry.auc_change is None else f"{entry.auc_change:+.4f}"
    notes = (entry.verdict_change, "" if entry.outcome in ("leak", "no leak") else entry.detail)
    created = entry.created[:16].replace("T", " ")
    names = (created, entry.checkpoint, entry.run)
    return (*map(_printable, names), verdict, auc, difference, _printable(": ".join(filter(None, notes))))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


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
    return "\n\n".join(f"{_wrapped(_printable(names[key]), _terminal())}\n{text}" for key, text in blocks)


def print_history(history: History, form: str) -> None:
    """Print the history as "table", "csv" or "json" (an array of objects)."""
    if form == "json":
        print(json.dumps([asdict(entry) for entry in history.entries], indent=1))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in history.entries)
        print(text.getvalue().encode("utf-8", "backslashreplace").decode(), end="")
    elif history.entries:
        print(as_text(history))


def exit_code(entries: Iterable[Entry], *, of_any: bool = False) -> int:
    """The worst of the trainings' newest audits, a leak before one that cannot say; 0 without any.

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
    return next((code for code in (LEAK, INCONCLUSIVE) if code in newest.values()), OK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUNS, the output's form, and whose exit code it is."""
    parser.add_argument("runs", metavar="RUNS", help="directory that holds run directories")
    parser.add_argument("--any", action="store_true", help="exit 3 if any audit found a leak, 4 if any cannot say")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the output (default table)")


def run(args: argparse.Namespace) -> int:
    """Print the history; the exit code is the worst of the newest verdicts, or with --any of all."""
    history = read_history(Path(args.runs))
    if not history.entries:
        log.info("no run directory in %s", args.runs)
    print_history(history, args.format)
    return exit_code(history.entries, of_any=args.any)
