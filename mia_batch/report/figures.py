"""Figures of an audit, by matplotlib: for slides and papers as PNG and SVG, or on a user's own axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.files import atomic_path
from mia_batch.report.best import AT_ONE_PERCENT, BALANCED, LABELS
from mia_batch.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = (0.01, 0.001)  # FPRs
FORMS = ("png", "svg")
DPI = 160
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "mia_batch", "text.parse_math": False, "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dde2ea",
    "axes.axisbelow": True, "lines.linewidth": 1.8, "axes.titlesize": 11, "axes.titlelocation": "left",
}  # fmt: skip
ACCENT, LIMIT, MUTED = "#2457c5", "#8d1f5f", "#565f70"


@dataclass(frozen=True)
class RocCurve:
    """Of one attack.

    Attributes:
        fpr: ascending, (n_points,).
        tpr: likewise.
        at: TPR at each FPR of `MARKED`.
        n_nonmembers: scored.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    at: tuple[float, ...]
    n_nonmembers: int


def draw_roc(ax: Axes, curves: Mapping[str, RocCurve]) -> None:
    """A curve for each attack on logarithmic axes: low false positive rates are what counts. Without a legend."""
    import matplotlib as mpl

    if len(curves) > 10:  # more than matplotlib has colours for
        ax.set_prop_cycle(color=[mpl.colormaps["tab20"](number) for number in range(20)])
    least = min((1 / curve.n_nonmembers for curve in curves.values()), default=1.0)
    for name, curve in curves.items():
        points = list(zip(MARKED, curve.at, strict=True))
        said = ", ".join(f"{value:.3f} at {at:g}" for at, value in points)
        (line,) = ax.plot(curve.fpr, curve.tpr, drawstyle="steps-post", label=f"{name} (TPR {said})")
        ax.plot(*zip(*points, strict=True), linestyle="none", marker="o", markersize=4, color=line.get_color())
    ax.plot([least / 2, 1], [least / 2, 1], color="grey", linestyle=":", label="chance")
    ax.set(xscale="log", yscale="log", xlim=(least / 2, 1), ylim=(least / 2, 1.05))
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title="Attacks, on rows that none was fitted on")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")


def draw_intervals(ax: Axes, summary: Summary, metric: str, *, chance: float) -> None:
    """A row for each attack that has the metric: value and interval, and the gate's level."""
    values = {name: method.metrics.get(metric) for name, method in summary.methods.items()}
    found = {name: each for name, each in values.items() if each is not None and each.value is not None}
    numbers = [(each.value, each.low, each.high) for each in found.values()]
    value, low, high = np.array(numbers, dtype=np.float64).reshape(-1, 3).T
    y = -np.arange(len(found))
    ax.axvline(chance, color=MUTED, linestyle=(0, (2, 3)), linewidth=1.1, label="chance")
    for level in {rule.above for rule in summary.verdict.rules if rule.name == metric}:
        ax.axvline(level, color=LIMIT, linewidth=1.4, label=f"level {level:g}")
    ax.hlines(y, low, high, color=ACCENT, alpha=0.45, linewidth=4)
    ax.plot(value, y, "o", color=ACCENT)
    ax.set_yticks(y, list(found))
    ax.grid(False, axis="y")
    title = f"{LABELS[metric]}, value and {summary.level:.0%} interval"
    ax.set(ylim=(-len(found), 1), xlabel=LABELS[metric], title=title)


def write_figures(folder: Path, summary: Summary, curves: Mapping[str, RocCurve]) -> list[Path]:
    """Write each figure to `folder` as PNG and as SVG whose text is text; their names.

    Raises:
        InputError: a file cannot be written.
    """
    height = 1.3 + 0.28 * len(summary.methods)
    figures: dict[str, tuple[float, Callable[[Axes], None]]] = {
        "roc": (5.2, lambda ax: draw_roc(ax, curves)),
        BALANCED: (height, lambda ax: draw_intervals(ax, summary, BALANCED, chance=0.5)),
        AT_ONE_PERCENT: (height, lambda ax: draw_intervals(ax, summary, AT_ONE_PERCENT, chance=0.01)),
    }
    return [file for name, (tall, draw) in figures.items() for file in _write(folder, name, tall, draw)]


def _write(folder: Path, name: str, height: float, draw: Callable[[Axes], None]) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, height), layout="constrained")
        draw(figure.add_subplot())
        figure.legend(loc="outside right upper", fontsize="small")
        files = [folder / f"{name}.{form}" for form in FORMS]
        for file, form in zip(files, FORMS, strict=True):
            with atomic_path(file) as temporary:
                dates = {"Date": None} if form == "svg" else {}
                figure.savefig(temporary, format=form, dpi=DPI, metadata=dates)
    return files
