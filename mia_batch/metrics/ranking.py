"""Metrics of scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from mia_batch.metrics.base import (
    LEVEL,
    MANY,
    NODES,
    Estimate,
    Floats,
    Interval,
    check_alpha,
    check_level,
    check_unit,
    estimate,
    missing_side,
    rate_lower,
    rate_upper,
    split_scores,
    sum_quantile,
    undefined,
)
from mia_batch.metrics.classification import balanced_accuracy, precision_at_prior

FPRS = (0.1, 0.01, 0.001)
OF_THE_MAXIMUM = "the largest over thresholds of the scored samples, which describes and decides nothing"
_NEGLIGIBLE = 1e-15  # weight of a term of a mixture
_FEW = 64  # terms of a mixture whose bounds are remembered: those of small slices, which are many and alike


def auc(member: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Probability that a member scores above a non-member, ties worth one half; NaN with one class only.

    The interval is the hull of two: DeLong's variance on the logit scale with Welch's degrees of freedom (DeLong et al.
    1988; ranks as in Sun & Xu 2014, O(n log n)), which knows the shape of the scores, and Newcombe's score interval
    (2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2", method 5),
    which holds near 0 and 1, where DeLong's variance is too small. Without a variance (AUC 0 or 1, all scores equal,
    one sample on a side) it is Hoeffding's bound for U-statistics (1963, section 5), worth min(n_members,
    n_nonmembers) disjoint pairs: wide, and valid for any scores. That bound for a perfect separation may lie below the
    hull for one that is almost perfect: so either end of the interval is at least as far out as that for AUC 1, or 0.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        level: confidence level in (0, 1).

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    positives, negatives = split_scores(member, scores)
    check_level(level)
    if cause := missing_side(positives, negatives):
        return undefined("auc", cause)
    above, below = placements(np.sort(positives), np.sort(negatives))
    return estimate(above.mean(), auc_interval(above, below, level))


def placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Per member the share of non-members under it, per non-member the share of members over it, ties one half.

    Both are in the order of the arguments; sorted ones are faster.
    """
    above = _middle_ranks(np.sort(negatives), positives) / len(negatives)
    below = 1 - _middle_ranks(np.sort(positives), negatives) / len(positives)
    return above, below


def _middle_ranks(ordered: Floats, values: Floats) -> Floats:
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def auc_interval(above: Floats, below: Floats, level: float) -> Interval:
    """Of `auc`, from the placements of both sides."""
    area, fewest, tail = float(above.mean()), min(len(above), len(below)), (1 - level) / 2
    parts = [x.var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (above, below)]
    if fewest < 2 or sum(parts) <= 0 or not 0 < area < 1:
        return _chernoff_interval(area, fewest, tail)
    freedom = sum(parts) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (above, below), strict=True))
    reach = special.stdtrit(freedom, 1 - tail) * math.sqrt(sum(parts)) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-reach, reach]))
    newcombe = _newcombe_interval(area, (len(above), len(below)), 1 - level)
    perfect = tail ** (1 / fewest)  # so that the bound does not fall when a separation becomes perfect
    return min(float(low), newcombe[0], perfect), max(float(high), newcombe[1], 1 - perfect)


def _newcombe_interval(area: float, sizes: tuple[int, int], alpha: float) -> Interval:
    """All areas t with (area - t)^2 <= z^2 V(t), V the variance for exponential scores with both sizes averaged."""
    z2, mean_size, pairs = special.ndtri(alpha / 2) ** 2, sum(sizes) / 2, sizes[0] * sizes[1]

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


