"""Which sample each reference model is trained on: complementary pairs, by fair coins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OF_COINS, OF_TRAININGS = 0, 1  # streams of a plan's seed
MOST = 1000  # names of checkpoints have three digits
COUNT_RULE = f"must be an even number from 2 to {MOST}, as models come in pairs"


def is_count(count: int) -> bool:
    """Whether there can be a plan of so many models."""
    return count % 2 == 0 and 2 <= count <= MOST


@dataclass(frozen=True)
class ReferencePlan:
    """Pairs of reference models: 2j and 2j + 1 are trained on complementary samples.

    Attributes:
        included: whether a model is trained on a sample, bool (K, M).
        seeds: of each model's training, uint32 (K,).
    """

    included: NDArray[np.bool_]
    seeds: NDArray[np.uint32]

    def __post_init__(self) -> None:
        if self.included.dtype != bool or self.included.ndim != 2:
            raise ValueError(f"included must be bools (K, M), got {self.included.dtype} {self.included.shape}")
        if self.seeds.dtype != np.uint32 or self.seeds.shape != (self.n_references,):
            rule = f"seeds must be uint32 ({self.n_references},)"
            raise ValueError(f"{rule}, got {self.seeds.dtype} {self.seeds.shape}")
        if self.n_references < 2 or self.n_references % 2:
            raise ValueError(f"included must have an even number of models, at least 2, got {self.n_references}")
        if not (self.included[0::2] ^ self.included[1::2]).all():
            raise ValueError("included: model 2j + 1 must have the samples that model 2j has not")

    @property
    def n_references(self) -> int:
        """K."""
        return len(self.included)

    def extended(self, more: ReferencePlan) -> ReferencePlan:
        """This plan with the models of `more` that it has not: its own stay what they are."""
        if more.included.shape[1] != self.included.shape[1]:
            raise ValueError(f"more must have {self.included.shape[1]} samples, got {more.included.shape[1]}")
        pairs = ((self.included, more.included), (self.seeds, more.seeds))
        included, seeds = (np.concatenate([ours, theirs[len(ours) :]]) for ours, theirs in pairs)
        return ReferencePlan(included, seeds)


def plan_references(unit: NDArray[np.integer], n_references: int, seed: int) -> ReferencePlan:
    """Toss a fair coin for each unit of samples and each pair of models.

    "Each sample in exactly half of the models" without pairs is not the same: there the number of the other models that
    a sample is in tells whether it is in this one. A pair depends on the seed and its number alone, so that a larger
    plan begins with the smaller one.

    Args:
        unit: number of each sample's unit, int (M,): samples of one unit share their coins.
        n_references: K, even.
        seed: of the coins and of the trainings' seeds, at least 0.

    Raises:
        ValueError: K is odd or below 2.
    """
    if n_references < 2 or n_references % 2:
        raise ValueError(f"n_references must be an even number of at least 2, got {n_references}")
    _, place = np.unique(unit, return_inverse=True)
    n_units = int(place.max(initial=-1)) + 1
    coins = np.empty((n_references // 2, n_units), dtype=bool)
    for pair, tossed in enumerate(coins):
        tossed[:] = _stream(seed, OF_COINS, pair).integers(0, 2, n_units, dtype=np.uint8)
    included = np.empty((n_references, len(unit)), dtype=bool)
    included[0::2] = coins[:, place]
    included[1::2] = ~included[0::2]
    numbers = [_stream(seed, OF_TRAININGS, k).integers(2**32, dtype=np.uint32) for k in range(n_references)]
    return ReferencePlan(included, np.array(numbers, dtype=np.uint32))


def _stream(seed: int, kind: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, number)))
