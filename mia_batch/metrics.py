"""Metrics of a membership attack with confidence intervals: pure, exact, without random numbers.

Conventions: member = 1, non-member = 0; a higher score means "more likely a member"; rates are fractions in [0, 1]. An
interval describes the draw of the scored samples, members and non-members apart, for an attack that was fitted on other
samples. None of them resamples: the same scores always give the same bounds.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

FPRS = (0.1, 0.01, 0.001)
LEVEL = 0.95

NO_MEMBERS = "no members among the scored samples"
NO_NONMEMBERS = "no non-members among the scored samples"
NO_POSITIVES = "no sample is predicted a member"
NO_SAMPLES = "no scored samples"

# Midpoints of the quadrature that sums two independent variables.
_GRID = (np.arange(1000) + 0.5) / 1000

Interval = tuple[float, float]
Floats = NDArray[np.float64]


class UndefinedMetricWarning(RuntimeWarning):
    """A metric has no value for these samples and is reported as NaN."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value and confidence interval, with what a reader must know about it.

    `reason` says why the value is NaN (then the interval is NaN too) or, beside a number, what limits it.
    """

    value: float
    low: float
    high: float
    reason: str | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            if not (math.isnan(self.low) and math.isnan(self.high) and self.reason):
                raise ValueError(f"estimate: NaN needs NaN bounds and a reason, got {self}")
        elif not self.low <= self.value <= self.high:
            raise ValueError(f"estimate: must have low <= value <= high, got {self}")

    @property
    def defined(self) -> bool:
        """Whether the value is a number."""
        return not math.isnan(self.value)


def _undefined(metric: str, cause: str) -> Estimate:
    warnings.warn(f"{metric} is undefined: {cause}", UndefinedMetricWarning, stacklevel=3)
    return Estimate(math.nan, math.nan, math.nan, cause)


def _estimate(value: float, interval: Interval, reason: str | None = None) -> Estimate:
    """Estimate whose bounds, found numerically, may not cut off the value by a rounding error."""
    return Estimate(float(value), float(min(interval[0], value)), float(max(interval[1], value)), reason)


def _check_binary(name: str, values: ArrayLike, n_samples: int | None = None) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or (n_samples is not None and len(array) != n_samples):
        expected = "n_samples" if n_samples is None else n_samples
        raise ValueError(f"{name}: must have shape ({expected},), got {array.shape}")
    if array.size and not (array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()):
        raise ValueError(f"{name}: must be 0 or 1 everywhere, got {np.unique(array)[:5].tolist()}")
    return array.astype(bool)


def _check_scores(scores: ArrayLike, n_samples: int) -> Floats:
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (n_samples,):
        raise ValueError(f"scores: must have shape ({n_samples},), got {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"scores: must not be NaN, got NaN at sample {np.flatnonzero(np.isnan(array))[0]}")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: must be in (0, 1), got {level}")


def _missing_class(member: NDArray[np.bool_]) -> str | None:
    if not member.size:
        return NO_SAMPLES
    return NO_MEMBERS if not member.any() else NO_NONMEMBERS if member.all() else None


def clopper_pearson(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """Exact two-sided interval of a binomial proportion (Clopper & Pearson 1934); [0, 1] without trials.

    Raises:
        ValueError: successes not in 0..trials, or level not in (0, 1).
    """
    _check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: must be in 0..{trials}, got {successes}")
    tail, failures = (1 - level) / 2, trials - successes
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.isf(tail, successes + 1, failures)) if failures else 1.0
    return low, high


def _proportion(metric: str, successes: int, trials: int, cause: str, level: float) -> Estimate:
    _check_level(level)
    if not trials:
        return _undefined(metric, cause)
    return _estimate(successes / trials, clopper_pearson(successes, trials, level=level))


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
    truth = _check_binary("member", member)
    guess = _check_binary("predicted", predicted, len(truth))
    return _proportion("accuracy", int((truth == guess).sum()), len(truth), NO_SAMPLES, level)


def precision(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members among the samples predicted to be members; NaN where there are none.

    It holds for the base rate of the scored samples. The Clopper-Pearson interval takes the number of positive
    predictions as given. Args and Raises: see `accuracy`.
    """
    truth = _check_binary("member", member)
    guess = _check_binary("predicted", predicted, len(truth))
    return _proportion("precision", int((truth & guess).sum()), int(guess.sum()), NO_POSITIVES, level)


