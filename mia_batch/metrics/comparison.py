"""Attacks beside each other on the same scored samples: differences of AUC, and whether any of them beats chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mia_batch.metrics.base import (
    LEVEL,
    NO_SAMPLES,
    Estimate,
    Floats,
    Interval,
    check_binary,
    check_level,
    check_scores,
    estimate,
    missing_side,
    split_scores,
    undefined,
)
from mia_batch.metrics.differences import joint_reach
from mia_batch.metrics.ranking import auc_interval, placements

NO_VARIANCE = "without a variance the interval is Hoeffding's, which is wide"
_BLOCK = 2**23  # memberships that are permuted at once: 64 MiB of them


def auc_difference(member: ArrayLike, scores: ArrayLike, others: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """AUC of `scores` less AUC of `others`, which score the same samples, with its paired interval.

    It is made of the two intervals of `ranking.auc` and DeLong's correlation (1988), as in Zou 2007, "Toward using
    confidence intervals to compare correlations", and Zou & Donner 2008. In the middle that is DeLong's interval. Near
    AUC 1, where DeLong's covers as little as .89, it is skewed as the two are. Where the difference has no variance
    (one ranks as the other does, or a side of one sample) it is Hoeffding's bound for U-statistics (1963, section 5),
    whose kernel here is in [-1, 1].

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        others: of the attack to compare with, shape (n_samples,).
        level: confidence level in (0, 1).

    Returns:
        In [-1, 1]; NaN with one class only.

    Raises:
        ValueError: wrong shape, values out of range, or a level out of range.
    """
    ours, theirs = split_scores(member, scores), split_scores(member, others)
    check_level(level)
    if cause := missing_side(*ours):
        return undefined("AUC difference", cause)
    one, other = placements(*ours), placements(*theirs)
    value, fewest = float(one[0].mean() - other[0].mean()), min(map(len, ours))
    covariance = _covariance(one, other) if fewest > 1 else np.zeros((2, 2))
    if np.array([1, -1]) @ covariance @ np.array([1, -1]) <= 1e-12 * covariance.trace():
        reach = math.sqrt(2 * math.log(2 / (1 - level)) / fewest)
        return estimate(value, (max(-1.0, value - reach), min(1.0, value + reach)), NO_VARIANCE)
    first, second = (_reaches(each, level) for each in (one, other))
    spread = math.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = float(covariance[0, 1]) / spread if spread else 0.0
    down, up = joint_reach(first[0], second[1], correlation), joint_reach(first[1], second[0], correlation)
    return estimate(value, (max(-1.0, value - down), min(1.0, value + up)))


def _covariance(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
    """DeLong's, (2, 2), of two attacks by their placements."""
    return np.array(sum(np.cov(x, y) / len(x) for x, y in zip(one, other, strict=True)))


def _reaches(found: tuple[Floats, Floats], level: float) -> Interval:
    """How far the interval of an AUC goes down and up."""
    area, (low, high) = float(found[0].mean()), auc_interval(*found, level)
    return max(0.0, area - low), max(0.0, high - area)


@dataclass(frozen=True)
class PermutationTest:
    """Whether the best of several attacks tells members from non-members at all.

    Attributes:
        statistic: the largest AUC of the attacks.
        best: which attack has it.
        p_value: bounds the probability of so large a statistic by chance; NaN with one class only.
        n_permutations: memberships that were tried.
        reason: why the p-value is NaN.
        n_drawn: samples that were drawn for it; None where it is of all.
    """

    statistic: float
    best: int
    p_value: float
    n_permutations: int
    reason: str | None = None
    n_drawn: int | None = None


def cross_fitted_permutation_test(
    member: ArrayLike, scores: ArrayLike, scored_by: ArrayLike, *, seed: int, groups: ArrayLike | None = None,
    n_permutations: int = 999,
) -> PermutationTest:
    """`permutation_test` of scores that models of several splits gave, each to rows that it had not seen.

    The membership of one split's rows has fitted the models of the others, so that all rows at once cannot be permuted.
    Each split for itself is a hold-out. Twice the mean of their p-values is a p-value however they depend on each other
    (Rueschendorf 1982; Vovk & Wang 2020, "Combining p-values via averaging"). The statistic is a mean too.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_attacks, n_samples), any number except NaN, higher for members.
        scored_by: the split of each sample, shape (n_samples,).
        seed: of the permutations.
        groups: as `permutation_test` has them; a group is of one split.
        n_permutations: of each split, at least 1.

    Raises:
        ValueError: as `permutation_test`.
    """
    truth, values, split = np.asarray(member), np.asarray(scores), np.asarray(scored_by)
    found = [
        permutation_test(
            truth[rows], values[:, rows], seed=(seed, number), n_permutations=n_permutations,
            groups=None if groups is None else np.asarray(groups)[rows],
        )
        for number, name in enumerate(np.unique(split)) for rows in [split == name]
    ]  # fmt: skip
    if len(found) == 1:
        return found[0]
    cause = next((each.reason for each in found if each.reason), None)
    if cause or not found:
        return PermutationTest(math.nan, 0, math.nan, n_permutations, cause or NO_SAMPLES)
    p_value = min(1.0, 2 * float(np.mean([each.p_value for each in found])))
    best = Counter(each.best for each in found).most_common(1)[0][0]
    return PermutationTest(float(np.mean([each.statistic for each in found])), best, p_value, n_permutations)


