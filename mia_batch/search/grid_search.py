"""The grid search of one method: the tasks of its candidates, their table of scores, and the refit of the best."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterSampler

from mia_batch.samples import Part, Samples
from mia_batch.search.estimators import candidates, n_candidates
from mia_batch.search.families.base import Family, FoldFit, FoldScore, fold_scores
from mia_batch.search.families.forest import forest_families
from mia_batch.search.families.logistic import logistic_families
from mia_batch.search.families.mlp import mlp_families
from mia_batch.search.families.neighbours import neighbour_families
from mia_batch.search.families.stock import fit_seconds, stock_families
from mia_batch.search.halving import Halving
from mia_batch.search.refit import Refit, RefitChunk, Scored
from mia_batch.search.table import best_index, score_table
from mia_batch.search.tasks import CannotEvaluate, Task

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """The candidate that a search chooses."""

    table: Mapping[str, Any]
    best: int  # its row
    failures: tuple[str, ...]  # a phrase for each fit that failed; its candidate scores NaN

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the best candidate."""
        return dict(self.table["params"][self.best])


class GridSearch:
    """One method's search over a grid. It makes the tasks, and is given their results."""

    def __init__(
        self, method: str, grid: Mapping[str, Sequence[Any]], samples: Samples, *, seed: int, search: str = "shared",
        n_iter: int = 10, part: Part | None = None,
    ) -> None:
        """Make the families, without fitting anything.

        Args:
            method: a name of `estimators.METHODS`.
            grid: the distinct values of each parameter.
            samples: some of whose rows fit.
            seed: of the estimators, and of a random search's draws.
            search: shared, exact, random or halving.
            n_iter: candidates of a random search.
            part: of the samples; None for their features and first split.
        """
        self.method, self.grid, self.seed, self.search = method, grid, seed, search
        self.part = part or Part(method)
        self._samples = samples
        view = samples.view(self.part)
        split = view.split
        self.n_features, self.n_fit = view.X.shape[1], len(split.fit)
        validation = [split.fit[split.fold_of == number] for number in range(split.n_folds)]
        self.y_val = [view.member[rows] for rows in validation]
        self.n_train = self.n_fit - max(map(len, validation))
        self.candidates = candidates(grid)
        if search == "random":
            space = {name: list(values) for name, values in grid.items()}
            tried = min(n_iter, n_candidates(grid))
            self.candidates = [dict(params) for params in ParameterSampler(space, tried, random_state=seed)]
        self.families = self._make_families()

    def _make_families(self) -> list[Family]:
        """Families that hold each candidate once; none for halving, which scikit-learn does itself."""
        numbered = list(enumerate(self.candidates))
        if self.search == "shared":
            return search_families(
                self.method, numbered, seed=self.seed, n_fit=self.n_train, n_features=self.n_features
            )
        return [] if self.search == "halving" else stock_families(self.method, numbered, self.seed)

    def tasks(self) -> list[Task]:
        """Every chunk of every family on every fold, then the chunks of the refit, which wait for all of those."""
        search = self._search_tasks()
        return [*search, *self._refit_tasks(tuple(task.key for task in search))]

    def _search_tasks(self) -> list[Task]:
        rows = self.n_train, self.n_features
        if self.search == "halving":
            cost = n_candidates(self.grid) * len(self.y_val) * fit_seconds(self.method, *rows)
            work = Halving(self.method, self.grid, self.seed, self.part)
            return [Task(f"{self.part.key}/halving", cost, work, then=self.refit_seconds, kept=False)]
        return [
            Task(
                key, family.cost(chunk, *rows), FoldFit(family, fold, chunk, self.part), then=self.refit_seconds,
                memory=family.memory(self.n_fit, self.n_features), preload=family.preload,
            )
            for family in self.families for fold in range(len(self.y_val))
            for key, chunk in zip(self._keys(family, fold), family.chunks(), strict=True)
        ]  # fmt: skip

    def _refit_tasks(self, search: tuple[str, ...]) -> list[Task]:
        """A task for each chunk of the largest refit of any candidate; the chosen candidate may need fewer."""
        return [
            Task(f"{self.part.key}/refit/{i}", cost, _RefitToCome(self, i), after=search, kept=False)
            for i, cost in enumerate(self._refit_costs)
        ]

    @cached_property
    def _refit_costs(self) -> list[float]:
        """Estimated seconds of each chunk of the costliest refit."""
        refits = [Refit(self.method, params, self.seed) for params in self.candidates]
        costs = [[refit.cost(chunk, self.n_fit, self.n_features) for chunk in refit.chunks()] for refit in refits]
        return [max(chunk) for chunk in itertools.zip_longest(*costs, fillvalue=0.0)]

    @property
    def refit_seconds(self) -> float:
        """Estimated seconds of the longest task of any candidate's refit."""
        return max(self._refit_costs)

    def _keys(self, family: Family, fold: int) -> list[str]:
        return [f"{self.part.key}/{family.digest()}/{fold}/{i}" for i in range(len(family.chunks()))]

    def choice(self, results: Results) -> Choice:
        """The table of all candidates, and the best of them.

        Raises:
            CannotEvaluate: no candidate could be fitted.
        """
        if self.search == "halving":
            table: Mapping[str, Any] = results[f"{self.part.key}/halving"]
            means = zip(table["params"], table["mean_test_score"], table["iter"], strict=True)
            failures = tuple(f"{params} in round {number}" for params, mean, number in means if np.isnan(mean))
        else:
            table, failures = self._table(results)
        best = best_index(table)
        if best is None:
            raise CannotEvaluate(f"{self.method}: no candidate could be fitted: {', '.join(failures[:1])}")
        return Choice(table, best, failures)

    def _table(self, results: Results) -> tuple[dict[str, Any], tuple[str, ...]]:
        scores = np.full((len(self.candidates), len(self.y_val)), np.nan)
        n_nonconverged = np.zeros(len(self.candidates), dtype=np.int64)
        failures = []
        for index, fold, score in self._scores(results):
            scores[index, fold] = score.accuracy
            n_nonconverged[index] += score.nonconverged
            if score.failure:
                failures.append(f"{self.candidates[index]} on fold {fold}: {score.failure}")
        return score_table(self.candidates, scores, n_nonconverged), tuple(failures)

    def _scores(self, results: Results) -> list[tuple[int, int, FoldScore]]:
        """(candidate, fold, score) of each candidate on each fold."""
        return [
            (index, fold, score)
            for family in self.families for fold, y_val in enumerate(self.y_val)
            for index, score in zip(
                family.indices,
                fold_scores(family, [results[key] for key in self._keys(family, fold)], y_val), strict=True,
            )
        ]  # fmt: skip

    def refit(self, choice: Choice) -> Refit:
        """The fit of the best candidate on all rows that fit."""
        return Refit(self.method, choice.params, self.seed)

    def scored(self, choice: Choice, results: Results) -> Scored:
        """What the refitted model says of the rows that are scored."""
        refit, view = self.refit(choice), self._samples.view(self.part)
        found = refit.combine([results[f"{self.part.key}/refit/{i}"] for i in range(len(refit.chunks()))])
        scores, predicted = view.of_evaluated(found.scores), view.of_evaluated(found.predicted)
        return Scored(scores, predicted, found.nonconverged)


@dataclass(frozen=True)
class _RefitToCome:
    """A chunk of the refit of the candidate that the search will choose."""

    search: GridSearch
    number: int

    def given(self, results: Results) -> RefitChunk | None:
        """The chunk, or None if the refit of the chosen candidate has fewer chunks."""
        refit = self.search.refit(self.search.choice(results))
        chunks = refit.chunks()
        return RefitChunk(refit, chunks[self.number], self.search.part) if self.number < len(chunks) else None


def search_families(
    method: str, grid: Sequence[tuple[int, Mapping[str, Any]]], *, seed: int, n_fit: int, n_features: int
) -> list[Family]:
    """The families of a grid of numbered candidates; each candidate is in exactly one.

    Args:
        method: a name of `estimators.METHODS`.
        grid: the candidates and their numbers.
        seed: of the estimators.
        n_fit: rows that fit in the smallest fold.
        n_features: columns of the features.
    """
    makers = {
        "lr": lambda: logistic_families(grid, seed, n_features),
        "knn": lambda: neighbour_families(grid, seed, n_fit),
        "mlp": lambda: mlp_families(grid, seed),
        "rf": lambda: forest_families(grid, seed),
        "hgb": lambda: stock_families(method, grid, seed),
    }
    return makers[method]()
