"""One-sided confidence bounds: each is wrong with a probability of at most `alpha`, whatever the scores.

A gate decides by one end of an interval alone, and takes the two ends at different levels. None of these depends on how
many members there are for a non-member.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from mia_batch.metrics.base import GRID, Floats, Interval, clopper_pearson, melded_lower

NEGLIGIBLE = 1e-15  # weight of a term of a mixture
Bools = NDArray[np.bool_]
Count = tuple[int, int]  # so many of so many


def rates(member: Bools, said: Bools) -> tuple[Count, Count]:
    """Of decisions: true positives of the members, and false positives of the non-members."""
    n_members = int(member.sum())
    return (int((member & said).sum()), n_members), (int((~member & said).sum()), len(member) - n_members)


def balanced_accuracy_bounds(member: Bools, said: Bools, *, alpha_low: float, alpha_high: float) -> Interval:
    """Melded bounds of the mean of TPR and TNR (Fay, Proschan & Brittain 2015), each at its own level.

    Args:
        member: membership, shape (n_samples,); both kinds.
        said: decisions, shape (n_samples,).
        alpha_low: error of the lower bound, in (0, 0.5).
        alpha_high: error of the upper bound.
    """
    (tp, m), (fp, n) = rates(member, said)
    return melded_lower((tp, n - fp), (m, n), alpha_low), 1 - melded_lower((m - tp, fp), (m, n), alpha_high)


def tpr_at_fpr_bounds(member: Bools, scores: Floats, fpr: float, *, alpha_low: float, alpha_high: float) -> Interval:
    """Bounds of the TPR at the threshold that non-members pass with probability `fpr`.

    How many of n non-members lie above that threshold is Bin(n, fpr) whatever the scores; given that it is k, the
    members above it are at least those above the k-th highest non-member and at most those above the next one. So a
    bound is a quantile of a mixture of Clopper-Pearson's distributions over k. Where the non-members around that rank
    are tied, the mixture covers too little, and two steps (a bound of k, then one of the rate) share `alpha`.

    Args:
        member: membership, shape (n_samples,); both kinds.
        scores: shape (n_samples,), higher for members.
        fpr: in (0, 1).
        alpha_low: error of the lower bound, in (0, 0.5).
        alpha_high: error of the upper bound.
    """
    positives, negatives = np.sort(scores[member]), np.sort(scores[~member])[::-1]
    m, n = len(positives), len(negatives)
    counts = np.append(m - np.searchsorted(positives, negatives, side="right"), m)  # for k = 0..n
    if _tied_there(negatives, fpr):
        return _two_steps_low(counts, fpr, m, alpha_low), _two_steps_high(counts, fpr, m, alpha_high)
    weight = stats.binom.pmf(np.arange(n + 1), n, fpr)
    kept = weight > NEGLIGIBLE
    low = _mixture_low(np.append(0, counts[:-1])[kept], weight[kept], m, alpha_low)
    return low, 1 - _mixture_low(m - counts[kept], weight[kept], m, alpha_high)


def _mixture_low(counts: NDArray[np.int64], weight: Floats, m: int, alpha: float) -> float:
    """The alpha quantile of the mixture of Beta(c, m - c + 1), which is 0 for c = 0."""
    some = counts > 0
    left = alpha - float(weight[~some].sum())
    if left <= 0:
        return 0.0

    def excess(x: float) -> float:
        return float(weight[some] @ special.betainc(counts[some], m - counts[some] + 1, x)) - left

    return float(optimize.brentq(excess, 0.0, 1.0)) if excess(1.0) > 0 else 1.0


def _tied_there(negatives: Floats, fpr: float) -> bool:
    """Whether a tie group within three standard deviations of the rank is larger than one of them."""
    n = len(negatives)
    reach = math.sqrt(n * fpr * (1 - fpr))
    first, last = max(0, math.floor(n * fpr - 3 * reach)), min(n, math.ceil(n * fpr + 3 * reach) + 1)
    _, sizes = np.unique(negatives[np.isin(negatives, negatives[first:last])], return_counts=True)
    return bool(sizes.max(initial=1) > max(1.0, reach))


def _two_steps_low(counts: NDArray[np.int64], fpr: float, m: int, alpha: float) -> float:
    n = len(counts) - 1
    few = int(stats.binom.ppf(alpha / 2, n, fpr))
    few -= stats.binom.cdf(few, n, fpr) > alpha / 2
    return clopper_pearson(int(counts[few]), m, level=1 - alpha)[0] if few >= 0 else 0.0


def _two_steps_high(counts: NDArray[np.int64], fpr: float, m: int, alpha: float) -> float:
    many = int(stats.binom.isf(alpha / 2, len(counts) - 1, fpr))
    return clopper_pearson(int(counts[many]), m, level=1 - alpha)[1]


def epsilon(tpr: float, fpr: float, delta: float = 0.0) -> float:
    """max(0, ln((TPR - delta) / FPR), ln((TNR - delta) / FNR)), infinite where a rate that divides is 0."""
    found = [0.0]
    for more, less in ((tpr, fpr), (1 - fpr, 1 - tpr)):
        if more > delta:
            found.append(math.log((more - delta) / less) if less > 0 else math.inf)
    return max(found)


def epsilon_lower(member: Bools, said: Bools, *, delta: float = 0.0, alpha: float) -> float:
    """Lower bound of the attack-implied epsilon of decisions by a threshold fixed beforehand.

    Jagielski et al. 2020, arXiv 2006.07709; Nasr et al. 2021, arXiv 2101.04535. TPR from below and FPR from above,
    Clopper-Pearson at alpha / 2 each, bound FNR and TNR too. It is a bound on the training algorithm only where
    inclusion was randomised.
    """
    (tp, m), (fp, n) = rates(member, said)
    tpr, fpr = clopper_pearson(tp, m, level=1 - alpha)[0], clopper_pearson(fp, n, level=1 - alpha)[1]
    return epsilon(tpr, fpr, delta)


def epsilon_threshold(member: Bools, scores: Floats, *, delta: float = 0.0, alpha: float = 0.05) -> float:
    """The threshold whose decisions `scores >= threshold` have the largest `epsilon_lower` on these rows.

    Only for out-of-fold scores of the rows that fit: a threshold chosen on the rows that are scored finds leaks on
    identical distributions.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    tp = np.cumsum(member[order])[ends]
    fp, m, n = ends + 1 - tp, int(member.sum()), int((~member).sum())
    tpr = np.where(tp > 0, special.betaincinv(np.maximum(tp, 1), m - tp + 1, alpha / 2), 0.0)
    fpr = np.where(fp < n, special.betaincinv(fp + 1, np.maximum(n - fp, 1), 1 - alpha / 2), 1.0)
    bounds = [epsilon(*pair, delta) for pair in zip(tpr, fpr, strict=True)]
    return float(scores[order][ends][int(np.argmax(bounds))])


