"""Claims about single records: which of them are members, with a bound on the share of false claims."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_batch.metrics.base import Floats, check_binary


def conformal_p_values(calibration: ArrayLike, scores: ArrayLike) -> Floats:
    """How unusual each score is among non-members: `(1 + #{calibration >= score}) / (n + 1)`.

    Bates et al. 2023, "Testing for outliers with conformal p-values", arXiv 2104.08279. For a non-member it is at most
    u with a probability of at most u.

    Args:
        calibration: scores of non-members that neither the attack's fit nor its selection saw, shape (n,).
        scores: shape (n_samples,), higher for members; they may be infinite.

    Returns:
        In (0, 1], shape (n_samples,); all 1 without calibration.

    Raises:
        ValueError: wrong shape, or NaN.
    """
    known, values = (_check(name, x) for name, x in (("calibration", calibration), ("scores", scores)))
    return (1 + len(known) - np.searchsorted(np.sort(known), values, "left")) / (len(known) + 1)


def benjamini_hochberg(p_values: ArrayLike, *, q: float) -> NDArray[np.bool_]:
    """Which hypotheses to reject so that in expectation a share of at most q of them is true.

    Benjamini & Hochberg 1995. It holds for conformal p-values of one calibration set, which depend positively on each
    other (Bates et al. 2023).

    Args:
        p_values: shape (n_samples,), in [0, 1].
        q: in (0, 1).

    Raises:
        ValueError: wrong shape or values out of range.
    """
    p = _check("p_values", p_values)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values: must be in [0, 1], got {p[(p < 0) | (p > 1)][0]}")
    if not 0 < q < 1:
        raise ValueError(f"q: must be in (0, 1), got {q}")
    ordered = np.sort(p)
    limits = q * np.arange(1, len(p) + 1) / len(p)
    passing = np.flatnonzero(ordered <= limits * (1 + 1e-12))  # conformal p-values can equal a limit, up to rounding
    return p <= ordered[passing[-1]] if len(passing) else np.zeros(len(p), dtype=bool)


def claimed_members(calibration: ArrayLike, scores: ArrayLike, *, q: float) -> NDArray[np.bool_]:
    """Records to be called members so that in expectation a share of at most q of them are none: both of the above."""
    return benjamini_hochberg(conformal_p_values(calibration, scores), q=q)


@dataclass(frozen=True)
class Claims:
    """What an attack says of each sample that it scores, (n_samples,) each.

    Attributes:
        p: conformal p-value, in (0, 1]: small where few non-members have such a score.
        claimed: whether the sample is called a member.
    """

    p: Floats
    claimed: NDArray[np.bool_]


def claims(member: ArrayLike, scores: ArrayLike, scored_by: ArrayLike, *, q: float) -> Claims:
    """Which of all scored samples an attack that does not know their membership calls members.

    A sample is compared with the non-members that the same models have scored, which neither they nor their selection
    saw, and never with itself. Of samples of either kind, so compared, at most a share of q of those that are claimed
    are non-members: not in expectation alone, but in every audit. For of the n non-members of a split at most n t have
    a p-value of at most t, so that of M samples, R of them claimed because p <= q R / M, at most q R n / M are
    non-members.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), higher for members; they may be infinite.
        scored_by: number of the split whose models scored each sample, shape (n_samples,).
        q: in (0, 1).

    Raises:
        ValueError: wrong shapes, values out of range, or NaN.
    """
    p = cross_conformal_p_values(member, scores, scored_by)
    return Claims(p, benjamini_hochberg(p, q=q))


def cross_conformal_p_values(member: ArrayLike, scores: ArrayLike, scored_by: ArrayLike) -> Floats:
    """`conformal_p_values` of every sample, among the other samples that are non-members and of its split.

    Arguments and errors as of `claims`.
    """
    truth, values, split = check_binary("member", member), _check("scores", scores), np.asarray(scored_by)
    if not len(truth) == len(values) == len(split):
        raise ValueError(f"scores: must be as many as member and scored_by, got {len(values)}")
    p = np.empty(len(values))
    for number in np.unique(split):
        rows = split == number
        own, is_member = values[rows], truth[rows]
        calibration = np.sort(own[~is_member])
        n_above = len(calibration) - np.searchsorted(calibration, own, "left")  # of a non-member, itself too
        p[rows] = (n_above + is_member) / (len(calibration) + is_member)
    return p


def fewest_claims(member: ArrayLike, scored_by: ArrayLike, *, q: float) -> int:
    """How many samples must be claimed at once, at least, for any to be: with fewer no p-value is small enough.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        scored_by: number of the split whose models scored each sample, shape (n_samples,).
        q: in (0, 1).
    """
    truth, split = check_binary("member", member), np.asarray(scored_by)
    most = max((int(np.count_nonzero(split[~truth] == number)) for number in np.unique(split)), default=0)
    return max(1, math.ceil(len(truth) / (q * (most + 1)) * (1 - 1e-12)))


def ranks(scores: ArrayLike, *, last: bool = False) -> NDArray[np.int64]:
    """1 for the highest score; equal scores have the first of their ranks in common.

    Args:
        scores: shape (n_samples,); they may be infinite.
        last: whether they have the last of their ranks in common instead.

    Raises:
        ValueError: wrong shape, or NaN.
    """
    values = _check("scores", scores)
    order = np.argsort(values, kind="stable")
    ordered, found = values[order], np.empty(len(values), dtype=np.int64)
    above = np.searchsorted(ordered, ordered, "left" if last else "right")
    found[order] = len(values) - above + (not last)
    return found


def highest_rows(of_attacks: Iterable[NDArray[np.int64]], n_samples: int, most: int) -> NDArray[np.int64]:
    """The samples that some attack ranks highest, `most` of them, ascending; of equal ones the first.

    Args:
        of_attacks: each attack's ranks, (n_samples,), from 1; 0 for samples without a score. Of equal scores the last:
            half of all samples at the first rank are no highest ones.
        n_samples: samples.
        most: how many there may be.
    """
    best = np.full(n_samples, n_samples + 1)
    for found in of_attacks:
        np.minimum(best, found, out=best, where=found > 0)
    return np.sort(np.argsort(best, kind="stable")[:most])


class Exposure:
    """Which members attacks expose most, from what one attack after the other says of all samples.

    Attributes:
        n_claims: attacks that call each sample a member, (n_samples,).
        rank: the best that an attack gives it, 1 or more, (n_samples,); above n_samples where none has scored it.
        attack: number of the attack that does, (n_samples,), from 0.
        p: conformal p-value by that attack, (n_samples,); 1 where none has scored it.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_claims = np.zeros(n_samples, dtype=np.int32)
        self.rank = np.full(n_samples, n_samples + 1)
        self.attack = np.zeros(n_samples, dtype=np.int32)
        self.p = np.ones(n_samples)
        self._n_attacks = 0

    def add(self, rank: NDArray[np.int64], claimed: NDArray[np.bool_], p: Floats) -> None:
        """Take what the next attack says: (n_samples,) each, rank 0 where it has no score; of equal scores the last."""
        self.n_claims += claimed & (rank > 0)
        better = (rank > 0) & (rank < self.rank)
        self.rank[better], self.p[better] = rank[better], p[better]
        self.attack[better] = self._n_attacks
        self._n_attacks += 1

    def most(self, member: ArrayLike, n: int) -> NDArray[np.int64]:
        """At most n of the members that some attack has scored: the most claimed first, then those of the best rank."""
        rows = np.flatnonzero(check_binary("member", member, len(self.rank)) & (self.rank <= len(self.rank)))
        return rows[np.lexsort((self.rank[rows], -self.n_claims[rows]))][:n]


def _check(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name}: must have one dimension, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name}: must not be NaN, got NaN at {np.flatnonzero(np.isnan(array))[0]}")
    return array