def permutation_test(
    member: ArrayLike, scores: ArrayLike, *, seed: int | tuple[int, int], groups: ArrayLike | None = None,
    n_permutations: int = 999,
) -> PermutationTest:
    """The p-value `(1 + #{T_b >= T}) / (1 + B)` of T, the largest AUC over the attacks, over B permuted memberships.

    No attack is fitted again: the scores must be of samples that no attack was fitted on. The largest AUC is compared
    with the largest, so that the p-value allows for the number of attacks, however they depend on each other.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_attacks, n_samples), any number except NaN, higher for members.
        seed: of the permutations.
        groups: samples with the same number belong together, all of them members or none, and are permuted as one;
            shape (n_samples,). None for samples that stand alone.
        n_permutations: B, at least 1.

    Raises:
        ValueError: wrong shape, values out of range, or a group with members and non-members.
    """
    truth, values = check_binary("member", member), _check_attacks(member, scores)
    if n_permutations < 1:
        raise ValueError(f"n_permutations: must be 1 or more, got {n_permutations}")
    which = _group_numbers(truth, groups)
    if cause := missing_side(values[0][truth], values[0][~truth]):
        return PermutationTest(math.nan, 0, math.nan, n_permutations, cause)
    # Twice a middle rank is a whole number, so that sums are exact and equal memberships have equal areas.
    ranks = np.array([2 * stats.rankdata(row) for row in values])
    found = _areas(ranks, truth[np.newaxis].astype(np.float64))[:, 0]
    best = int(np.argmax(found))
    permuted = _permuted(truth, which, n_permutations, np.random.default_rng(seed))
    n_reached = sum(int((_areas(ranks, block).max(axis=0) >= found[best]).sum()) for block in permuted)
    return PermutationTest(float(found[best]), best, (1 + n_reached) / (1 + n_permutations), n_permutations)


def _check_attacks(member: ArrayLike, scores: ArrayLike) -> Floats:
    values, n_samples = np.asarray(scores, dtype=np.float64), np.shape(member)[0]
    if values.ndim != 2 or not len(values):
        raise ValueError(f"scores: must have shape (1 or more, {n_samples}), got {values.shape}")
    for row in values:
        check_scores(row, n_samples)
    return values


def _group_numbers(member: NDArray[np.bool_], groups: ArrayLike | None) -> NDArray[np.int64]:
    """Of each sample the number of its group, from 0."""
    if groups is None:
        return np.arange(len(member))
    names = np.asarray(groups)
    if names.shape != member.shape:
        raise ValueError(f"groups: must have shape ({len(member)},), got {names.shape}")
    known, which = np.unique(names, return_inverse=True)
    n_members = np.bincount(which, member, minlength=len(known))
    mixed = (n_members > 0) & (n_members < np.bincount(which, minlength=len(known)))
    if mixed.any():
        raise ValueError(f"groups: must hold members or non-members alone, got both in {known[mixed][0]}")
    return which


def _permuted(
    member: NDArray[np.bool_], which: NDArray[np.int64], n_permutations: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Permuted memberships of whole groups, in blocks of shape (some, n_samples)."""
    by_group = np.zeros(which.max() + 1, dtype=np.int8)
    by_group[which] = member
    size = max(1, _BLOCK // len(member))
    for start in range(0, n_permutations, size):
        block = np.tile(by_group, (min(size, n_permutations - start), 1))
        yield rng.permuted(block, axis=1)[:, which].astype(np.float64)


def _areas(doubled_ranks: Floats, member: Floats) -> Floats:
    """AUC of each attack under each membership, (n_attacks, n_memberships), by rank sums (Mann & Whitney 1947)."""
    n_members = member.sum(axis=1)
    over = doubled_ranks @ member.T / 2 - n_members * (n_members + 1) / 2
    return over / (n_members * (member.shape[1] - n_members))