def tpr_at_fpr(
    member: ArrayLike, scores: ArrayLike, fpr: float, *, level: float = LEVEL, lower: bool = True, upper: bool = True
) -> Estimate:
    """The largest TPR over thresholds whose FPR is at most `fpr`: whole tie groups, no interpolation.

    The interval is of `tpr_at_fpr_bounds`, for the TPR at the threshold of that FPR in the population of non-members.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        fpr: in [0, 1].
        level: confidence level in (0, 1).
        lower: whether the lower bound is wanted; it is 0 otherwise.
        upper: whether the upper bound is wanted; it is 1 otherwise.

    Returns:
        NaN with one class only. `reason` says where fpr < 1 / n_nonmembers: such an FPR cannot be resolved, and the
        value is the TPR without any false positive. It also says where there is no lower bound, and where the value is
        0 because members share their score with too many non-members.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    positives, negatives = split_scores(member, scores)
    check_level(level)
    check_unit("fpr", fpr)
    if cause := missing_side(positives, negatives):
        return undefined(fpr_name(fpr), cause)
    top, tail = _Top.of(positives, negatives, fpr), (1 - level) / 2
    value = top.caught(_allowed(fpr, top.n)) / top.m
    bounds = top.lower(tail) if lower else 0.0, top.upper(tail) if upper else 1.0
    return estimate(value, bounds, _tpr_reason(positives, negatives, top, tail))


def tpr_at_fpr_bounds(
    member: ArrayLike, scores: ArrayLike, fpr: float, *, alpha_low: float, alpha_high: float
) -> Interval:
    """One-sided bounds of the TPR at the threshold that non-members pass with probability `fpr`, for any scores.

    How many of n non-members lie above that threshold is Bin(n, fpr). Given that it is k, the members above it are at
    least those above the k-th highest non-member and at most those above the next one. So a bound is a quantile of the
    mixture over k of Clopper-Pearson's confidence distributions: Beta(c, m - c + 1) or 0 from below, Beta(c + 1, m - c)
    or 1 from above, for c of m members. Where the non-members around that rank are tied the mixture covers too little,
    and each bound is made of two, of k and of the rate, at half its error. Bootstrapping the extreme quantile of a few
    false positives has no such guarantee.

    Args:
        member: membership, 0 or 1, shape (n_samples,); both kinds.
        scores: shape (n_samples,), any number except NaN, higher for members.
        fpr: in [0, 1].
        alpha_low: how often the lower bound may lie above the truth, in (0, 0.5].
        alpha_high: how often the upper bound may lie below it.

    Raises:
        ValueError: wrong shape, values out of range, or one class only.
    """
    positives, negatives = split_scores(member, scores)
    check_unit("fpr", fpr)
    check_alpha("alpha_low", alpha_low)
    check_alpha("alpha_high", alpha_high)
    if cause := missing_side(positives, negatives):
        raise ValueError(f"member: must hold both classes, got {cause}")
    top = _Top.of(positives, negatives, fpr)
    return top.lower(alpha_low), top.upper(alpha_high)


@dataclass(frozen=True)
class RocBand:
    """A ROC curve with pointwise bounds, (n_points,) each.

    Attributes:
        fpr: ascending, in (0, 1].
        tpr: the largest TPR over thresholds whose FPR is at most that; NaN with one class only.
        low: lower bound of the TPR at that FPR in the population, as of `tpr_at_fpr`.
        high: upper bound.
    """

    fpr: Floats
    tpr: Floats
    low: Floats
    high: Floats


def roc_fprs(n_nonmembers: int, *, n_points: int = 32) -> Floats:
    """FPRs at which a ROC curve of so many non-members is drawn: steps that are there, and `FPRS`, ascending.

    Args:
        n_nonmembers: 1 or more.
        n_points: so many at most beside `FPRS`, evenly on a logarithmic axis.
    """
    steps = np.unique(np.round(np.geomspace(1, n_nonmembers, n_points))) / n_nonmembers
    return np.unique(np.concatenate([steps, FPRS]))


def roc_band(
    member: ArrayLike, scores: ArrayLike, fprs: ArrayLike, *, level: float = LEVEL, lower: bool = True,
    upper: bool = True,
) -> RocBand:  # fmt: skip
    """`tpr_at_fpr` at many FPRs of the same samples, which are sorted once.

    Each interval holds for itself, not all of them at once.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        fprs: shape (n_points,), in [0, 1].
        level: confidence level in (0, 1).
        lower: whether lower bounds are wanted; they are 0 otherwise.
        upper: whether upper bounds are wanted; they are 1 otherwise.

    Returns:
        With one class only TPRs are NaN, and the bounds 0 and 1.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    positives, negatives = (np.sort(side) for side in split_scores(member, scores))
    check_level(level)
    points = np.asarray(fprs, dtype=np.float64)
    for fpr in points:
        check_unit("fpr", fpr)
    if missing_side(positives, negatives):
        return RocBand(points, np.full(len(points), np.nan), np.zeros(len(points)), np.ones(len(points)))
    tops, tail = [_Top.of_sorted(positives, negatives, float(fpr)) for fpr in points], (1 - level) / 2
    found = [
        estimate(
            top.caught(_allowed(top.fpr, top.n)) / top.m,
            (top.lower(tail) if lower else 0.0, top.upper(tail) if upper else 1.0),
        )
        for top in tops
    ]
    return RocBand(points, *(np.array([getattr(each, name) for each in found]) for name in ("value", "low", "high")))


