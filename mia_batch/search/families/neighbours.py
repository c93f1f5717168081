"""KNN: one search of the neighbours for the largest k serves every k and both weightings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.samples import Fold
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.base import Family, fold_result, group_by
from mia_batch.search.families.stock import StockFamily, decide, stock_families

SHARED = ("n_neighbors", "weights")
WEIGHTS = ("uniform", "distance")
SECONDS_PER_PRODUCT = 4e-10  # of one core, per fit row, validation row and feature


class NeighbourFamily(StockFamily):
    """Candidates that differ in `n_neighbors` and `weights` alone.

    The k nearest of a row are the first k of its k_max nearest, unless the k-th and the next are equally far. Which of
    the two scikit-learn keeps depends on k, so such a k is fitted by itself.
    """

    name = "NeighbourFamily"

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        return SECONDS_PER_PRODUCT * n_rows * n_rows * n_features / 2

    def run(self, fold: Fold, chunk: Any) -> dict[str, Any]:
        models = [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]
        largest = max(models, key=lambda model: model.n_neighbors).fit(fold.X_fit, fold.y_fit)
        distances, nearest = largest.kneighbors(fold.X_val)
        member = fold.y_fit[nearest]
        decisions = []
        for model in models:
            k = model.n_neighbors
            if k < distances.shape[1] and np.any(distances[:, k - 1] == distances[:, k]):
                decisions.append(decide(model, fold)[0])
            else:
                decisions.append(vote(distances[:, :k], member[:, :k], model.weights))
        return fold_result(decisions, fold.y_val, [False] * len(models))


def vote(distances: NDArray[np.floating], member: NDArray[np.int8], weights: str) -> NDArray[np.int8]:
    """KNeighborsClassifier's decision, from the neighbours; a tie means non-member.

    Args:
        distances: to the k nearest, ascending, shape (n_rows, k), >= 0.
        member: 0 or 1 for each of them, shape (n_rows, k).
        weights: "uniform", or "distance": 1 / distance; a row that coincides with neighbours counts these alone.
    """
    if weights == "uniform":
        return (2 * member.sum(axis=1, dtype=np.int64) > member.shape[1]).astype(np.int8)
    with np.errstate(divide="ignore"):
        weight = 1.0 / distances
    coincides = np.isinf(weight)
    rows = coincides.any(axis=1)
    weight[rows] = coincides[rows]
    for_member, against = (np.sum(weight * (member == side), axis=1) for side in (1, 0))
    return (for_member > against).astype(np.int8)


def neighbour_families(candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int, n_fit: int) -> list[Family]:
    """Families of the KNN grid for folds with `n_fit` rows to fit.

    `algorithm: auto` changes from trees to brute force at k = n_fit // 2, so candidates on both sides share nothing.
    """
    families: list[Family] = []
    for group in group_by(candidates, SHARED):
        for small in (True, False):
            half = [(i, p) for i, p in group if (_n_neighbors(p) < n_fit // 2) == small]
            sound = [(i, p) for i, p in half if p.get("weights", "uniform") in WEIGHTS]
            if sound:
                indices, members = zip(*sound, strict=True)
                families.append(NeighbourFamily("knn", indices, members, seed))
            families += stock_families("knn", [pair for pair in half if pair not in sound], seed)
    return families


def _n_neighbors(params: Mapping[str, Any]) -> int:
    return int(METHODS["knn"].build(params, seed=0).n_neighbors)
