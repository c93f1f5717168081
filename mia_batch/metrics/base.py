"""Metrics of a membership attack with confidence intervals: pure, exact, without random numbers.

Conventions: member = 1, non-member = 0; a higher score means "more likely a member"; rates are fractions in [0, 1]. An
interval describes the draw of the scored samples, members and non-members apart, for an attack that was fitted on other
samples. None of them resamples: the same scores always give the same bounds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

LEVEL = 0.95
NO_MEMBERS = "no members among the scored samples"
NO_NONMEMBERS = "no non-members among the scored samples"
NO_POSITIVES = "no sample is predicted a member"
NO_SAMPLES = "no scored samples"
# The quadrature of an expectation: probabilities u = Phi(z) with weights, by the trapezoid rule in z. They are dense at
# both ends, so that a quantile at a small error is right too.
_Z = np.linspace(-8.2, 8.2, 401)
NODES = special.ndtr(_Z)
WEIGHTS = np.exp(-(_Z**2) / 2) / np.exp(-(_Z**2) / 2).sum()
MANY = 2**14  # bounds that are remembered: many small slices have few different counts
Interval = tuple[float, float]
Floats = NDArray[np.float64]
Count = tuple[int, int]  # so many of so many
Effects = tuple[float, float]  # design effects of members and non-members
INDEPENDENT: Effects = (1.0, 1.0)


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


@dataclass(frozen=True)
class Counts:
    """Decisions about samples, by kind.

    Attributes:
        tp: members called members.
        fn: members called non-members.
        fp: non-members called members.
        tn: non-members called non-members.

    Raises:
        ValueError: a count is negative.
    """

    tp: int
    fn: int
    fp: int
    tn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fn, self.fp, self.tn) < 0:
            raise ValueError(f"counts: must be 0 or more, got {self}")

    @property
    def n_members(self) -> int:
        """Samples that are members."""
        return self.tp + self.fn

    @property
    def n_nonmembers(self) -> int:
        """Samples that are not."""
        return self.fp + self.tn

    @property
    def missing(self) -> str | None:
        """Which kind of sample there is none of; None where there are both."""
        if not self.n_members:
            return NO_MEMBERS if self.n_nonmembers else NO_SAMPLES
        return None if self.n_nonmembers else NO_NONMEMBERS


def count(member: ArrayLike, predicted: ArrayLike) -> Counts:
    """Decisions by kind.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).

    Raises:
        ValueError: wrong shape, or values other than 0 and 1.
    """
    truth = check_binary("member", member)
    guess = check_binary("predicted", predicted, len(truth))
    tp, n_members, n_said = (int(np.count_nonzero(x)) for x in (truth & guess, truth, guess))
    return Counts(tp, n_members - tp, n_said - tp, len(truth) - n_members - n_said + tp)


def thinned(
    member: ArrayLike, values: ArrayLike, effects: Effects, *, generous: bool
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """A thinned sample: on each side, of `effect` rows one is kept, evenly over the sorted values.

    So many rows of it say as much as independent ones, and the values keep their distribution. What does not come out
    even is taken against the attack, or for it (`generous`): a bound of these samples errs to the safe side.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        values: decisions or scores, shape (n_samples,).
        effects: design effects of members and of non-members, 1 or more: so many samples count as one.
        generous: True takes it for the attack, as an upper bound must; False against it.

    Raises:
        ValueError: wrong shape, values out of range, or an effect under 1.
    """
    if min(effects) < 1:
        raise ValueError(f"effects: must be 1 or more, got {effects}")
    truth, numbers = check_binary("member", member), np.asarray(values)
    kept = []
    for side, effect in zip((True, False), effects, strict=True):
        rows = np.flatnonzero(truth == side)
        rows = rows[np.argsort(-numbers[rows].astype(np.float64), kind="stable")]
        steps = np.arange(int(len(rows) / effect))
        # The first of each step for a high rate of this side, the last for a low one.
        at = np.floor(steps * effect) if generous == side else np.ceil((steps + 1) * effect) - 1
        kept.append(rows[np.minimum(at, len(rows) - 1).astype(np.int64)])
    chosen = np.concatenate(kept)
    return truth[chosen], numbers[chosen]


def undefined(metric: str, cause: str) -> Estimate:
    warnings.warn(f"{metric} is undefined: {cause}", UndefinedMetricWarning, stacklevel=3)
    return Estimate(math.nan, math.nan, math.nan, cause)


def estimate(value: float, interval: Interval, reason: str | None = None) -> Estimate:
    """Estimate whose bounds, found numerically, may not cut off the value by a rounding error."""
    return Estimate(float(value), float(min(interval[0], value)), float(max(interval[1], value)), reason)


def check_binary(name: str, values: ArrayLike, n_samples: int | None = None) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or (n_samples is not None and len(array) != n_samples):
        expected = "n_samples" if n_samples is None else n_samples
        raise ValueError(f"{name}: must have shape ({expected},), got {array.shape}")
    if array.dtype == np.bool_:
        return array
    if array.size and not (array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()):
        raise ValueError(f"{name}: must be 0 or 1 everywhere, got {np.unique(array)[:5].tolist()}")
    return array.astype(bool)


def check_scores(scores: ArrayLike, n_samples: int) -> Floats:
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (n_samples,):
        raise ValueError(f"scores: must have shape ({n_samples},), got {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"scores: must not be NaN, got NaN at sample {np.flatnonzero(np.isnan(array))[0]}")
    return array


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: must be in (0, 1), got {level}")


def check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be in [0, 1], got {value}")


def check_alpha(name: str, alpha: float) -> None:
    if not 0 < alpha <= 0.5:
        raise ValueError(f"{name}: must be in (0, 0.5], got {alpha}")


def split_scores(member: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Scores of members and of non-members, each in the order of the samples.

    Raises:
        ValueError: wrong shape or values out of range.
    """
    truth = check_binary("member", member)
    values = check_scores(scores, len(truth))
    return values[truth], values[~truth]