def recall(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members predicted to be members (TPR), with its Clopper-Pearson interval; NaN without members.

    Args and Raises: see `accuracy`.
    """
    truth = _check_binary("member", member)
    guess = _check_binary("predicted", predicted, len(truth))
    return _proportion("recall", int((truth & guess).sum()), int(truth.sum()), NO_MEMBERS, level)


def balanced_accuracy(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Mean of TPR and TNR: the accuracy at equal numbers of members and non-members; NaN with one class only.

    Its interval melds the two Clopper-Pearson intervals (Fay, Proschan & Brittain 2015, "Combining one-sample
    confidence procedures for inference in the two-sample case", Biometrics 71): enumerated over all outcomes for up to
    30 against 30 samples, either bound misses with a probability of at most (1 - level) / 2. Args and Raises: see
    `accuracy`.
    """
    truth = _check_binary("member", member)
    guess = _check_binary("predicted", predicted, len(truth))
    _check_level(level)
    if cause := _missing_class(truth):
        return _undefined("balanced_accuracy", cause)
    right = (int((truth & guess).sum()), int((~truth & ~guess).sum()))
    total = (int(truth.sum()), int((~truth).sum()))
    tail = (1 - level) / 2
    low = _melded_lower(right, total, tail)
    high = 1 - _melded_lower((total[0] - right[0], total[1] - right[1]), total, tail)
    return _estimate((right[0] / total[0] + right[1] / total[1]) / 2, (low, high))


def _melded_lower(right: tuple[int, int], total: tuple[int, int], tail: float) -> float:
    """The `tail` quantile of the mean of the two lower confidence distributions, Beta(k, n - k + 1) or 0 for k = 0."""
    shapes = [(k, n - k + 1) for k, n in zip(right, total, strict=True) if k]
    if not shapes:
        return 0.0
    if len(shapes) == 1:
        return float(special.betaincinv(*shapes[0], tail)) / 2
    first, second = shapes

    def cdf(x: Floats) -> Floats:
        return special.betainc(*second, np.clip(x, 0.0, 1.0))

    return _sum_quantile(special.betaincinv(*first, _GRID), cdf, tail, upper=2.0) / 2


def _sum_quantile(a: Floats, cdf_b: Callable[[Floats], Floats], q: float, *, upper: float) -> float:
    """The q quantile in [0, upper] of A + B, independent and >= 0, A given by its quantiles at `_GRID`."""

    def excess(x: float) -> float:
        return float(cdf_b(x - a).mean()) - q

    return float(optimize.brentq(excess, 0.0, upper)) if excess(upper) > 0 else upper


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
    truth = _check_binary("member", member)
    values = _check_scores(scores, len(truth))
    _check_level(level)
    if cause := _missing_class(truth):
        return _undefined("auc", cause)
    above, below = _placements(values[truth], values[~truth])
    return _estimate(above.mean(), _auc_interval(above, below, level))


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
    truth = _check_binary("member", member)
    values = _check_scores(scores, len(truth))
    _check_level(level)
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr: must be in [0, 1], got {fpr}")
    if cause := _missing_class(truth):
        return _undefined(fpr_name(fpr), cause)
    positives, negatives = values[truth], np.sort(values[~truth])[::-1]
    n = len(negatives)
    value = _caught(positives, negatives, _allowed(fpr, n)) / len(positives)
    unresolved = f"FPR {fpr:g} cannot be resolved with {n} non-members (1/{n} = {1 / n:.2g})" if fpr * n < 1 else None
    return _estimate(value, _tpr_interval(positives, negatives, fpr, level), unresolved)


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
    truth = _check_binary("member", member)
    values = _check_scores(scores, len(truth))
    _check_level(level)
    if cause := _missing_class(truth):
        return _undefined("advantage", cause)
    if threshold is not None:
        fixed = balanced_accuracy(truth, values >= threshold, level=level)
        return _estimate(2 * fixed.value - 1, (2 * fixed.low - 1, 2 * fixed.high - 1))
    tpr, fpr = roc_points(truth, values)
    value = float((tpr - fpr).max())
    down, up = _advantage_reach(int(truth.sum()), int((~truth).sum()), (1 - level) / 2)
    return _estimate(value, (max(0.0, value - down), min(1.0, value + up)))


def roc_points(member: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """TPR and FPR of every distinct decision `scores >= t`, from (0, 0) to (1, 1), tie groups whole.

    Raises:
        ValueError: wrong shape, or members or non-members are missing.
    """
    truth = _check_binary("member", member)
    values = _check_scores(scores, len(truth))
    if cause := _missing_class(truth):
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

    worst = np.sqrt(-np.log(np.minimum(1 - _GRID, 0.5)) / (2 * n_members))
    over = _sum_quantile(worst, cdf, 1 - tail, upper=2.0)
    under = math.sqrt(-math.log(tail) / 2 * (1 / n_members + 1 / n_nonmembers))
    return over, under


def evaluate(
    member: ArrayLike, predicted: ArrayLike, scores: ArrayLike, *, level: float = LEVEL
) -> dict[str, Estimate]:
    """All metrics of one attack on the samples that it was not fitted on.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        level: confidence level of every interval, in (0, 1).

    Returns:
        accuracy, precision, recall, balanced_accuracy, auc, advantage, tpr_at_fpr_0.1, tpr_at_fpr_0.01 and
        tpr_at_fpr_0.001.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.

    Warns:
        UndefinedMetricWarning: for each metric that is NaN, with the cause.
    """
    return {
        "accuracy": accuracy(member, predicted, level=level),
        "precision": precision(member, predicted, level=level),
        "recall": recall(member, predicted, level=level),
        "balanced_accuracy": balanced_accuracy(member, predicted, level=level),
        "auc": auc(member, scores, level=level),
        "advantage": advantage(member, scores, level=level),
        **{fpr_name(fpr): tpr_at_fpr(member, scores, fpr, level=level) for fpr in FPRS},
    }
