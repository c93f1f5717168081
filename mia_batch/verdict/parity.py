"""Whether members and non-members are alike in what an audit controls: classes, sizes, values, preparation, counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIX_LEVEL = 0.01  # error of calling two mixes different
MIX_EXCESS = 0.05  # of total variation over what chance gives, below which a difference is not worth a word
RANGE_RATIO = 2.0  # of the two sides' ranges of values
N_DRAWS = 999
BLOCK_VALUES = 1 << 22  # of counts drawn at once

Sides = tuple[int, int]  # members, non-members


@dataclass(frozen=True)
class Mix:
    """How much the kinds of members differ from those of non-members.

    Attributes:
        total_variation: half the sum of the differences of the kinds' shares, in [0, 1].
        by_chance: its mean if which samples are members is drawn by lot.
        p_value: how often it is at least that large then.
    """

    total_variation: float
    by_chance: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether the difference is none of chance, and worth a word."""
        return self.p_value <= MIX_LEVEL and self.total_variation - self.by_chance > MIX_EXCESS


@dataclass(frozen=True)
class Parity:
    """Members beside non-members.

    Attributes:
        configured: samples of the configuration.
        left_out: of them, those that neither fit nor score.
        scored: those that every attack scored.
        augment_members: whether members, and only they, were cropped and flipped.
        classes: how their classes differ; None where a side is empty.
        sizes: how the heights and widths of their inputs differ; None where they are not known.
        ranges: smallest and largest value of each side's inputs; None where they are not known.
    """

    configured: Sides
    left_out: Sides
    scored: Sides
    augment_members: bool
    classes: Mix | None
    sizes: Mix | None = None
    ranges: tuple[tuple[float, float], tuple[float, float]] | None = None

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader must know, a sentence each; of augmentation the verdict says it itself."""
        found = [
            _mix_caution("classes", self.classes, "data.members and data.nonmembers should hold the same ones"),
            _mix_caution("sizes", self.sizes, "they should come from the same source, at the same size"),
            self._range_caution(),
        ]
        return tuple(text for text in found if text)

    def _range_caution(self) -> str | None:
        if self.ranges is None:
            return None
        small, large = sorted(high - low for low, high in self.ranges)
        if large <= RANGE_RATIO * small:
            return None
        ours, theirs = (f"{low:g} to {high:g}" for low, high in self.ranges)
        return f"the inputs of members have values from {ours}, those of non-members from {theirs}: one scale for both."


def _mix_caution(what: str, mix: Mix | None, advice: str) -> str | None:
    if mix is None or not mix.differs:
        return None
    return (
        f"the {what} of members and non-members differ: {mix.total_variation:.1%} of a side would have to change, "
        f"{mix.by_chance:.1%} by chance (p {mix.p_value:.3f}). Attacks may tell that apart: {advice}."
    )


def mix(member: NDArray[np.bool_], kind: NDArray[np.integer], *, seed: int) -> Mix | None:
    """Whether members and non-members are of the same mix of kinds, by an exact permutation test.

    Args:
        member: membership, shape (n_samples,).
        kind: of each sample, any whole number, shape (n_samples,).
        seed: of the permutations.

    Returns:
        None where a side is empty.
    """
    if member.all() or not member.any():
        return None
    _, which, total = np.unique(kind, return_inverse=True, return_counts=True)
    drawn = np.concatenate(list(_variations(total, int(member.sum()), seed)))
    found = _total_variation(np.bincount(which, member, len(total)), total)
    n_reached = int((drawn >= found - 1e-12).sum())
    return Mix(float(found), float(drawn.mean()), (1 + n_reached) / (1 + N_DRAWS))


def _variations(total: NDArray[np.integer], n_members: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Total variations of permuted memberships, in blocks: the members of each kind are hypergeometric."""
    rng, size = np.random.default_rng(seed), max(1, BLOCK_VALUES // len(total))
    for start in range(0, N_DRAWS, size):
        drawn = rng.multivariate_hypergeometric(total, n_members, min(size, N_DRAWS - start), method="marginals")
        yield _total_variation(drawn, total)


def _total_variation(members: NDArray[np.number], total: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of counts of members by kind, shape (..., n_kinds), where `total` are members and non-members."""
    n_members = members.sum(axis=-1, keepdims=True)
    shares = members / n_members, (total - members) / (total.sum() - n_members)
    return np.asarray(abs(shares[0] - shares[1]).sum(axis=-1) / 2)
