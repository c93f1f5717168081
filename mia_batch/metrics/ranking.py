"""Metrics of scores."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from mia_batch.metrics.base import (
    LEVEL,
    NODES,
    Estimate,
    Floats,
    Interval,
    check_binary,
    check_level,
    check_scores,
    clopper_pearson,
    estimate,
    missing_class,
    sum_quantile,
    undefined,
)
from mia_batch.metrics.classification import balanced_accuracy

FPRS = (0.1, 0.01, 0.001)


def auc(member: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Probability that a member scores above a non-member, ties worth one half; NaN with one class only.

    The interval is the hull of two: DeLong's variance on the logit scale with Welch's degrees of freedom (DeLong et al.
    1988; ranks as in Sun & Xu 2014, O(n log n)), which knows the shape of the scores, and Newcombe's score interval
    (2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2", method 5),
    which holds near 0 and 1, where DeLong's variance is too small. Without a variance (AUC 0 or 1, all scores equal,
    one sample on a side) it is Hoeffding's bound for U-statistics (1963, section 5), worth min(n_members,
    n_nonmembers) disjoint pairs: wide, and valid for any scores.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        level: confidence level in (0, 1).

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    check_level(level)
    if cause := missing_class(truth):
        return undefined("auc", cause)
    above, below = _placements(values[truth], values[~truth])
    return estimate(above.mean(), _auc_interval(above, below, level))


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Per member the share of non-members under it, per non-member the share of members over it, ties one half."""
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    n_positives, n_negatives = len(positives), len(negatives)
    above = (ranks[:n_positives] - stats.rankdata(positives)) / n_negatives
    below = 1 - (ranks[n_positives:] - stats.rankdata(negatives)) / n_positives
    return above, below


def _auc_interval(above: Floats, below: Floats, level: float) -> Interval:
    area, sizes, alpha = float(above.mean()), (len(above), len(below)), 1 - level
    parts = [x.var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (above, below)]
    if min(sizes) < 2 or sum(parts) <= 0 or not 0 < area < 1:
        return _chernoff_interval(area, min(sizes), alpha / 2)
    freedom = sum(parts) ** 2 / sum(v**2 / (n - 1) for v, n in zip(parts, sizes, strict=True))
    reach = stats.t.isf(alpha / 2, freedom) * math.sqrt(sum(parts)) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-reach, reach]))
    newcombe = _newcombe_interval(area, sizes, alpha)
    return min(float(low), newcombe[0]), max(float(high), newcombe[1])


