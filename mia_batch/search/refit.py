"""The refit: stock scikit-learn fits the best parameters on all rows that fit, and scores rows that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from mia_batch.samples import Part, Samples, View
from mia_batch.search.estimators import METHODS
from mia_batch.search.families import forest
from mia_batch.search.families.stock import fit_recorded, fit_seconds

BLOCK_VALUES = 1 << 24  # of features that are scored at a time: what a model makes of them takes several times as much


@dataclass(frozen=True)
class Scored:
    """What the refitted model says of the rows that are scored."""

    scores: NDArray[np.float64]  # (n_eval,) P(member)
    predicted: NDArray[np.int8]  # (n_eval,) 0 or 1
    nonconverged: bool


@dataclass(frozen=True)
class Refit:
    """A fit of `method` with `params` that anyone can repeat with scikit-learn; a forest is cut by trees."""

    method: str
    params: Mapping[str, Any]
    seed: int

    def build(self) -> ClassifierMixin:
        """The stock estimator, not fitted."""
        return METHODS[self.method].build(self.params, seed=self.seed)

    @property
    def engine(self) -> str:
        """What computes the fit; each fit compares a compiled tree with scikit-learn's."""
        return "compiled" if self.method == "rf" and forest.compiles(self.build()) else "scikit-learn"

    def chunks(self) -> list[Any]:
        """Ranges of trees of a forest, else the whole fit."""
        return list(forest.tree_ranges([self.build().n_estimators])) if self.method == "rf" else [None]

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        """Estimated seconds of one core."""
        if self.method == "rf":
            return forest.growing_seconds(self.build(), chunk[1] - chunk[0], n_rows, n_features)
        return fit_seconds(self.method, n_rows, n_features)

    def run(self, view: View, chunk: Any) -> Any:
        """Fit on all rows that fit: the votes of a range of trees, of very many rows their sum; else Scored."""
        model, split = self.build(), view.split
        (X, y), X_eval = view.rows(split.fit), view.scored()
        if chunk is not None:
            many = 2 * len(X_eval) * model.n_estimators > BLOCK_VALUES
            return (forest.summed_votes if many else forest.tree_votes)(model, X, y, X_eval, chunk)
        nonconverged = fit_recorded(model, X, y)
        size = max(1, BLOCK_VALUES // X_eval.shape[1])
        blocks = [X_eval[first : first + size] for first in range(0, len(X_eval), size)]
        scores = np.concatenate([model.predict_proba(block)[:, 1] for block in blocks])
        predicted = np.concatenate([model.predict(block).astype(np.int8) for block in blocks])
        return Scored(scores, predicted, nonconverged)

    def combine(self, results: Sequence[Any]) -> Scored:
        """The scored rows, from the results of all chunks in order."""
        if self.method != "rf":
            scored: Scored = results[0]
            return scored
        summed = isinstance(results[0], forest.VoteSum)
        probability = (forest.summed_probabilities if summed else forest.forest_probabilities)(results)
        return Scored(probability[:, 1].copy(), probability.argmax(axis=1).astype(np.int8), False)


@dataclass(frozen=True)
class RefitChunk:
    """One chunk of a refit, as the work of a task."""

    refit: Refit
    chunk: Any
    part: Part

    def run(self, samples: Samples) -> Any:
        """See Refit.run."""
        return self.refit.run(samples.view(self.part), self.chunk)
