"""Metrics of a decision."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from mia_batch.metrics.base import (
    LEVEL,
    MANY,
    NO_MEMBERS,
    NO_POSITIVES,
    NO_SAMPLES,
    NODES,
    WEIGHTS,
    Count,
    Counts,
    Estimate,
    Interval,
    check_alpha,
    check_level,
    check_unit,
    clopper_pearson,
    count,
    estimate,
    melded_lower,
    proportion,
    rate_upper,
    undefined,
)

PRIORS = (0.5, 0.1, 0.01)  # shares of members for which a predictive value is said


def accuracy(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of samples whose membership is predicted right, with its Clopper-Pearson interval.

    With fixed numbers of members and non-members the count is a sum of two binomials, which spreads less than the one
    binomial of the interval: coverage is at least `level`.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        level: confidence level in (0, 1).

    Raises:
        ValueError: wrong shape, values other than 0 and 1, or a level out of range.
    """
    counts = count(member, predicted)
    n_samples = counts.n_members + counts.n_nonmembers
    return proportion("accuracy", counts.tp + counts.tn, n_samples, NO_SAMPLES, level)


def recall(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members predicted to be members (TPR), with its Clopper-Pearson interval; NaN without members.

    Args and Raises: see `accuracy`.
    """
    counts = count(member, predicted)
    return proportion("recall", counts.tp, counts.n_members, NO_MEMBERS, level)


def balanced_accuracy(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Mean of TPR and TNR: the accuracy at equal numbers of members and non-members; NaN with one class only.

    Its interval melds the two Clopper-Pearson intervals (Fay, Proschan & Brittain 2015, "Combining one-sample
    confidence procedures for inference in the two-sample case", Biometrics 71): enumerated over all outcomes for up to
    30 against 30 samples, either bound misses with a probability of at most (1 - level) / 2. Args and Raises: see
    `accuracy`.
    """
    counts = count(member, predicted)
    check_level(level)
    if counts.missing:
        return undefined("balanced_accuracy", counts.missing)
    tail = (1 - level) / 2
    value = (counts.tp / counts.n_members + counts.tn / counts.n_nonmembers) / 2
    return estimate(value, (_balanced_lower(counts, tail), _balanced_upper(counts, tail)))


def balanced_accuracy_bounds(
    member: ArrayLike, predicted: ArrayLike, *, alpha_low: float, alpha_high: float
) -> Interval:
    """One-sided bounds of the balanced accuracy, each at its own error, for a gate that decides by one end alone.

    Args:
        member: membership, 0 or 1, shape (n_samples,); both kinds.
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        alpha_low: how often the lower bound may lie above the truth, in (0, 0.5].
        alpha_high: how often the upper bound may lie below it.

    Raises:
        ValueError: wrong shape, values out of range, or one class only.
    """
    counts = count(member, predicted)
    check_alpha("alpha_low", alpha_low)
    check_alpha("alpha_high", alpha_high)
    if counts.missing:
        raise ValueError(f"member: must hold both classes, got {counts.missing}")
    return _balanced_lower(counts, alpha_low), _balanced_upper(counts, alpha_high)


def _balanced_lower(counts: Counts, tail: float) -> float:
    return melded_lower((counts.tp, counts.tn), (counts.n_members, counts.n_nonmembers), tail)


def _balanced_upper(counts: Counts, tail: float) -> float:
    return 1 - melded_lower((counts.fn, counts.fp), (counts.n_members, counts.n_nonmembers), tail)


def precision(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members among the samples predicted to be members; NaN where there are none.

    It holds for the base rate of the scored samples; `predictive_value` is for others. With both classes its interval
    is that of `predictive_value` at that base rate. With one class only it is Clopper-Pearson's, which takes the number
    of positive predictions as given. Args and Raises: see `accuracy`.
    """
    counts = count(member, predicted)
    check_level(level)
    n_said = counts.tp + counts.fp
    if not n_said:
        return undefined("precision", NO_POSITIVES)
    if counts.missing:
        return estimate(counts.tp / n_said, clopper_pearson(counts.tp, n_said, level=level))
    prior = counts.n_members / (counts.n_members + counts.n_nonmembers)
    return estimate(counts.tp / n_said, _predictive_interval(counts, prior, level))


def predictive_value(member: ArrayLike, predicted: ArrayLike, *, prior: float, level: float = LEVEL) -> Estimate:
    """How sure a positive prediction is where a share `prior` of all samples are members: see `precision_at_prior`.

    Its interval melds (Fay, Proschan & Brittain 2015) the Clopper-Pearson bounds of TPR and FPR: each side misses with
    a probability of at most (1 - level) / 2.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        prior: share of members that is assumed, in (0, 1).
        level: confidence level in (0, 1).

    Returns:
        NaN with one class only, or where no sample is predicted a member.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    counts = count(member, predicted)
    check_level(level)
    _check_prior(prior)
    if cause := counts.missing or (NO_POSITIVES if not counts.tp + counts.fp else None):
        return undefined("predictive_value", cause)
    value = precision_at_prior(counts.tp / counts.n_members, counts.fp / counts.n_nonmembers, prior=prior)
    return estimate(value, _predictive_interval(counts, prior, level))


def precision_at_prior(tpr: float, fpr: float, *, prior: float) -> float:
    """`prior TPR / (prior TPR + (1 - prior) FPR)`; NaN where both rates are 0.

    Args:
        tpr: in [0, 1].
        fpr: in [0, 1].
        prior: share of members that is assumed, in (0, 1).

    Raises:
        ValueError: a rate or the prior is out of range.
    """
    check_unit("tpr", tpr)
    check_unit("fpr", fpr)
    _check_prior(prior)
    caught, fooled = prior * tpr, (1 - prior) * fpr
    return caught / (caught + fooled) if caught + fooled else math.nan


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise ValueError(f"prior: must be in (0, 1), got {prior}")


def _predictive_interval(counts: Counts, prior: float, level: float) -> Interval:
    tail, right, wrong = (1 - level) / 2, (counts.tp, counts.n_members), (counts.fp, counts.n_nonmembers)
    return _melded_share(right, wrong, prior, tail), 1 - _melded_share(wrong, right, 1 - prior, tail)


@lru_cache(MANY)
def _melded_share(some: Count, other: Count, prior: float, tail: float) -> float:
    """The `tail` quantile of w A / (w A + (1 - w) B), w the prior, A with its lower and B with its upper distribution.

    A is Beta(k, n - k + 1), or 0 for k = 0; B is Beta(k + 1, n - k), or 1 for k = n.
    """
    (hits, trials), (misses, others) = some, other
    if not hits:
        return 0.0
    b = rate_upper(misses, others, NODES)

    def excess(log_odds: float) -> float:
        at_most = np.minimum(b * math.exp(log_odds) * (1 - prior) / prior, 1.0)
        return float(special.betainc(hits, trials - hits + 1, at_most) @ WEIGHTS) - tail

    return float(special.expit(optimize.brentq(excess, -200.0, 200.0)))
