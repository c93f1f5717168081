"""Samples that metrics are tried on, and references that are slow and plain."""

import math
from itertools import product

import numpy as np
from hypothesis import strategies as st
from scipy import optimize, stats

# Membership, predictions and heavily tied scores, both classes present or not.
SAMPLES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(-2, 2)), min_size=1, max_size=25)
TWO_CLASSES = SAMPLES.filter(lambda rows: {row[0] for row in rows} == {0, 1})


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    member, predicted, scores = (np.array(column) for column in zip(*rows, strict=True))
    return member, predicted, scores.astype(float)


def naive_auc(member: np.ndarray, scores: np.ndarray) -> float:
    pairs = list(product(scores[member == 1], scores[member == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def naive_points(member: np.ndarray, scores: np.ndarray) -> list[tuple[float, float]]:
    """(TPR, FPR) of every threshold, one at a time."""
    thresholds = [math.inf, *sorted(set(scores), reverse=True)]
    positives, negatives = scores[member == 1], scores[member == 0]
    return [(float(np.mean(positives >= t)), float(np.mean(negatives >= t))) for t in thresholds]


def members_above(member: np.ndarray, scores: np.ndarray) -> list[int]:
    """Per k = 0..n_nonmembers: members strictly above the (k + 1)-th highest non-member, and all for the last k."""
    positives, negatives = scores[member == 1], sorted(scores[member == 0], reverse=True)
    return [int(np.sum(positives > level)) for level in negatives] + [len(positives)]


def two_step_bounds(member: np.ndarray, scores: np.ndarray, fpr: float, alpha: float) -> tuple[float, float]:
    """Bounds of the TPR at an FPR, each wrong with at most `alpha`: half for the threshold, half for the rate there."""
    above, m, n = members_above(member, scores), int(np.sum(member)), int(np.sum(member == 0))
    few = max((k for k in range(-1, n + 1) if stats.binom.cdf(k, n, fpr) <= alpha / 2), default=-1)
    many = min(k for k in range(n + 1) if stats.binom.sf(k, n, fpr) <= alpha / 2)
    low = stats.beta.ppf(alpha / 2, above[few], m - above[few] + 1) if few >= 0 and above[few] else 0.0
    high = stats.beta.ppf(1 - alpha / 2, above[many] + 1, m - above[many]) if above[many] < m else 1.0
    return float(low), float(high)


def mixture_bounds(member: np.ndarray, scores: np.ndarray, fpr: float, alpha: float) -> tuple[float, float]:
    """The same by mixtures of beta distributions over the number of non-members above the threshold, term by term."""
    above, m, n = members_above(member, scores), int(np.sum(member)), int(np.sum(member == 0))
    weight = stats.binom.pmf(np.arange(n + 1), n, fpr)
    below = [0, *above[:-1]]

    def lower(x: float) -> float:
        return sum(w * (stats.beta.cdf(x, c, m - c + 1) if c else 1.0) for w, c in zip(weight, below, strict=True))

    def upper(x: float) -> float:
        return sum(w * (stats.beta.cdf(x, c + 1, m - c) if c < m else 0.0) for w, c in zip(weight, above, strict=True))

    low = optimize.brentq(lambda x: lower(x) - alpha, 0.0, 1.0) if lower(0.0) < alpha else 0.0
    high = optimize.brentq(lambda x: upper(x) - 1 + alpha, 0.0, 1.0) if upper(1.0 - 1e-15) > 1 - alpha else 1.0
    return low, high
