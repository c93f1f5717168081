"""One method on its way from a grid to a final fit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.search.estimators import candidates
from mia_batch.search.families.forest import forest_families
from mia_batch.search.families.logistic import logistic_families
from mia_batch.search.families.mlp import mlp_families
from mia_batch.search.families.neighbours import neighbour_families
from mia_batch.search.refit import FinalFit, Scored
from mia_batch.search.table import best_index, plain_columns, score_table
from mia_batch.search.tasks import FINAL, Family, FoldScore, Task
from mia_batch.workers.pool import Data, Done

if TYPE_CHECKING:
    from mia_batch.settings.schema import AttackConfig


class MethodRun:
    """One method on its way from families to a final fit."""

    def __init__(self, method: str, grid: Mapping[str, Sequence[Any]], data: Data, attack: AttackConfig) -> None:
        self.method, self.grid, self.attack = method, grid, attack
        self.shape = data.X_fit.shape
        self.candidates = candidates(grid)
        self.folds = [data.y_fit[data.fold_of == number] for number in range(attack.cv)]
        self.families: list[Family] = []
        self.search_tasks: list[Task] = []
        self.table: dict[str, Any] = {}
        self.chosen: int | None = None  # the candidate that the search has chosen
        self.started = time.time()
        self._found: dict[str, Any] = {}  # results of the search's tasks
        self._scored: dict[str, list[FoldScore]] = {}  # of families on folds, by their first task
        self._fitted: dict[str, Any] = {}  # results of final fits' tasks
        self._begun: set[int] = set()  # candidates whose final fit has begun
        self._trace: list[dict[str, Any]] = []

    @property
    def best(self) -> dict[str, Any]:
        """Parameters of the best candidate."""
        return dict(self.table["params"][best_index(self.table)])

    def open_search(self) -> None:
        """Make the families and their tasks: every piece of every family on every fold."""
        rows = self.shape[0] - max(len(fold) for fold in self.folds), self.shape[1]
        self.families = search_families(
            self.method, list(enumerate(self.candidates)), seed=self.attack.seed, n_fit=rows[0], n_features=rows[1]
        )
        self.search_tasks = [
            Task(key, family.cost(piece, *rows), self.method, fold, family, piece, then=self.final_seconds)
            for family in self.families for fold in range(len(self.folds))
            for key, piece in zip(self._keys(family, fold), family.pieces(), strict=True)
        ]

    @cached_property
    def final_seconds(self) -> float:
        """Estimated seconds of the longest task of any candidate's final fit."""
        return max(task.cost for index in range(len(self.candidates)) for task in self.tasks_of_final(index))

    @cached_property
    def final_work(self) -> float:
        """Estimated seconds of one core of any candidate's whole final fit."""
        return max(sum(task.cost for task in self.tasks_of_final(index)) for index in range(len(self.candidates)))

    def tasks_of_final(self, index: int) -> list[Task]:
        """The pieces of a candidate's fit on all fit rows; one that begins early precedes the search's tasks."""
        final = FinalFit(self.method, self.candidates[index], self.attack.seed)
        then = max((task.cost for task in self.search_tasks), default=0.0)
        keys = [f"{self.method}/final/{index}/{i}" for i in range(len(final.pieces()))]
        return [
            Task(key, final.cost(piece, *self.shape), self.method, FINAL, final, piece, then)
            for key, piece in zip(keys, final.pieces(), strict=True)
        ]

    def begin_final(self, index: int) -> list[Task]:
        """The same for a candidate that is or may be the best, once."""
        new = index not in self._begun
        self._begun.add(index)
        return self.tasks_of_final(index) if new else []

    @property
    def n_begun(self) -> int:
        """Candidates whose final fit has begun."""
        return len(self._begun)

    @cached_property
    def n_pieces(self) -> int:
        """The most tasks of a final fit."""
        return max(len(self.tasks_of_final(index)) for index in range(len(self.candidates)))

    def promising(self, *, at_once: int | None = None) -> int | None:
        """The candidate that is ahead in the folds that are there, of those whose final fit has not begun.

        Args:
            at_once: tasks of final fits that may begin; then None unless they are enough for this candidate even if all
                of which no fold is there yet come out ahead of it.
        """
        if len(self._begun) == len(self.candidates) or (at_once is not None and at_once < self.n_pieces):
            return None
        scores, _ = self._scores()
        n_known = np.isfinite(scores).sum(axis=1)
        waiting = ~np.isin(np.arange(len(self.candidates)), list(self._begun))
        enough = np.sum(waiting & (n_known == 0)) + np.any(waiting & (n_known > 0))
        if at_once is not None and at_once < enough * self.n_pieces:
            return None
        mean = np.nansum(scores, axis=1) / np.maximum(n_known, 1)  # 0 where nothing is known
        return int(np.argmax(np.where(waiting, mean, -1.0)))

    def take(self, key: str, result: Any) -> None:
        """Keep a task's result."""
        (self._fitted if key.startswith(f"{self.method}/final/") else self._found)[key] = result

    def record(self, done: Done) -> None:
        """Keep a task's times."""
        times = {"started": done.started - self.started, "seconds": done.seconds, "cpu_seconds": done.cpu_seconds}
        self._trace.append({"task": done.task.key, **times})

    @property
    def searched(self) -> bool:
        """Whether all tasks of the search have results."""
        return self.chosen is not None or len(self._found) == len(self.search_tasks)

    @property
    def finished(self) -> bool:
        """Whether the final fit is there."""
        return self.chosen is not None and all(t.key in self._fitted for t in self.tasks_of_final(self.chosen))

    def close_search(self) -> int:
        """Make the table, now that all families have their results; returns the candidate that it chooses."""
        self.table = score_table(self.candidates, *self._scores())
        self.chosen = best_index(self.table)
        self._found.clear()
        return self.chosen

    def _scores(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Accuracies, (n_candidates, n_folds), NaN where tasks are missing; folds not converged, (n_candidates,)."""
        scores = np.full((len(self.candidates), len(self.folds)), np.nan)
        n_nonconverged = np.zeros(len(self.candidates), dtype=np.int64)
        for family, fold in itertools.product(self.families, range(len(self.folds))):
            for index, score in zip(family.indices, self._fold_scores(family, fold), strict=False):
                scores[index, fold] = score.accuracy
                n_nonconverged[index] += score.nonconverged
        return scores, n_nonconverged

    def _fold_scores(self, family: Family, fold: int) -> list[FoldScore]:
        """A family's scores on a fold; empty where tasks are missing. Computed once: guesses ask again and again."""
        keys = self._keys(family, fold)
        if keys[0] not in self._scored and all(key in self._found for key in keys):
            self._scored[keys[0]] = family.scores([self._found[key] for key in keys], self.folds[fold])
        return self._scored.get(keys[0], [])

    def _keys(self, family: Family, fold: int) -> list[str]:
        return [f"{self.method}/{family.digest()}/{fold}/{i}" for i in range(len(family.pieces()))]

    def scored(self) -> Scored:
        """The final model's scores, now that all pieces are there."""
        assert self.chosen is not None
        tasks = self.tasks_of_final(self.chosen)
        final: FinalFit = tasks[0].work
        return final.combine([self._fitted.pop(task.key) for task in tasks])

    def result(
        self, scored: Scored, y: NDArray[np.int8], evaluated: NDArray[np.int64], *, n_jobs: int
    ) -> AttackResult:
        """Everything about this method, over all rows."""
        scores, predicted = np.full(len(y), np.nan), np.full(len(y), -1, dtype=np.int8)
        mask = np.zeros(len(y), dtype=bool)
        mask[evaluated] = True
        scores[evaluated], predicted[evaluated] = scored.scores, scored.predicted
        best = best_index(self.table)
        return AttackResult(
            method=self.method, scores=scores, predicted=predicted, evaluated=mask, member=y,
            best_params=self.best, best_score=float(self.table["mean_test_score"][best]),
            cv_results=plain_columns(self.table), provenance=self._provenance(scored, n_jobs),
        )

    def _provenance(self, scored: Scored, n_jobs: int) -> dict[str, Any]:
        attack, engines = self.attack, sorted({family.engine for family in self.families}) or ["scikit-learn"]
        return {
            "search": attack.search, "engine": " and ".join(engines),
            "final_engine": FinalFit(self.method, self.best, attack.seed).engine,
            "families": [f"{type(family).__name__} of {len(family.indices)}" for family in self.families],
            "seed": attack.seed, "eval_fraction": attack.eval_fraction, "cv": attack.cv, "features": attack.features,
            "backend": attack.backend, "n_jobs": n_jobs, "seconds": time.time() - self.started,
            "tasks": self._trace,
            "n_nonconverged": {
                "search": int(np.sum(self.table["n_nonconverged"])), "final": int(scored.nonconverged),
            },
            "versions": {
                "scikit-learn": sklearn.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
                "joblib": joblib.__version__,
            },
        }


def search_families(
    method: str, grid: Sequence[tuple[int, Mapping[str, Any]]], *, seed: int, n_fit: int, n_features: int
) -> list[Family]:
    """The families of a grid of numbered candidates: each is in exactly one.

    Args:
        n_fit: rows that fit in the smallest fold.
        n_features: columns of X.
    """
    if method == "rf":
        return forest_families(grid, seed)
    if method == "knn":
        return neighbour_families(grid, seed, n_fit)
    if method == "lr":
        return logistic_families(grid, seed, n_features)
    return mlp_families(grid, seed)