def _newcombe_interval(area: float, sizes: tuple[int, int], alpha: float) -> Interval:
    """All areas t with (area - t)^2 <= z^2 V(t), V the variance for exponential scores with both sizes averaged."""
    z2, mean_size, pairs = stats.norm.isf(alpha / 2) ** 2, sum(sizes) / 2, sizes[0] * sizes[1]

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + (mean_size - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / pairs
        return (area - t) ** 2 - z2 * variance

    return optimize.brentq(excess, 0.0, area), optimize.brentq(excess, area, 1.0)


def _chernoff_interval(mean: float, n: int, tail: float) -> Interval:
    """All t with exp(-n KL(mean, t)) >= tail; for mean = 1 the lower end is tail^(1/n), Clopper-Pearson's."""

    def excess(t: float) -> float:
        divergence = special.rel_entr(mean, t) + special.rel_entr(1 - mean, 1 - t)
        return float(n * divergence + math.log(tail))

    tiny = 1e-15
    low = optimize.brentq(excess, tiny, mean) if mean > tiny and excess(tiny) > 0 else 0.0
    high = optimize.brentq(excess, mean, 1 - tiny) if mean < 1 - tiny and excess(1 - tiny) > 0 else 1.0
    return low, high


def tpr_at_fpr(member: ArrayLike, scores: ArrayLike, fpr: float, *, level: float = LEVEL) -> Estimate:
    """The largest TPR over thresholds whose FPR is at most `fpr`: whole tie groups, no interpolation.

    The interval is for the TPR at the threshold of that FPR in the population of non-members, and exact for any scores:
    order statistics of the non-members bracket the threshold, Clopper-Pearson bounds over the members the TPR there,
    each of the four bounds at (1 - level) / 4. Bootstrapping the extreme quantile of a few false positives has no such
    guarantee. With too few non-members to bound the threshold from above (under about 4.4 / fpr) the lower bound is 0.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        fpr: in [0, 1].
        level: confidence level in (0, 1).

    Returns:
        NaN with one class only. `reason` is set where fpr < 1 / n_nonmembers: such an FPR cannot be resolved, and the
        value is the TPR without any false positive.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    check_level(level)
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr: must be in [0, 1], got {fpr}")
    if cause := missing_class(truth):
        return undefined(fpr_name(fpr), cause)
    positives, negatives = values[truth], np.sort(values[~truth])[::-1]
    n = len(negatives)
    value = _caught(positives, negatives, _allowed(fpr, n)) / len(positives)
    unresolved = f"FPR {fpr:g} cannot be resolved with {n} non-members (1/{n} = {1 / n:.2g})" if fpr * n < 1 else None
    return estimate(value, _tpr_interval(positives, negatives, fpr, level), unresolved)


def fpr_name(fpr: float) -> str:
    """Name of the metric in results: tpr_at_fpr_0.01."""
    return f"tpr_at_fpr_{fpr:g}"


def _allowed(fpr: float, n: int) -> int:
    """The largest k with k / n <= fpr in floating point, as a caller would compare them."""
    k = min(n, round(fpr * n))
    return k if k / n <= fpr else k - 1


def _caught(positives: Floats, negatives: Floats, k: int) -> int:
    """Members over the lowest threshold that at most k of the non-members (sorted, highest first) pass."""
    return int((positives > negatives[k]).sum()) if k < len(negatives) else len(positives)


def _tpr_interval(positives: Floats, negatives: Floats, fpr: float, level: float) -> Interval:
    n, tail = len(negatives), (1 - level) / 4
    # P(count <= few) <= tail over a threshold whose FPR exceeds fpr, P(count > many) <= tail over one that keeps it.
    few = int(stats.binom.ppf(tail, n, fpr))
    few -= stats.binom.cdf(few, n, fpr) > tail
    many = int(stats.binom.isf(tail, n, fpr))

    def bounds(k: int) -> Interval:
        return clopper_pearson(_caught(positives, negatives, k), len(positives), level=1 - 2 * tail)

    return bounds(few)[0] if few >= 0 else 0.0, bounds(many)[1]


def advantage(
    member: ArrayLike, scores: ArrayLike, *, threshold: float | None = None, level: float = LEVEL
) -> Estimate:
    """The largest TPR - FPR over all thresholds (Yeom et al. 2018), or that of `scores >= threshold`.

    The maximum over thresholds chosen on the scored samples overstates the population's: the lower bound allows for it,
    with the Dvoretzky-Kiefer-Wolfowitz bands of both distribution functions (Massart 1990) added as independent
    variables; the upper bound is Hoeffding's at the population's own best threshold. Both are valid for any scores.
    With `threshold`, fixed beforehand, see `balanced_accuracy`: the advantage is 2 x that - 1.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        threshold: decide by this instead of maximising; it must not come from these samples.
        level: confidence level in (0, 1).

    Returns:
        in [0, 1], or [-1, 1] with `threshold`; NaN with one class only.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    check_level(level)
    if cause := missing_class(truth):
        return undefined("advantage", cause)
    if threshold is not None:
        fixed = balanced_accuracy(truth, values >= threshold, level=level)
        return estimate(2 * fixed.value - 1, (2 * fixed.low - 1, 2 * fixed.high - 1))
    tpr, fpr = roc_points(truth, values)
    value = float((tpr - fpr).max())
    down, up = _advantage_reach(int(truth.sum()), int((~truth).sum()), (1 - level) / 2)
    return estimate(value, (max(0.0, value - down), min(1.0, value + up)))


def roc_points(member: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """TPR and FPR of every distinct decision `scores >= t`, from (0, 0) to (1, 1), tie groups whole.

    Raises:
        ValueError: wrong shape, or members or non-members are missing.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    if cause := missing_class(truth):
        raise ValueError(f"member: must hold both classes, got {cause}")
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    true_positives = np.cumsum(truth[order])[ends]
    false_positives = ends + 1 - true_positives
    tpr, fpr = true_positives / truth.sum(), false_positives / (~truth).sum()
    return np.append(0.0, tpr), np.append(0.0, fpr)


@lru_cache
def _advantage_reach(n_members: int, n_nonmembers: int, tail: float) -> Interval:
    """How far the best advantage of the samples lies over, and under, the population's with probability `tail`."""

    def cdf(x: Floats) -> Floats:
        survival = np.exp(-2 * n_nonmembers * np.maximum(x, 0.0) ** 2)
        # The one-sided inequality holds only where it is under 1/2.
        return np.where(survival > 0.5, 0.0, 1 - survival)

    worst = np.sqrt(-np.log(np.minimum(1 - NODES, 0.5)) / (2 * n_members))
    over = sum_quantile(worst, cdf, 1 - tail, upper=2.0)
    under = math.sqrt(-math.log(tail) / 2 * (1 / n_members + 1 / n_nonmembers))
    return over, under
