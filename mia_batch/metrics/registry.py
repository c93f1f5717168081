"""THE list of metrics: what configurations, gates, tables and printed lines may name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mia_batch.metrics.base import (
    INDEPENDENT,
    LEVEL,
    Counts,
    Effects,
    Estimate,
    UndefinedMetricWarning,
    thinned,
)
from mia_batch.metrics.base import estimate as estimate_of
from mia_batch.metrics.classification import PRIORS, accuracy, balanced_accuracy, precision, recall
from mia_batch.metrics.epsilon import (
    attack_implied_epsilon,
    bayesian_epsilon,
    epsilon_over_thresholds,
    gaussian_epsilon,
    mu_gdp,
    one_run_epsilon,
    one_run_epsilon_fdp,
)
from mia_batch.metrics.ranking import (
    FPRS,
    RocBand,
    advantage,
    auc,
    fpr_name,
    predictive_value_of,
    roc_band,
    tpr_at_fpr,
)

Pair = tuple[ArrayLike, ArrayLike]  # membership and decisions or scores, shape (n_samples,) each


@dataclass(frozen=True)
class Metric:
    """One metric of an attack.

    Attributes:
        compute: called with membership, decisions (or scores, if `of_scores`) and `level`, or by `of_metric`.
        of_scores: whether it looks at the scores instead of the decisions.
        label: its row in a table; "" for its name.
        group: the name under which `report.metrics` means it together with others; "" for its own.
        in_gate: whether a gate may be about it.
        row: a table's row that shows it beside others, the value alone; "" for a row of its own.
        of_metric: the metric whose estimate `compute` is called with instead; "" for none.
        one_sided: whether `compute` takes `lower` and `upper`, and leaves out a bound that is not wanted.
    """

    compute: Callable[..., Estimate]
    of_scores: bool = False
    label: str = ""
    group: str = ""
    in_gate: bool = True
    row: str = ""
    of_metric: str = ""
    one_sided: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy),
    "precision": Metric(precision),
    "recall": Metric(recall),
    "balanced_accuracy": Metric(balanced_accuracy, label="balanced acc."),
    "auc": Metric(auc, of_scores=True, label="AUC"),
    "advantage": Metric(advantage, of_scores=True),
    **{
        fpr_name(fpr): Metric(partial(tpr_at_fpr, fpr=fpr), True, f"TPR @ FPR {fpr}", "tpr_at_fpr", in_gate=False,
                              one_sided=True)
        for fpr in FPRS
    },
    **{
        f"predictive_value_at_fpr_{fpr:g}_prior_{prior:g}": Metric(
            partial(predictive_value_of, fpr=fpr, prior=prior), group="predictive_value", in_gate=False,
            row=f"PPV @ FPR {fpr}", of_metric=fpr_name(fpr),
        )
        for fpr in FPRS for prior in PRIORS
    },
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """What is said of epsilon.

    Attributes:
        label: its row in a table.
        of_counts: called with the counts of decisions, `delta` and `level`; None for a figure of a one-run audit.
        of_guesses: called with the guesses of a one-run audit, `delta` and `level`; gives a lower bound.
        of_ranks: called with membership, `epsilon.out_of_fold_ranks`, `delta` and `level`.
        needs_delta: whether there is none at delta 0.
    """

    label: str
    of_counts: Callable[..., Estimate] | None = None
    of_guesses: Callable[..., float] | None = None
    of_ranks: Callable[..., Estimate] | None = None
    needs_delta: bool = False


def _at_fprs(member: ArrayLike, ranks: ArrayLike, *, delta: float, level: float) -> Estimate:
    return epsilon_over_thresholds(member, ranks, [1 - fpr for fpr in (0.5, *FPRS)], delta=delta, level=level)


def _mu(counts: Counts, *, delta: float, level: float) -> Estimate:
    return mu_gdp(counts, level=level)


def _credible(counts: Counts, *, delta: float, level: float) -> Estimate:
    found = bayesian_epsilon(counts, delta=delta, level=level)
    return Estimate(found.median, found.low, found.high, found.reason)


EPSILONS: dict[str, Figure] = {
    "epsilon": Figure("epsilon", attack_implied_epsilon),
    "epsilon_at_fprs": Figure("eps. at 4 FPRs", of_ranks=_at_fprs),
    "mu": Figure("mu-GDP: mu", _mu),
    "epsilon_gaussian": Figure("its epsilon", gaussian_epsilon),
    "epsilon_credible": Figure("credible eps.", _credible),
    "epsilon_one_run": Figure("one run", of_guesses=one_run_epsilon),
    "epsilon_one_run_gaussian": Figure("one run, Gauss.", of_guesses=one_run_epsilon_fdp, needs_delta=True),
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
    wanted = [name for name in METRICS if names is None or name in names]
    found: dict[str, Estimate] = {}
    # One kind after the other: the views of very many samples take much memory.
    for of_scores, values in ((False, predicted), (True, scores)):
        own = [name for name in _with_bases(wanted) if METRICS[name].of_scores == of_scores]
        looked_at = views(member, values, effects) if own else []
        found |= {
            name: bounded(partial(METRICS[name].compute, level=level), *looked_at, one_sided=METRICS[name].one_sided)
            for name in own
        }
    return {name: found[name] if name in found else _of_base(name, found) for name in wanted}


def _with_bases(names: Collection[str]) -> list[str]:
    """The metrics that are computed from samples, for these and for those that are made of them, in order."""
    return list(dict.fromkeys(METRICS[name].of_metric or name for name in names))


def _of_base(name: str, found: Mapping[str, Estimate]) -> Estimate:
    return METRICS[name].compute(found[METRICS[name].of_metric])


def views(member: ArrayLike, values: ArrayLike, effects: Effects) -> list[Pair]:
    """All samples; then, if several count as one, as many as are independent, against the attack and for it."""
    if effects == INDEPENDENT:
        return [(member, values)]
    some = [thinned(member, values, effects, generous=generous) for generous in (False, True)]
    return [(member, values), *some]


def bounded(compute: Callable[..., Estimate], whole: Pair, *some: Pair, one_sided: bool = False) -> Estimate:
    """The value of all samples, with the bounds of so many as are independent: see `views` and `Metric.one_sided`."""
    if not some:
        return compute(*whole)
    value, left, right = (
        partial(compute, lower=lower, upper=upper) if one_sided else compute
        for lower, upper in ((False, False), (True, False), (False, True))
    )
    found = value(*whole)
    if not found.defined:
        return found
    with warnings.catch_warnings():  # a metric that all samples define and some do not has no bound, which is said so
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        low, high = left(*some[0]), right(*some[1])
    bounds = low.low if low.defined else 0.0, high.high if high.defined else max(1.0, found.high)
    return estimate_of(found.value, bounds, found.reason)


def roc(
    member: ArrayLike, scores: ArrayLike, fprs: ArrayLike, *, level: float = LEVEL, effects: Effects = INDEPENDENT
) -> RocBand:
    """`ranking.roc_band` of all samples, with the bounds of so many as are independent: see `views`.

    At an FPR of `FPRS` it is what `evaluate` says there.
    """
    whole, *some = views(member, scores, effects)
    if not some:
        return roc_band(*whole, fprs, level=level)
    band = roc_band(*whole, fprs, level=level, lower=False, upper=False)
    low = roc_band(*some[0], fprs, level=level, upper=False)
    high = roc_band(*some[1], fprs, level=level, lower=False)
    return RocBand(band.fpr, band.tpr, np.fmin(low.low, band.tpr), np.fmax(high.high, band.tpr))
