"""Plots of an audit, by matplotlib if it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mia_batch.attacks.base import AttackResult
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import fpr_name
from mia_batch.report.figures import MARKED, draw_roc
from mia_batch.stages.figures import curve_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    curves = {
        name: curve_of(attacks[name], tuple(estimates[fpr_name(at)].value for at in MARKED))
        for name, estimates in metrics.items()
    }
    draw_roc(ax, curves)
    ax.legend(loc="lower right", fontsize="small")
    return ax
