"""THE list of metrics: what configurations, gates, tables and printed lines may name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from numpy.typing import ArrayLike

from mia_batch.metrics.base import (
    INDEPENDENT,
    LEVEL,
    Effects,
    Estimate,
    UndefinedMetricWarning,
    estimate,
    thinned,
)
from mia_batch.metrics.classification import accuracy, balanced_accuracy, precision, recall
from mia_batch.metrics.ranking import FPRS, advantage, auc, fpr_name, tpr_at_fpr


@dataclass(frozen=True)
class Metric:
    """One metric of an attack.

    Attributes:
        compute: called with membership, decisions (or scores, if `of_scores`) and `level`.
        of_scores: whether it looks at the scores instead of the decisions.
        label: its row in a table; "" for its name.
        group: the name under which `report.metrics` means it together with others; "" for its own.
        in_gate: whether a gate may be about it.
    """

    compute: Callable[..., Estimate]
    of_scores: bool = False
    label: str = ""
    group: str = ""
    in_gate: bool = True


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy),
    "precision": Metric(precision),
    "recall": Metric(recall),
    "balanced_accuracy": Metric(balanced_accuracy, label="balanced acc."),
    "auc": Metric(auc, of_scores=True, label="AUC"),
    "advantage": Metric(advantage, of_scores=True),
    **{
        fpr_name(fpr): Metric(partial(tpr_at_fpr, fpr=fpr), True, f"TPR @ FPR {fpr}", "tpr_at_fpr", in_gate=False)
        for fpr in FPRS
    },
}


def groups() -> tuple[str, ...]:
    """What `report.metrics` may name, in the order of the registry."""
    return tuple(dict.fromkeys(metric.group or name for name, metric in METRICS.items()))


def in_gate() -> tuple[str, ...]:
    """What a gate may be about."""
    return tuple(name for name, metric in METRICS.items() if metric.in_gate)


def in_group(group: str) -> tuple[str, ...]:
    """The metrics that a name of `groups` means."""
    return tuple(name for name, metric in METRICS.items() if group == (metric.group or name))


def evaluate(
    member: ArrayLike,
    predicted: ArrayLike,
    scores: ArrayLike,
    *,
    level: float = LEVEL,
    names: Collection[str] | None = None,
    effects: Effects = INDEPENDENT,
) -> dict[str, Estimate]:
    """Every metric of one attack on the samples that it was not fitted on.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        level: confidence level of every interval, in (0, 1).
        names: which metrics; None for all.
        effects: how many members, and non-members, count as one in an interval: see `base.thinned`.

    Returns:
        By name, in the order of the registry.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.

    Warns:
        UndefinedMetricWarning: for each metric that is NaN, with the cause.
    """
    values = {True: scores, False: predicted}
    return {
        name: _estimate(partial(metric.compute, level=level), member, values[metric.of_scores], effects)
        for name, metric in METRICS.items()
        if names is None or name in names
    }


def _estimate(
    compute: Callable[..., Estimate], member: ArrayLike, values: ArrayLike, effects: Effects
) -> Estimate:
    """The value of all samples, with the bounds of so many as are independent."""
    found = compute(member, values)
    if effects == INDEPENDENT or not found.defined:
        return found
    with warnings.catch_warnings():  # a metric that all samples define and some do not has no bound, which is said so
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        low, high = (compute(*thinned(member, values, effects, generous=generous)) for generous in (False, True))
    bounds = low.low if low.defined else 0.0, high.high if high.defined else 1.0
    return estimate(found.value, bounds, found.reason)
