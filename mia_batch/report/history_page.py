"""The history of audits as one page: charts over step or time, and a table that sorts and filters without a server.

All is drawn here; the page's own script only hides, moves and orders what is there. It asks for nothing over a network.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote

from mia_batch.report.best import AREA, AT_ONE_PERCENT, BALANCED, LABELS
from mia_batch.report.entries import Entry
from mia_batch.report.templating import environment, own_text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 260, 46, 12, 10, 38  # of a chart, in its own units
N_TICKS = 5
MEASURES = ((BALANCED, "balanced_accuracy", 0.5), (AREA, "auc", 0.5), (AT_ONE_PERCENT, "tpr", 0.01))
OUTCOMES = ("leak", "no leak", "inconclusive")


@dataclass(frozen=True)
class TrainingOnPage:
    """The audits of one training run, oldest first.

    Attributes:
        id: as in the entries.
        title: what tells it from others.
        entries: its audits.
        first_leak: where the leak began, in a sentence.
    """

    id: str
    title: str
    entries: tuple[Entry, ...]
    first_leak: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """An audit in a chart, in the chart's units; x over the step, and over time."""

    row: int
    x: float
    x_time: float
    y: float
    low: float
    high: float
    said: str


@dataclass(frozen=True)
class PageChart:
    """Marks of one figure.

    Attributes:
        key: letters and hyphens.
        title: what it shows.
        x_label: under the axis.
        x_ticks: of it; `time_ticks` likewise over time, empty of a chart that has no time.
        y_ticks: of the figure.
        chance: where guessing is; None off the chart.
        marks: one for each audit that has the figure.
    """

    key: str
    title: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    time_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    chance: float | None
    marks: tuple[Mark, ...]

    @property
    def said(self) -> str:
        """The chart in a sentence."""
        return f"{self.title}: {len(self.marks)} audits. The table below has every figure."


@dataclass(frozen=True)
class Scale:
    """From numbers to places."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)


def history_page(
    title: str, trainings: Sequence[TrainingOnPage], links: Mapping[str, str], *, level: float | None
) -> str:
    """Text of the page.

    Args:
        title: of it.
        trainings: blocks of audits.
        links: paths from the page to the audits' reports, by run.
        level: of the intervals; None without a verdict.
    """
    entries = [entry for training in trainings for entry in training.entries]
    script = own_text("history.js")
    made = environment(
        figure=lambda value: "" if value is None else f"{value:.3f}",
        signed=lambda value: "" if value is None else f"{value:+.3f}",
    )
    return made.get_template("history.html").render(
        title=title, trainings=trainings, rows=list(enumerate(entries)), first_leaks=_first_leaks(entries), level=level,
        links={run: quote(os.fsencode(path)) for run, path in links.items()}, charts=_charts(trainings),
        css=own_text("report.css", "history.css"), script=script, digest=_digest(script),
        counts={outcome: sum(each.outcome == outcome for each in entries) for outcome in OUTCOMES},
        width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, top=TOP, bottom=HEIGHT - BOTTOM,
    )  # fmt: skip


def _first_leaks(entries: Sequence[Entry]) -> set[int]:
    """The row of the first leak of each training."""
    leaks = [(each.training, row) for row, each in enumerate(entries) if each.training and each.outcome == "leak"]
    return set(dict(reversed(leaks)).values())


def _digest(script: str) -> str:
    """By which the page's policy lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _charts(trainings: Sequence[TrainingOnPage]) -> list[PageChart]:
    """Each measure over step and time, and the leak against how well the model does."""
    by_step = all(_steps(training.entries) for training in trainings if training.id)
    placed = [pair for each in trainings for pair in zip(each.entries, _places(each.entries, by_step), strict=True)]
    rows = [(row, entry, at) for row, (entry, at) in enumerate(placed) if entry.outcome]
    if not rows:
        return []
    label = "step" if by_step else "audits of a training, oldest first"
    over = [_over_steps(*measure, rows, label) for measure in MEASURES]
    return [chart for chart in (*over, _against_accuracy(rows)) if chart.marks]


