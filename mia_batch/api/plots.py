"""Plots of an audit, by matplotlib if it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mia_batch.attacks.base import AttackResult
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import fpr_name, roc_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = (0.01, 0.001)  # FPRs


def plot_roc(
    attacks: Mapping[str, AttackResult], metrics: Mapping[str, Mapping[str, Estimate]], ax: Any = None
) -> Axes:
    """A curve for each attack that has scores, on logarithmic axes: low false positive rates are what counts.

    Args:
        attacks: results by name.
        metrics: estimates by attack and name, for the points that are marked.
        ax: matplotlib's axes; None for new ones.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plot_roc needs matplotlib: pip install matplotlib") from error
    if ax is None:
        ax = plt.subplots()[1]
    least = 1.0
    for name, estimates in metrics.items():
        result, rows = attacks[name], attacks[name].evaluated
        tpr, fpr = roc_points(result.member[rows], result.scores[rows])
        least = min(least, 1 / int((result.member[rows] == 0).sum()))
        points = [(at, estimates[fpr_name(at)].value) for at in MARKED]
        said = ", ".join(f"{value:.3f} at {at:g}" for at, value in points)
        (line,) = ax.plot(fpr, tpr, drawstyle="steps-post", label=f"{name} (TPR {said})")
        ax.plot(*zip(*points, strict=True), linestyle="none", marker="o", markersize=4, color=line.get_color())
    ax.plot([least / 2, 1], [least / 2, 1], color="grey", linestyle=":", label="chance")
    ax.set(xscale="log", yscale="log", xlim=(least / 2, 1), ylim=(least / 2, 1.05))
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title="Attacks, on rows that none was fitted on")
    ax.legend(loc="lower right", fontsize="small")
    return ax