def predictive_value_at_fpr(
    member: ArrayLike, scores: ArrayLike, fpr: float, *, prior: float, level: float = LEVEL
) -> Estimate:
    """How sure a positive prediction is at the threshold of `tpr_at_fpr`, where a share `prior` are members.

    It takes `fpr` itself, not the observed rate, which is at most that. Args and Raises: see `tpr_at_fpr` and
    `classification.predictive_value`.

    Returns:
        NaN with one class only; at FPR 0 it is 1, or NaN where no member is caught.
    """
    return predictive_value_of(tpr_at_fpr(member, scores, fpr, level=level), fpr=fpr, prior=prior)


def predictive_value_of(found: Estimate, *, fpr: float, prior: float) -> Estimate:
    """`predictive_value_at_fpr`, from what `tpr_at_fpr` has found."""
    if not found.defined:
        return found
    value, low, high = (precision_at_prior(tpr, fpr, prior=prior) for tpr in (found.value, found.low, found.high))
    if math.isnan(value):
        return undefined(f"predictive value at {fpr_name(fpr)}", "no member is caught without a false positive")
    return Estimate(value, 0.0 if math.isnan(low) else low, high, found.reason)


def fpr_name(fpr: float) -> str:
    """Name of the metric in results: tpr_at_fpr_0.01."""
    return f"tpr_at_fpr_{fpr:g}"


def _allowed(fpr: float, n: int) -> int:
    """The largest k with k / n <= fpr in floating point, as a caller would compare them."""
    k = min(n, round(fpr * n))
    return k if k / n <= fpr else k - 1


def _tpr_reason(positives: Floats, negatives: Floats, top: _Top, tail: float) -> str | None:
    reasons = []
    if top.fpr * top.n < 1:
        smallest = f"1/{top.n} = {1 / top.n:.2g}"
        reasons.append(f"FPR {top.fpr:g} cannot be resolved with {top.n} non-members ({smallest})")
    if not top.has_lower(tail):
        reasons.append(f"no lower bound with {top.n} non-members")
    k, best = _allowed(top.fpr, top.n), positives.max()
    if k < top.n and top.negatives[k] == best:
        shared = int(np.count_nonzero(negatives == best))
        reasons.append(f"0 because the members' top tie group holds {shared} non-members, and {k} may pass")
    return "; ".join(reasons) or None


