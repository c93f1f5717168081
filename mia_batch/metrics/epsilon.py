"""Lower bounds of the privacy loss epsilon that an attack's success implies, and what converts it.

A bound speaks of the training algorithm only where inclusion was randomised; else it puts an attack's strength into the
units of differential privacy, no more. No attack bounds epsilon from above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from mia_batch.metrics.base import (
    LEVEL,
    NO_SAMPLES,
    NODES,
    WEIGHTS,
    Counts,
    Estimate,
    Floats,
    check_binary,
    check_level,
    check_scores,
    missing_side,
    rate_lower,
    rate_upper,
    split_scores,
    undefined,
)

UNBOUNDED = "no error of one kind was observed: the value is infinite"
AT_DELTA_0 = "at delta 0 no Gaussian mechanism has an epsilon"
GUESSED = 0.1  # share of the canaries that a one-run audit guesses on either side; fixed before any score is seen
_LARGEST = 1e4  # epsilon, or the parameter of a Gaussian, at which a search gives up


def attack_implied_epsilon(counts: Counts, *, delta: float = 0.0, level: float = LEVEL) -> Estimate:
    """`max(0, ln((TPR - delta) / FPR), ln((TNR - delta) / FNR))` and its lower bound.

    Jagielski et al. 2020, arXiv 2006.07709; Nasr et al. 2021, arXiv 2101.04535. The bound takes TPR from below and FPR
    from above, by Clopper-Pearson at (1 - level) / 2 each, which also bound FNR and TNR.

    Args:
        counts: decisions by a threshold that was fixed beforehand, on other samples. Chosen on these, the bound claims
            too much: see `epsilon_over_thresholds`.
        delta: in [0, 1).
        level: confidence of the lower bound, in (0, 1): it is above the truth with a probability of at most 1 - level.

    Returns:
        `high` is infinite, and so is the value where one kind of error was not observed; NaN with one class only.

    Raises:
        ValueError: delta or level out of range.
    """
    _check(delta, level)
    if counts.missing:
        return undefined("attack-implied epsilon", counts.missing)
    value = float(_epsilon(counts.tp / counts.n_members, counts.fp / counts.n_nonmembers, delta))
    low = float(_lower_epsilon(counts.tp, counts.fp, (counts.n_members, counts.n_nonmembers), delta, 1 - level))
    return Estimate(value, min(low, value), math.inf, UNBOUNDED if math.isinf(value) else None)


def epsilon_over_thresholds(
    member: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, *, delta: float = 0.0, level: float = LEVEL
) -> Estimate:
    """The largest lower bound of `attack_implied_epsilon` over decisions `scores >= t`, corrected for their number.

    Each of the bounds has the error (1 - level) / n_thresholds (Bonferroni), so that the largest has at most 1 - level.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        thresholds: fixed beforehand, not from these scores, shape (n_thresholds,).
        delta: in [0, 1).
        level: confidence of the lower bound, in (0, 1).

    Returns:
        The value is of the threshold with the largest bound; `high` is infinite; NaN with one class only.

    Raises:
        ValueError: wrong shape, values out of range, or no threshold.
    """
    positives, negatives = (np.sort(side) for side in split_scores(member, scores))
    levels = _check_thresholds(thresholds)
    _check(delta, level)
    if cause := missing_side(positives, negatives):
        return undefined("attack-implied epsilon", cause)
    tp, fp = (len(side) - np.searchsorted(side, levels, "left") for side in (positives, negatives))
    m, n = len(positives), len(negatives)
    bounds = _lower_epsilon(tp, fp, (m, n), delta, (1 - level) / len(levels))
    best = int(np.argmax(bounds))
    value = float(_epsilon(tp[best] / m, fp[best] / n, delta))
    return Estimate(value, min(float(bounds[best]), value), math.inf, UNBOUNDED if math.isinf(value) else None)


def choose_threshold(member: ArrayLike, scores: ArrayLike, *, delta: float = 0.0, level: float = LEVEL) -> float:
    """The threshold whose decisions `scores >= t` have the largest lower bound of epsilon on these samples.

    Of more than 2,000 different scores it looks at some. Only for out-of-fold scores of the rows that fit the attack:
    on the rows that are scored such a choice finds leaks on identical distributions.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        delta: in [0, 1).
        level: confidence of the bounds, in (0, 1).

    Raises:
        ValueError: wrong shape, values out of range, or one class only.
    """
    positives, negatives = (np.sort(side) for side in split_scores(member, scores))
    _check(delta, level)
    if cause := missing_side(positives, negatives):
        raise ValueError(f"member: must hold both classes, got {cause}")
    levels = _some(np.unique(np.concatenate([positives, negatives]))[::-1])
    tp, fp = (len(side) - np.searchsorted(side, levels, "left") for side in (positives, negatives))
    # Without a bound above 0 anywhere, the largest ratio of the bounds still is the best to be had.
    low = _log_ratios(*_rate_bounds(tp, fp, (len(positives), len(negatives)), 1 - level), delta)
    return float(levels[int(np.argmax(low))])


def _some(levels: Floats) -> Floats:
    """All of up to 2,000; of more, those at both ends and ever fewer between: a bound of each takes its time."""
    if len(levels) <= 2000:
        return levels
    steps = np.unique(np.geomspace(1, len(levels), 1000).astype(np.int64)) - 1
    return levels[np.unique(np.concatenate([steps, len(levels) - 1 - steps]))]


def out_of_fold_decisions(
    member: NDArray[np.bool_], scores: Floats, scored_by: NDArray[np.integer], *, delta: float = 0.0
) -> NDArray[np.bool_]:
    """Decisions about cross-fitted scores, each part's by the threshold that is best on the others.

    Args:
        member: membership, shape (n_samples,).
        scores: shape (n_samples,), higher for members.
        scored_by: number of the part that each sample is in, shape (n_samples,); two parts at least.
        delta: see `choose_threshold`.
    """
    said = np.zeros(len(member), dtype=bool)
    for part in np.unique(scored_by):
        inside = scored_by == part
        said[inside] = scores[inside] >= choose_threshold(member[~inside], scores[~inside], delta=delta)
    return said


def out_of_fold_ranks(
    member: NDArray[np.bool_], scores: Floats, scored_by: NDArray[np.integer]
) -> Floats:
    """Cross-fitted scores as shares of the other parts' non-members that score less, in [0, 1], shape (n_samples,).

    A threshold of 1 - f of these is fixed beforehand: it is that of the FPR f on samples of other parts.

    Args:
        member: membership, shape (n_samples,).
        scores: shape (n_samples,), higher for members.
        scored_by: number of the part that each sample is in, shape (n_samples,); two parts at least.
    """
    ranks = np.empty(len(member))
    for part in np.unique(scored_by):
        inside = scored_by == part
        others = np.sort(scores[~inside & ~member])
        ranks[inside] = np.searchsorted(others, scores[inside], "left") / max(1, len(others))
    return ranks


def _check(delta: float, level: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"delta: must be in [0, 1), got {delta}")
    check_level(level)


def _check_thresholds(thresholds: ArrayLike) -> Floats:
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim != 1 or not len(levels):
        raise ValueError(f"thresholds: must have shape (n_thresholds,) with at least one, got {levels.shape}")
    if np.isnan(levels).any():
        raise ValueError("thresholds: must not be NaN")
    return levels


def _rate_bounds(tp: ArrayLike, fp: ArrayLike, sides: tuple[int, int], alpha: float) -> tuple[Floats, Floats]:
    """TPR from below and FPR from above, both right with a probability of at least 1 - alpha."""
    return rate_lower(tp, sides[0], alpha / 2), rate_upper(fp, sides[1], alpha / 2)


def _lower_epsilon(tp: ArrayLike, fp: ArrayLike, sides: tuple[int, int], delta: float, alpha: float) -> Floats:
    return _epsilon(*_rate_bounds(tp, fp, sides, alpha), delta)


def _epsilon(tpr: ArrayLike, fpr: ArrayLike, delta: float) -> Floats:
    return np.maximum(_log_ratios(tpr, fpr, delta), 0.0)


def _log_ratios(tpr: ArrayLike, fpr: ArrayLike, delta: float) -> Floats:
    """The larger of ln((TPR - delta) / FPR) and ln((TNR - delta) / FNR); infinite where it divides by 0."""
    caught, fooled = np.asarray(tpr, dtype=np.float64), np.asarray(fpr, dtype=np.float64)
    return np.maximum(_log_ratio(caught, fooled, delta), _log_ratio(1 - fooled, 1 - caught, delta))


def _log_ratio(more: Floats, less: Floats, delta: float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 of 0 is not taken
        return np.where(more > delta, np.log(np.maximum(more - delta, 0.0)) - np.log(less), -np.inf)


def mu_gdp(counts: Counts, *, level: float = LEVEL) -> Estimate:
    """The parameter mu of Gaussian differential privacy, `Phi^-1(1 - FPR) - Phi^-1(FNR)`, and its lower bound.

    Nasr et al. 2023, arXiv 2302.07956. FPR and FNR are taken from above, by Clopper-Pearson at (1 - level) / 2 each.
    `epsilon_of_mu` turns it into an epsilon, which holds for mechanisms whose trade-off is Gaussian.

    Args:
        counts: decisions by a threshold that was fixed beforehand, on other samples.
        level: confidence of the lower bound, in (0, 1).

    Returns:
        At least 0; `high` is infinite, and so is the value where one kind of error was not observed; NaN with one class
        only.

    Raises:
        ValueError: level out of range.
    """
    check_level(level)
    if counts.missing:
        return undefined("mu", counts.missing)
    value = _mu(counts.fp / counts.n_nonmembers, counts.fn / counts.n_members)
    tail = (1 - level) / 2
    rates = (rate_upper(*pair, tail) for pair in ((counts.fp, counts.n_nonmembers), (counts.fn, counts.n_members)))
    return Estimate(value, min(_mu(*map(float, rates)), value), math.inf, UNBOUNDED if math.isinf(value) else None)


def _mu(fpr: float, fnr: float) -> float:
    """An FPR or FNR of 1 tells of nothing, also where the other is 0."""
    return 0.0 if max(fpr, fnr) == 1 else max(0.0, -float(special.ndtri(fpr) + special.ndtri(fnr)))


def gaussian_epsilon(counts: Counts, *, delta: float, level: float = LEVEL) -> Estimate:
    """The epsilon at `delta` of `mu_gdp`, for mechanisms whose trade-off is Gaussian. Args and Raises: see there.

    Returns:
        `high` is infinite, and so is the value where mu is; NaN with one class only, or for delta 0.
    """
    _check(delta, level)
    mu = mu_gdp(counts, level=level)
    if not delta:
        return Estimate(math.nan, math.nan, math.nan, AT_DELTA_0)
    if not mu.defined:
        return mu
    return Estimate(epsilon_of_mu(mu.value, delta), epsilon_of_mu(mu.low, delta), math.inf, mu.reason)


def delta_of_epsilon(mu: float, epsilon: float) -> float:
    """The delta at which mu-GDP is (epsilon, delta)-DP: `Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2)`.

    Dong et al. 2019, arXiv 1905.02383, corollary 2.13.

    Args:
        mu: 0 or more.
        epsilon: 0 or more.

    Raises:
        ValueError: mu or epsilon is negative.
    """
    if not (mu >= 0 and epsilon >= 0):
        raise ValueError(f"mu and epsilon: must be 0 or more, got {mu} and {epsilon}")
    if mu == 0:
        return 0.0
    far = special.log_ndtr(-epsilon / mu - mu / 2)
    return max(0.0, float(special.ndtr(-epsilon / mu + mu / 2) - math.exp(epsilon + far)))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The epsilon at which mu-GDP is (epsilon, delta)-DP; the inverse of `delta_of_epsilon`.

    Args:
        mu: 0 or more.
        delta: in (0, 1).

    Raises:
        ValueError: mu or delta out of range.
    """
    _check_delta(delta)
    return _largest(lambda epsilon: delta_of_epsilon(mu, epsilon) > delta)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta: must be in (0, 1), got {delta}")


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest x >= 0 at which it holds, by bisection: it holds up to there. 0 where it never does."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return math.inf
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Credible:
    """Median and ends of a posterior: a credible interval, which is no confidence interval."""

    median: float
    low: float
    high: float
    level: float
    reason: str | None = None