def _places(entries: Sequence[Entry], by_step: bool) -> list[float]:
    """Of each audit of a training on the axis: its step, or its number."""
    return (_steps(entries) if by_step else []) or [float(number) for number in range(1, len(entries) + 1)]


def _steps(entries: Sequence[Entry]) -> list[float]:
    """The step of each as one number: of epoch and step the one that tells all apart. Empty where none does."""
    found = [tuple(map(float, entry.step.split())) for entry in entries]
    if not found or not all(found) or len({len(each) for each in found}) > 1:
        return []
    for part in (-1, 0):
        values = [each[part] for each in found]
        if values == sorted(values) and len(set(values)) == len(set(found)):
            return values
    return []


def _time(entry: Entry) -> float:
    try:
        made = datetime.fromisoformat((entry.modified or entry.created).replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (made if made.tzinfo else made.replace(tzinfo=timezone.utc)).timestamp()


Rows = Sequence[tuple[int, Entry, float]]


def _over_steps(metric: str, field: str, chance: float, rows: Rows, label: str) -> PageChart:
    known = [each for each in rows if getattr(each[1], field) is not None]
    if not known:
        return PageChart(field, LABELS[metric], label, (), (), (), None, ())
    x = _scale([at for *_, at in known], LEFT, WIDTH - RIGHT)
    time = _scale([_time(entry) for _, entry, _ in known], LEFT, WIDTH - RIGHT)
    bounds = [getattr(entry, f"{field}_{end}") for _, entry, _ in known for end in ("low", "high")]
    y = _scale([*bounds, chance], HEIGHT - BOTTOM, TOP)
    marks = tuple(
        Mark(row, x(at), time(_time(entry)), y(getattr(entry, field)), y(getattr(entry, f"{field}_low")),
             y(getattr(entry, f"{field}_high")), _said(entry, field))
        for row, entry, at in known
    )  # fmt: skip
    return PageChart(
        field.replace("_", "-"), f"{LABELS[metric]} of the best attack", label, _ticks(x, "{:g}".format),
        _ticks(time, _day), _ticks(y, "{:g}".format), y(chance), marks,
    )  # fmt: skip


def _against_accuracy(rows: Rows) -> PageChart:
    """What a leak buys, or does not."""
    known = [each for each in rows if each[1].test_accuracy is not None and each[1].auc is not None]
    if not known:
        return PageChart("trade", "", "", (), (), (), None, ())
    x = _scale([entry.test_accuracy or 0.0 for _, entry, _ in known], LEFT, WIDTH - RIGHT)
    y = _scale([bound or 0.0 for _, entry, _ in known for bound in (entry.auc_low, entry.auc_high)] + [0.5],
               HEIGHT - BOTTOM, TOP)  # fmt: skip
    marks = tuple(
        Mark(row, at := x(entry.test_accuracy or 0.0), at, y(entry.auc or 0.0), y(entry.auc_low or 0.0),
             y(entry.auc_high or 0.0), _said(entry, "auc"))
        for row, entry, _ in known
    )  # fmt: skip
    return PageChart(
        "trade", "AUC of the best attack against test accuracy", "test accuracy (on non-members)",
        _ticks(x, "{:g}".format), (), _ticks(y, "{:g}".format), y(0.5), marks,
    )  # fmt: skip


def _said(entry: Entry, field: str) -> str:
    value, low, high = (getattr(entry, f"{field}{end}") for end in ("", "_low", "_high"))
    at = f"step {entry.step}" if entry.step else entry.checkpoint
    attack = getattr(entry, f"{field}_attack")
    return f"{at} ({entry.run}): {entry.outcome}, {attack} {value:.3f} ({low:.3f} to {high:.3f})"


def _scale(values: Sequence[float], first: float, last: float) -> Scale:
    """With some room at the ends; of one value round it."""
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or max(abs(low) * 0.05, 0.5 if high > 2 else 0.05)
    return Scale(low - room, high + room, first, last)


def _ticks(scale: Scale, text: Callable[[float], str]) -> tuple[Tick, ...]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(N_TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    inside = [round(float(value), 12) + 0.0 for value in values if scale.low <= value <= scale.high]
    return tuple(Tick(scale(value), text(value)) for value in inside)


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"