@dataclass(frozen=True)
class _Top:
    """Members above each of the highest non-members, as far down as matters for an FPR.

    Attributes:
        fpr: the FPR.
        m: members.
        n: non-members.
        first: the lowest k that has any weight under Bin(n, fpr).
        weight: of k = first, first + 1, ..., under Bin(n, fpr).
        counts: per k = 0, 1, ... members above the lowest threshold that at most k of the non-members pass.
        negatives: the highest non-members, highest first.
        tied: whether non-members around rank n fpr are tied so that the mixture covers too little.
    """

    fpr: float
    m: int
    n: int
    first: int
    weight: Floats
    counts: NDArray[np.int64]
    negatives: Floats
    tied: bool

    @classmethod
    def of(cls, positives: Floats, negatives: Floats, fpr: float) -> _Top:
        """Of scores in any order."""
        highest = _highest(negatives, cls._n_highest(len(negatives), fpr))
        over = np.sort(positives[positives > highest[-1]])
        return cls._of(highest, over, (len(positives), len(negatives)), fpr)

    @classmethod
    def of_sorted(cls, positives: Floats, negatives: Floats, fpr: float) -> _Top:
        """Of ascending scores: what many FPRs of the same samples cost is then the sorting, once."""
        highest = negatives[::-1][: cls._n_highest(len(negatives), fpr)]
        over = positives[np.searchsorted(positives, highest[-1], "right") :]
        return cls._of(highest, over, (len(positives), len(negatives)), fpr)

    @staticmethod
    def _ranks(n: int, fpr: float) -> tuple[int, int, float]:
        """The first and the last k of Bin(n, fpr) beyond which is less than _NEGLIGIBLE, and its deviation."""
        reach = math.sqrt(n * fpr * (1 - fpr))
        first = max(0, math.floor(n * fpr - 9 * reach) - 30)
        return first, min(n, math.ceil(n * fpr + 9 * reach) + 30), reach

    @classmethod
    def _n_highest(cls, n: int, fpr: float) -> int:
        return min(n, cls._ranks(n, fpr)[1] + 1)

    @classmethod
    def _of(cls, highest: Floats, over: Floats, sides: tuple[int, int], fpr: float) -> _Top:
        """Of the highest non-members, highest first, and the members above the last of them, ascending."""
        m, n = sides
        first, last, reach = cls._ranks(n, fpr)
        counts = len(over) - np.searchsorted(over, highest, "right")
        weight = _binomial_weight(n, fpr, first, last)
        counts = np.append(counts, m) if last == n else counts
        return cls(fpr, m, n, first, weight, counts, highest, _tied_around(highest, n * fpr, reach))

    def caught(self, k: int) -> int:
        return int(self.counts[k])

    def has_lower(self, tail: float) -> bool:
        """Whether the threshold is bounded from above at all."""
        return (1 - self.fpr) ** self.n <= (tail / 2 if self.tied else tail)

    def lower(self, tail: float) -> float:
        if self.tied:
            # P(count <= few) <= tail / 2 over a threshold whose FPR exceeds fpr.
            few = int(stats.binom.ppf(tail / 2, self.n, self.fpr))
            few -= stats.binom.cdf(few, self.n, self.fpr) > tail / 2
            return float(rate_lower(self.caught(few), self.m, tail / 2)) if few >= 0 else 0.0
        before = np.append(0, self.counts)[self.first : self.first + len(self.weight)]
        return _mixture_lower(before, self.m, self.weight, tail)

    def upper(self, tail: float) -> float:
        if self.tied:
            # P(count > many) <= tail / 2 over a threshold that keeps fpr.
            many = int(stats.binom.isf(tail / 2, self.n, self.fpr))
            return float(rate_upper(self.caught(many), self.m, tail / 2))
        here = self.counts[self.first : self.first + len(self.weight)]
        return 1 - _mixture_lower(self.m - here, self.m, self.weight, tail)


@lru_cache(256)
def _binomial_weight(n: int, fpr: float, first: int, last: int) -> Floats:
    """Of k = first, ..., last under Bin(n, fpr)."""
    weight = np.asarray(stats.binom.pmf(np.arange(first, last + 1), n, fpr))
    weight[weight < _NEGLIGIBLE] = 0.0
    weight.setflags(write=False)
    return weight


def _highest(values: Floats, k: int) -> Floats:
    """The k highest, highest first."""
    return np.sort(np.partition(values, len(values) - k)[len(values) - k :])[::-1]


def _tied_around(highest: Floats, rank: float, reach: float) -> bool:
    """Whether a tie group of non-members within ranks `rank` +- 3 `reach` is larger than `reach`."""
    starts = np.append(0, np.flatnonzero(highest[1:] != highest[:-1]) + 1)
    ends = np.append(starts[1:], len(highest))
    near = (ends > rank - 3 * reach) & (starts <= rank + 3 * reach)
    return bool((ends - starts)[near].max(initial=1) > max(reach, 1.0))


def _mixture_lower(counts: NDArray[np.int64], m: int, weight: Floats, tail: float) -> float:
    """The `tail` quantile of the mixture of Beta(c, m - c + 1), which is 0 for c = 0."""
    some = weight > 0
    if np.count_nonzero(some) > _FEW:
        return _mixture_quantile(counts[some], m, weight[some], tail)
    return _known_quantile(tuple(counts[some].tolist()), m, tuple(weight[some].tolist()), tail)


@lru_cache(MANY)
def _known_quantile(counts: tuple[int, ...], m: int, weight: tuple[float, ...], tail: float) -> float:
    return _mixture_quantile(np.array(counts), m, np.array(weight), tail)


def _mixture_quantile(counts: NDArray[np.int64], m: int, weight: Floats, tail: float) -> float:
    c, which = np.unique(counts, return_inverse=True)
    share = np.asarray(np.bincount(which, weight), dtype=np.float64)
    some = c > 0
    c, share, rest = c[some], share[some], tail - share[~some].sum()
    if rest <= 0:
        return 0.0

    @lru_cache  # the ends are looked at twice, and each look is at thousands of terms
    def excess(x: float) -> float:
        return float(special.betainc(c, m - c + 1, x) @ share) - rest

    if excess(1.0) <= 0:
        return 1.0
    return float(optimize.brentq(excess, *_around(excess, *_normal_quantile(c, m, share, rest))))