def bayesian_epsilon(counts: Counts, *, delta: float = 0.0, level: float = LEVEL) -> Credible:
    """Credible interval of `max(0, ln((TPR - delta) / FPR), ln((TNR - delta) / FNR))`.

    Zanella-Beguelin et al. 2023, arXiv 2206.05199: with Jeffreys' prior FPR is Beta(1/2 + fp, 1/2 + tn) and FNR is
    Beta(1/2 + fn, 1/2 + tp), independent. The quantiles are integrated, not drawn.

    Args:
        counts: decisions by a threshold that was fixed beforehand, on other samples.
        delta: in [0, 1).
        level: posterior mass between the ends, in (0, 1), the rest half on either side.

    Returns:
        NaN without scored samples; with one class only the other rate has its prior.

    Raises:
        ValueError: delta or level out of range.
    """
    _check(delta, level)
    if counts.missing == NO_SAMPLES:
        return Credible(math.nan, math.nan, math.nan, level, NO_SAMPLES)
    fpr = special.betaincinv(0.5 + counts.fp, 0.5 + counts.tn, NODES)

    def at_most(epsilon: float) -> float:
        """Where FNR is at least 1 - delta - e^eps FPR and at least (1 - delta - FPR) / e^eps."""
        grown = math.exp(epsilon)
        least = np.maximum(1 - delta - grown * fpr, (1 - delta - fpr) / grown)
        return float(special.betaincc(0.5 + counts.fn, 0.5 + counts.tp, np.clip(least, 0.0, 1.0)) @ WEIGHTS)

    def quantile(q: float) -> float:
        return 0.0 if at_most(0.0) >= q else float(optimize.brentq(lambda x: at_most(x) - q, 0.0, 700.0))

    tail = (1 - level) / 2
    return Credible(quantile(0.5), quantile(tail), quantile(1 - tail), level, counts.missing)