def precision_at_equal_sides(member: Bools, said: Bools, *, alpha: float) -> tuple[float, float, float]:
    """TPR / (TPR + FPR), the precision with as many non-members as members, and its melded bounds, low and high.

    NaN where no sample is called a member.
    """
    (tp, m), (fp, n) = rates(member, said)
    if not tp + fp:
        return math.nan, math.nan, math.nan
    value = tp / m / (tp / m + fp / n)
    low, high = 1 - _share_high((fp, n), (tp, m), alpha), _share_high((tp, m), (fp, n), alpha)
    return value, min(low, value), max(high, value)


def _share_high(one: Count, other: Count, alpha: float) -> float:
    """The 1 - alpha quantile of A / (A + B): A has its upper confidence distribution, B its lower one."""
    (hits, trials), (misses, others) = one, other
    if not misses:
        return 1.0
    b = special.betaincinv(misses, others - misses + 1, GRID)

    def excess(x: float) -> float:
        a = b * x / (1 - x)
        below = special.betainc(hits + 1, trials - hits, np.minimum(a, 1.0)) if hits < trials else a >= 1
        return float(np.mean(below)) - (1 - alpha)

    top = 1 - 1e-12
    return float(optimize.brentq(excess, 0.0, top)) if excess(top) > 0 else 1.0