def _normal_quantile(c: NDArray[np.int64], m: int, share: Floats, rest: float) -> tuple[float, float]:
    """Near where the mixture of Beta(c, m - c + 1) has `rest` below it, and its deviation, by its mean and variance."""
    total, means = share.sum(), c / (m + 1)
    mean = means @ share / total
    spread = math.sqrt((means * (1 - means) / (m + 2) + (means - mean) ** 2) @ share / total)
    return mean + spread * float(special.ndtri(min(rest / total, 0.5))), spread


def _around(excess: Callable[[float], float], guess: float, spread: float) -> Interval:
    """An interval in [0, 1] in which a rising function changes its sign, the narrower the better the guess."""
    low = high = min(max(guess, 0.0), 1.0)
    reach = spread / 16
    while low > 0 and excess(low) > 0:
        low, high, reach = max(0.0, low - reach), low, 4 * reach
    while high < 1 and excess(high) < 0:
        low, high, reach = high, min(1.0, high + reach), 4 * reach
    return low, high


def advantage(
    member: ArrayLike, scores: ArrayLike, *, threshold: float | None = None, level: float = LEVEL
) -> Estimate:
    """The largest TPR - FPR over all thresholds (Yeom et al. 2018), or that of `scores >= threshold`.

    The maximum over thresholds chosen on the scored samples overstates the population's: the lower bound allows for it,
    with the Dvoretzky-Kiefer-Wolfowitz bands of both distribution functions (Massart 1990) added as independent
    variables; the upper bound is Hoeffding's at the population's own best threshold. Both are valid for any scores.
    With `threshold`, fixed beforehand, see `balanced_accuracy`: the advantage is 2 x that - 1. Only that one is fit to
    decide by: the maximum is a description, and its `reason` says so.

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
    positives, negatives = split_scores(member, scores)
    check_level(level)
    if cause := missing_side(positives, negatives):
        return undefined("advantage", cause)
    if threshold is not None:
        fixed = balanced_accuracy(member, np.asarray(scores) >= threshold, level=level)
        return estimate(2 * fixed.value - 1, (2 * fixed.low - 1, 2 * fixed.high - 1))
    tpr, fpr = roc_points(member, scores)
    value = float((tpr - fpr).max())
    down, up = _advantage_reach(len(positives), len(negatives), (1 - level) / 2)
    return estimate(value, (max(0.0, value - down), min(1.0, value + up)), OF_THE_MAXIMUM)


def best_threshold(scores: Floats, member: NDArray[np.integer]) -> tuple[float, float]:
    """The score t for which "member where score >= t" has the largest balanced accuracy, the highest t of several.

    Args:
        scores: shape (n,), higher for members.
        member: shape (n,), both 0 and 1.

    Returns:
        t, one of the scores, and its balanced accuracy, in [.5, 1]. Equal scores are never parted.
    """
    values, which = np.unique(-scores, return_inverse=True)  # descending scores
    tp, fp = (np.bincount(which[member == side], minlength=len(values)).cumsum() for side in (1, 0))
    advantage = tp * fp[-1] - fp * tp[-1]  # integers: ties are exact
    best = int(np.argmax(advantage))
    return float(-values[best]), 0.5 + float(advantage[best]) / (2.0 * float(tp[-1]) * float(fp[-1]))


def roc_points(member: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """TPR and FPR of every distinct decision `scores >= t`, from (0, 0) to (1, 1), tie groups whole.

    Raises:
        ValueError: wrong shape, or members or non-members are missing.
    """
    positives, negatives = (np.sort(side) for side in split_scores(member, scores))
    if cause := missing_side(positives, negatives):
        raise ValueError(f"member: must hold both classes, got {cause}")
    ordered = np.sort(np.concatenate([positives, negatives]), kind="stable")  # two runs to merge
    thresholds = ordered[np.append(True, ordered[1:] != ordered[:-1])][::-1]
    del ordered  # of very many samples there is not room for everything at once
    return _rates(positives, thresholds), _rates(negatives, thresholds)


def _rates(ordered: Floats, thresholds: Floats) -> Floats:
    """0, then which share of sorted values is at least each threshold."""
    rates = np.zeros(len(thresholds) + 1)
    rates[1:] = np.searchsorted(ordered, thresholds, "left")
    np.subtract(len(ordered), rates[1:], out=rates[1:])
    rates[1:] /= len(ordered)
    return rates


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