@dataclass(frozen=True)
class Guesses:
    """What a one-run audit has found: of canaries, each included by a fair coin, some are guessed, and some right.

    Raises:
        ValueError: not 0 <= n_right <= n_guesses <= n_canaries.
    """

    n_canaries: int
    n_guesses: int
    n_right: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_right <= self.n_guesses <= self.n_canaries:
            raise ValueError(f"guesses: must have 0 <= n_right <= n_guesses <= n_canaries, got {self}")


def extreme_guesses(member: ArrayLike, scores: ArrayLike, *, share: float = GUESSED, seed: int = 1) -> Guesses:
    """Guess that the highest scores are members and as many lowest ones are not; abstain from the rest.

    Steinke et al. 2023, algorithm 1. How many is fixed by `share` alone. Equal scores are ordered at random: by their
    rows, which hold members first, the guesses would be right for no merit of the scores.

    Args:
        member: membership of the canaries, 0 or 1, shape (n_canaries,).
        scores: shape (n_canaries,), any number except NaN, higher for members.
        share: of the canaries, guessed on either side, in (0, 0.5].
        seed: of the order of equal scores.

    Raises:
        ValueError: wrong shape or values out of range.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    if not 0 < share <= 0.5:
        raise ValueError(f"share: must be in (0, 0.5], got {share}")
    shuffled = np.random.default_rng(seed).permutation(len(truth))
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    n = int(share * len(truth))
    right = int((~truth[order[:n]]).sum() + truth[order[len(order) - n :]].sum())
    return Guesses(len(truth), 2 * n, right)


def one_run_p_value(guesses: Guesses, epsilon: float, *, delta: float = 0.0) -> float:
    """Upper bound of the probability of at least as many right guesses, if training is (epsilon, delta)-DP.

    Steinke et al. 2023, arXiv 2305.08846, appendix D: with v = n_right, q = 1 / (1 + e^-eps) and W ~ Bin(n_guesses, q)
    it is `P[W >= v] + 2 n_canaries delta max_i P[v > W >= v - i] / i`, at most 1.

    Args:
        guesses: of canaries that were included by independent fair coins.
        epsilon: 0 or more.
        delta: in [0, 1).

    Returns:
        In [0, 1].

    Raises:
        ValueError: epsilon or delta out of range.
    """
    _check(delta, LEVEL)
    if not epsilon >= 0:
        raise ValueError(f"epsilon: must be 0 or more, got {epsilon}")
    right, of = guesses.n_right, guesses.n_guesses
    if not right:
        return 1.0
    least = float(special.bdtrc(right - 1, of, special.expit(epsilon)))
    if not delta:
        return least
    under = np.cumsum(np.exp(_log_binomial(np.arange(right)[::-1], of, epsilon)))
    steepest = float((under / np.arange(1, right + 1)).max())
    return min(1.0, least + 2 * guesses.n_canaries * delta * steepest)


def _log_binomial(k: NDArray[np.int64], n: int, epsilon: float) -> Floats:
    """Log P[Bin(n, 1 / (1 + e^-eps)) = k]."""
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return ways + k * special.log_expit(epsilon) + (n - k) * special.log_expit(-epsilon)


def one_run_epsilon(guesses: Guesses, *, delta: float = 0.0, level: float = LEVEL) -> float:
    """The largest epsilon that `one_run_p_value` rejects at 1 - level: a lower bound, 0 where it rejects none.

    Args:
        guesses: of canaries that were included by independent fair coins.
        delta: in [0, 1).
        level: confidence of the bound, in (0, 1).

    Raises:
        ValueError: delta or level out of range.
    """
    _check(delta, level)
    return _largest(lambda epsilon: one_run_p_value(guesses, epsilon, delta=delta) < 1 - level)


def one_run_epsilon_fdp(guesses: Guesses, *, delta: float, level: float = LEVEL) -> float:
    """The same by the trade-off function of a Gaussian mechanism that is (epsilon, delta)-DP: tighter.

    Mahloujifar et al. 2024, arXiv 2410.22235, for mechanisms whose trade-off is at least that of a Gaussian.

    Args:
        guesses: of canaries that were included by independent fair coins.
        delta: in (0, 1).
        level: confidence of the bound, in (0, 1).

    Raises:
        ValueError: delta or level out of range.
    """
    return epsilon_of_mu(one_run_mu(guesses, level=level), delta)


def one_run_mu(guesses: Guesses, *, level: float = LEVEL) -> float:
    """The largest mu of Gaussian differential privacy that the guesses reject: see `one_run_epsilon_fdp`."""
    check_level(level)
    return _largest(lambda mu: _rejects(guesses, mu, 1 - level))


def _rejects(guesses: Guesses, mu: float, significance: float) -> bool:
    """Whether so many right guesses are less likely than `significance` under mu-GDP.

    `right` and `wrong` are masses of right and wrong guesses, of all canaries, in the outcomes that would reject.
    """
    m, r, v = guesses.n_canaries, guesses.n_guesses, guesses.n_right
    if not r:
        return False
    right, wrong = significance * v / m, significance * (r - v) / m
    for i in range(v - 1, -1, -1):
        reached = max(wrong, float(special.ndtr(special.ndtri(right) - mu)))
        right, wrong = min(right + i / (r - i) * (reached - wrong), 1.0), reached
    return right + wrong > r / m
