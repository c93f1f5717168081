"""How an attack does with fewer references than there are: whether more of them would find more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.inclusion import complements
from mia_batch.attacks.sides import References
from mia_batch.metrics.base import Effects
from mia_batch.metrics.ranking import fpr_name
from mia_batch.metrics.registry import evaluate

OVER_REFERENCES = "over_references"  # in the provenance of attacks that have such a curve
MEASURES = ("auc", fpr_name(0.01))
N_SIZES = 6  # of two and more


def reference_sizes(n_references: int) -> list[int]:
    """One, and up to six even numbers evenly on a logarithmic axis up to all, ascending: 1, 2, 4, ..., 64 of 64."""
    if n_references < 2:
        return [n_references]
    even = 2 * np.round(np.geomspace(2, n_references, N_SIZES) / 2)
    return sorted({1, n_references, *(int(size) for size in even if size < n_references)})


def reference_order(inside: NDArray[np.int8], *, seed: int) -> NDArray[np.int64]:
    """All references in a drawn order, those that are each other's complement one behind the other, pairs first.

    Args:
        inside: (n_samples, n_references).
        seed: of the order.

    Returns:
        Columns, (n_references,); the first k of them are the smaller sets.
    """
    rng, pairs = np.random.default_rng(seed), complements(inside)
    order: list[int] = []
    for number in rng.permutation(len(pairs)):
        if not set(pairs[number]) & set(order):
            order += pairs[number]
    alone = np.setdiff1d(np.arange(inside.shape[1]), order)
    return np.concatenate([np.array(order, dtype=np.int64), rng.permutation(alone)])


def fewer_references(references: References, *, seed: int) -> Iterator[tuple[int, References]]:
    """Ever larger nested sets of references, the last one all of them as they are, with their numbers."""
    order = reference_order(references.inside, seed=seed)
    for size in reference_sizes(references.n_references):
        yield size, references if size == references.n_references else references.some(order[:size])


def point(size: int, member: NDArray[np.int8], scores: NDArray[np.float64], effects: Effects) -> dict[str, Any] | None:
    """What the summary says of so many references; None where a measure has no value.

    Args:
        size: references.
        member: of the samples that are scored, (n,).
        scores: likewise.
        effects: how many of them count as one.
    """
    found = evaluate(member, np.zeros_like(member), scores, names=MEASURES, effects=effects)
    if not all(each.defined for each in found.values()):
        return None
    return {"n_references": size, "metrics": {name: dict(vars(each)) for name, each in found.items()}}