def missing_side(positives: Floats, negatives: Floats) -> str | None:
    if len(positives):
        return None if len(negatives) else NO_NONMEMBERS
    return NO_MEMBERS if len(negatives) else NO_SAMPLES


def clopper_pearson(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """Exact two-sided interval of a binomial proportion (Clopper & Pearson 1934); [0, 1] without trials.

    Raises:
        ValueError: successes not in 0..trials, or level not in (0, 1).
    """
    check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: must be in 0..{trials}, got {successes}")
    tail = (1 - level) / 2
    return float(rate_lower(successes, trials, tail)), float(rate_upper(successes, trials, tail))


def rate_lower(successes: ArrayLike, trials: int, tail: float | Floats) -> Floats:
    """Lower bounds of binomial proportions, each wrong with a probability of at most `tail` (Clopper & Pearson)."""
    k = np.asarray(successes)
    return np.where(k > 0, special.betaincinv(np.maximum(k, 1), np.maximum(trials - k, 0) + 1, tail), 0.0)


def rate_upper(successes: ArrayLike, trials: int, tail: float | Floats) -> Floats:
    """Upper bounds of binomial proportions, each wrong with a probability of at most `tail` (Clopper & Pearson)."""
    k = np.asarray(successes)
    return np.where(k < trials, special.betainccinv(k + 1, np.maximum(trials - k, 1), tail), 1.0)


def proportion(metric: str, successes: int, trials: int, cause: str, level: float) -> Estimate:
    check_level(level)
    if not trials:
        return undefined(metric, cause)
    return estimate(successes / trials, clopper_pearson(successes, trials, level=level))


@lru_cache(MANY)
def melded_lower(right: Count, total: Count, tail: float) -> float:
    """The `tail` quantile of the mean of the two lower confidence distributions, Beta(k, n - k + 1) or 0 for k = 0."""
    shapes = [(k, n - k + 1) for k, n in zip(right, total, strict=True) if k]
    if not shapes:
        return 0.0
    if len(shapes) == 1:
        return float(special.betaincinv(*shapes[0], tail)) / 2
    narrow, wide = sorted(shapes, key=_beta_variance)  # a step of the wide one would fall between the nodes

    def cdf(x: Floats) -> Floats:
        return special.betainc(*wide, np.clip(x, 0.0, 1.0))

    return sum_quantile(special.betaincinv(*narrow, NODES), cdf, tail, upper=2.0) / 2


def _beta_variance(shape: Count) -> float:
    a, b = shape
    return a * b / ((a + b) ** 2 * (a + b + 1))


def sum_quantile(a: Floats, cdf_b: Callable[[Floats], Floats], q: float, *, upper: float) -> float:
    """The q quantile in [0, upper] of A + B, independent and >= 0, A given by its quantiles at `NODES`."""

    def excess(x: float) -> float:
        return float(cdf_b(x - a) @ WEIGHTS) - q

    return float(optimize.brentq(excess, 0.0, upper)) if excess(upper) > 0 else upper
