"""What an audit checks of itself: arrays in, findings out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.comparison import PermutationTest, cross_fitted_permutation_test
from mia_batch.verdict.baseline import Baseline
from mia_batch.verdict.parity import Parity

N_PERMUTATIONS = 999
MOST_PERMUTED = 500_000  # samples: a test that decides nothing must not take longer than all attacks
MIXED = "a group has members and non-members, so that membership cannot be permuted by group"
NO_ATTACK = "no attack is evaluable"


@dataclass(frozen=True)
class Checks:
    """What an audit has checked of itself.

    Attributes:
        baseline: the blind baseline beside the attacks; None if it was not made.
        unchecked: why it was not; "" if it was.
        permutation: whether any attack tells members from non-members at all. It decides nothing.
        attacks: those that the permutation test is of.
        parity: members beside non-members.
    """

    baseline: Baseline | None
    unchecked: str
    permutation: PermutationTest
    attacks: tuple[str, ...]
    parity: Parity

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader must know, a sentence each."""
        said = f"whether members and non-members can be told apart without the model was not checked: {self.unchecked}"
        return (*([f"{said}."] if self.unchecked else []), *self.parity.cautions)


def permutation(
    member: NDArray[np.bool_], attacks: Mapping[str, NDArray[np.float64]], scored_by: NDArray[np.integer],
    group: NDArray[np.integer] | None, *, seed: int,
) -> PermutationTest:
    """The permutation test over the evaluable attacks, by group; without a number where it cannot be made.

    Args:
        member: membership, shape (n_samples,).
        attacks: scores by name, shape (n_samples,), higher for members.
        scored_by: the split whose models scored each sample, shape (n_samples,).
        group: samples of one number belong together, shape (n_samples,); None for samples that stand alone.
        seed: of the permutations, and of the samples that are drawn where there are more than `MOST_PERMUTED`.
    """
    reason = "" if attacks else NO_ATTACK
    reason = MIXED if group is not None and len(np.intersect1d(group[member], group[~member])) else reason
    if reason:
        return PermutationTest(math.nan, 0, math.nan, N_PERMUTATIONS, reason)
    drawn: Any = slice(None)
    if len(member) > MOST_PERMUTED:
        drawn = np.sort(np.random.default_rng(seed).choice(len(member), MOST_PERMUTED, replace=False))
    found = cross_fitted_permutation_test(
        member[drawn], np.array([scores[drawn] for scores in attacks.values()]), scored_by[drawn], seed=seed,
        groups=None if group is None else group[drawn], n_permutations=N_PERMUTATIONS,
    )
    return found if isinstance(drawn, slice) else replace(found, n_drawn=MOST_PERMUTED)


def one_of_each(group: NDArray[np.integer], member: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first row of each group, of its members and of its non-members: views of one image are one sample."""
    return np.sort(np.unique(2 * group + member, return_index=True)[1])
