"""The ratio family: the probability of the true class under the target, against that under references, p(x|t) / p(x).

RMIA: Zarifzadeh et al. 2024, "Low-Cost High-Power Membership Inference Attacks", arXiv 2312.03262; BASE; InfoRMIA,
arXiv 2510.05582. All of it in logarithms: a probability of exp(-1000) is a number like others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.inclusion import complements
from mia_batch.attacks.sides import Bools, Floats, References, Scores, offline_scores, online_scores
from mia_batch.metrics.ranking import placements

A_VALUES = tuple(i / 10 for i in range(11))  # that are tried
A_UNTUNED = 0.3  # where there is no reference to attack with others
GAMMA = 1.0  # the shares then resolve where most ratios are, and scores of several splits compare best
PSEUDO_TARGETS = 4  # references that are attacked to tune a
TUNING_ROWS = 10_000


def log_p(phi: Floats) -> Floats:
    """log p of the true class, -softplus(-phi), of any phi; at most 0."""
    return np.minimum(phi, 0.0) - np.log1p(np.exp(-np.abs(phi)))


def log_mean_p(phi: Floats, chosen: Bools) -> Floats:
    """log of the mean p of the chosen references, over the last axis; NaN where there are none.

    Relative to the largest of them, by expm1 and log1p: exact where all are 1 to the last bit, too.
    """
    logs = np.where(chosen, log_p(phi), -np.inf)
    n, top = chosen.sum(axis=-1), logs.max(axis=-1, initial=-np.inf)
    top = np.where(n > 0, top, 0.0)
    with np.errstate(invalid="ignore"):  # 0 / 0 where there are none
        return top + np.log1p(np.where(chosen, np.expm1(logs - top[..., np.newaxis]), 0.0).sum(axis=-1) / n)


def log_p_online(log_in: Floats, log_out: Floats) -> Floats:
    """log p(x), p(x) = (p_in + p_out) / 2, from the logs of mean p of both sides, arrays of one shape."""
    high, low = np.maximum(log_in, log_out), np.minimum(log_in, log_out)
    return high + np.log1p(np.expm1(low - high) / 2)


def log_p_offline(log_out: Floats, a: float) -> Floats:
    """log p(x) from OUT references alone: p(x) = [(1 + a) p_out + (1 - a)] / 2.

    Args:
        log_out: log of the mean p of OUT references, any shape.
        a: in [0, 1]; 1 takes p_out for p(x).
    """
    return log_out if a == 1 else np.log1p((1 + a) / 2 * np.expm1(log_out))


def log_ratio(references: References, *, a: float | None = None) -> Scores:
    """log r = log p(x|t) - log p(x), with p(x) the mean of mean_in p and mean_out p, whatever their numbers.

    Ranked by itself it is BASE and InfoRMIA. A sample needs one reference on each side; without IN
    references it is scored as by `log_ratio_offline`.
    """
    log_in, log_out = references.both(log_mean_p)
    scores = log_p(references.target) - log_p_online(log_in, log_out)
    complete = ~np.isnan(scores)[:, :1]
    if complete.all():
        return Scores(scores, ~complete[:, 0], ~complete[:, 0])
    return online_scores(scores, _offline(references, log_out, a), complete)


def log_ratio_offline(references: References, *, a: float | None = None) -> Scores:
    """log r with p(x) of `log_p_offline`; a that is not given is tuned. Without OUT references it is 0."""
    return _offline(references, references.both(log_mean_p)[1], a)


def _offline(references: References, log_out: Floats, a: float | None) -> Scores:
    a = tuned_a(references) if a is None else a
    scores = log_p(references.target) - log_p_offline(log_out, a)
    return offline_scores(scores, references.counts()[1], a=a)


def tuned_a(references: References) -> float:
    """The a in 0, .1, ..., 1 with which references are attacked best by the others: by the mean AUC of log r.

    Up to four references play the target, each without its complement among the others, on at most 10,000 samples. Of
    the audit's target nothing is used. Of several as good the least; .3 where no reference can be attacked.
    """
    rows = slice(None, None, -(-len(references.target) // TUNING_ROWS))
    inside, phi = references.inside[rows], references.others[rows]
    partner = {j: k for pair in complements(inside) for j, k in (pair, pair[::-1])}
    areas = [
        _areas(k, phi, inside, [j for j in range(references.n_references) if j not in (k, partner.get(k))])
        for k in _playable(inside)[:PSEUDO_TARGETS]
    ]
    means = np.mean([each for each in areas if each], axis=0) if any(areas) else None
    return A_UNTUNED if means is None else A_VALUES[int(np.argmax(means))]


def _playable(inside: NDArray[np.int8]) -> list[int]:
    """References that were trained on some of the samples and not on others."""
    return np.flatnonzero(inside.any(axis=0) & ~inside.all(axis=0)).tolist()


def _areas(k: int, phi: Floats, inside: NDArray[np.int8], others: list[int]) -> list[float]:
    """AUC of each a of A_VALUES where reference k is attacked with others; none where those say nothing."""
    left = References(phi[:, :, k], phi[:, :, others], inside[:, others])
    log_out, there = left.both(log_mean_p)[1], left.counts()[1][:, 0] > 0
    member = inside[there, k] == 1
    if not member.any() or member.all():
        return []
    found = []
    for a in A_VALUES:
        scores = (log_p(left.target[there]) - log_p_offline(log_out[there], a)).mean(axis=1)
        found.append(float(placements(scores[member], scores[~member])[0].mean()))
    return found


def n_dominated(log_r: Floats, population: NDArray[np.int64], gamma: float) -> NDArray[np.int64]:
    """How many z of the population each sample dominates, r(x) / r(z) >= gamma, summed over queries.

    By sorting: O((N + Z) log Z), never a matrix of N x Z. x stays in its own population.

    Args:
        log_r: (n_samples, n_queries).
        population: rows of the z, (Z,).
        gamma: above 0.

    Returns:
        (n_samples,), each in 0..Z * n_queries.
    """
    limits = log_r - math.log(gamma)
    return np.sum([
        np.searchsorted(np.sort(own[population]), limit, side="right")
        for own, limit in zip(log_r.T, limits.T, strict=True)
    ], axis=0)  # fmt: skip


def rmia_scores(log_r: Floats, population: NDArray[np.int64], *, gamma: float = GAMMA) -> Floats:
    """RMIA's share of the population that a sample dominates, and within equal shares the order of log r, exactly.

    The share alone is a step function: at a low false positive rate it ties what log r parts. So a score is
    (count + t) / m, where t in [0, 1) is the place of log r, averaged over queries, among the different ones of all
    samples. For one query the ranking is that of log r, whatever gamma.

    Args:
        log_r: (n_samples, n_queries).
        population: rows of the z, (Z,).
        gamma: above 0.

    Returns:
        (n_samples,), in [0, 1 + 1/m), m = Z * n_queries.
    """
    different, place = np.unique(log_r.mean(axis=1), return_inverse=True)
    share: Floats = n_dominated(log_r, population, gamma) + place / len(different)
    return share / (len(population) * log_r.shape[1])
