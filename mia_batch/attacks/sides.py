"""What a target and its references say of samples: phi, the logit-scaled confidence log(p / (1 - p)) of the true class.

A sample has two sides: the references that were trained on it, IN, and those that were not, OUT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.samples import Samples

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BLOCK_VALUES = 1 << 18  # of references at a time: 2 MiB, which a core's cache holds
# The least standard deviation that references' phi may have: float32 logits do not resolve less.
LEAST_SD = 1e-6
# The variance of references where no sample has two on a side, so that none can be seen. It changes no ranking of the
# attacks that have one variance for all samples.
UNSEEN_VARIANCE = 1.0
MANY = 64  # references, from which on each sample has a variance of its own (Carlini et al. 2022)


@dataclass(frozen=True)
class References:
    """Phi of every sample.

    Raises:
        ValueError: the arrays disagree.
    """

    target: Floats  # (n_samples, n_queries)
    others: Floats  # (n_samples, n_queries, n_references)
    inside: NDArray[np.int8]  # (n_samples, n_references) 1 where the reference was trained on the sample
    label: NDArray[np.integer] | None = None  # (n_samples,) true classes
    steps: References | None = None  # the same at the checkpoints of a training, one for each query: see trajectories

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in ("target", "others", "inside")}
        n, k = (*shapes["inside"], 0, 0)[:2]
        if shapes["target"][:1] != (n,) or shapes["others"] != (*shapes["target"], k) or len(shapes["others"]) != 3:
            raise ValueError(f"references: must be of shapes (n, q), (n, q, k) and (n, k), got {shapes}")

    @classmethod
    def of(cls, samples: Samples, target: str = "query_phi", others: str = "reference_phi") -> References:
        """From the columns of samples, phi from those of these names."""
        columns = samples.columns
        return cls(columns[target], columns[others], columns["reference_in"], columns.get("label"))

    def some(self, chosen: NDArray[np.int64]) -> References:
        """Of some references alone, (n_chosen,) columns, without their steps."""
        return References(self.target, self.others[:, :, chosen], self.inside[:, chosen], self.label)

    @property
    def n_references(self) -> int:
        """References, whether a sample is in them or not."""
        return self.inside.shape[1]

    def blocks(self) -> Iterator[tuple[slice, Floats, Bools]]:
        """Rows, their references' phi, (n, n_queries, n_references), and the IN of them, (n, 1, n_references)."""
        size = max(1, BLOCK_VALUES // max(1, self.others[:1].size))
        for start in range(0, len(self.target), size):
            rows = slice(start, start + size)
            yield rows, self.others[rows], self.inside[rows, np.newaxis, :] == 1

    def both(self, compute: Callable[[Floats, Bools], Floats]) -> tuple[Floats, Floats]:
        """Of the IN and of the OUT references what `compute` makes of values and which of them count.

        Args:
            compute: of (n, n_queries, n_references) and (n, 1, n_references) it makes (n, n_queries).

        Returns:
            Two arrays, (n_samples, n_queries) each.
        """
        found = np.empty((2, *self.target.shape))
        for rows, values, inside in self.blocks():
            found[0, rows], found[1, rows] = compute(values, inside), compute(values, ~inside)
        return found[0], found[1]

    def counts(self) -> tuple[Floats, Floats]:
        """How many references of each sample are IN, and OUT, (n_samples, 1) each."""
        n_in = (self.inside == 1).sum(axis=1, keepdims=True).astype(np.float64)
        return n_in, self.n_references - n_in


@dataclass(frozen=True)
class Side:
    """The references of each sample on one side; NaN where there is none."""

    n: Floats  # (n_samples, 1)
    centre: Floats  # (n_samples, n_queries) their mean, or median
    squares: Floats  # (n_samples, n_queries) the sum of squared differences to their mean

    def own_variance(self) -> Floats:
        """Of each sample, (n_samples, n_queries): divided by n as `numpy.std` does, at least LEAST_SD squared."""
        with np.errstate(invalid="ignore"):  # 0 / 0 where there is no reference
            return np.maximum(self.squares / self.n, LEAST_SD**2)

    def pooled_sums(self) -> tuple[Floats, float]:
        """Squared differences, (n_queries,), and their degrees of freedom, over all samples."""
        return np.nansum(self.squares, axis=0), float(np.maximum(self.n - 1, 0).sum())


def pooled_variances(side: Side, other: Side | None = None) -> tuple[Floats, Floats]:
    """Sum of squared residuals / sum of (n_i - 1) on each side, (n_queries,) each, at least LEAST_SD squared.

    A side of which no sample has two references takes the other's; without that, UNSEEN_VARIANCE.
    """
    (squares, free), (more_squares, more_free) = side.pooled_sums(), (other or side).pooled_sums()
    own = squares / free if free else None
    others = more_squares / more_free if more_free else own
    found = [others if own is None else own, own if others is None else others]
    nothing = np.full(side.squares.shape[1], UNSEEN_VARIANCE)
    first, second = (nothing if each is None else np.maximum(each, LEAST_SD**2) for each in found)
    return first, second


def sides(references: References, *, medians: bool = False) -> tuple[Side, Side]:
    """IN and OUT of every sample, with their means, or medians, as centres."""
    means = references.both(mean_of)
    squares = references.both(squares_of)
    centres = references.both(median_of) if medians else means
    both = [Side(*each) for each in zip(references.counts(), centres, squares, strict=True)]
    return both[0], both[1]


def mean_of(values: Floats, chosen: Bools) -> Floats:
    """Mean over the chosen of the last axis; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return np.where(chosen, values, 0.0).sum(axis=-1) / chosen.sum(axis=-1)


def squares_of(values: Floats, chosen: Bools) -> Floats:
    """Sum of squared differences to that mean; NaN where there are none."""
    mean = mean_of(values, chosen)
    squares = np.where(chosen, values - mean[..., np.newaxis], 0.0)
    return np.where(np.isnan(mean), np.nan, np.einsum("...k,...k", squares, squares))


def median_of(values: Floats, chosen: Bools) -> Floats:
    """Median over the chosen of the last axis; NaN where there are none."""
    ordered, n = np.sort(np.where(chosen, values, np.inf), axis=-1), chosen.sum(axis=-1, keepdims=True)
    middle = [np.take_along_axis(ordered, np.broadcast_to(k, (*ordered.shape[:-1], 1)), axis=-1)[..., 0]
              for k in (np.maximum(n - 1, 0) // 2, np.minimum(n // 2, values.shape[-1] - 1))]
    return np.where(n[..., 0] > 0, (middle[0] + middle[1]) / 2, np.nan)


@dataclass(frozen=True)
class Scores:
    """What an attack says of every sample and query, and of which samples it knew less than it needs."""

    values: Floats  # (n_samples, n_queries) finite, high for members
    offline: Bools  # (n_samples,) a side is missing: by the offline form of an online attack
    neutral: Bools  # (n_samples,) no OUT reference: it says nothing
    notes: Mapping[str, Any] = field(default_factory=dict)  # for the attack's provenance


def offline_scores(values: Floats, n_out: Floats, *, neutral: float = 0.0, **notes: Any) -> Scores:
    """Of an attack that needs OUT references alone; samples that have none get the neutral score.

    It is a score as an attacker has who must say something of every sample: to leave such samples out would compare
    attacks on different ones.

    Args:
        values: (n_samples, n_queries), whatever where there is no OUT reference.
        n_out: (n_samples, 1).
        neutral: what tells neither member nor non-member.
        notes: for the attack's provenance.
    """
    none = n_out < 1
    return Scores(np.where(none, neutral, values), np.zeros(len(values), dtype=bool), none[:, 0], notes)


def online_scores(values: Floats, fallback: Scores, complete: Bools) -> Scores:
    """Of an attack that needs IN and OUT: where a sample is not `complete`, (n_samples, 1), the offline form's."""
    scores, missing = np.where(complete, values, fallback.values), ~complete[:, 0]
    return Scores(scores, missing & ~fallback.neutral, missing & fallback.neutral, fallback.notes)
