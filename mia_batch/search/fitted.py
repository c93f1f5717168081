"""Attackers that are kept: the best candidate of a search, fitted, to score rows that come later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.base import ClassifierMixin

from mia_batch.samples import Part, Samples
from mia_batch.search.families.stock import fit_recorded
from mia_batch.search.grid_search import Choice, GridSearch, Results
from mia_batch.search.refit import Refit
from mia_batch.search.tasks import Task


@dataclass(frozen=True)
class Attacker:
    """A classifier of a model's answers, by stock scikit-learn.

    Attributes:
        method: lr, knn, mlp or rf.
        params: of the grid, the best.
        cv_score: their mean cross-validated accuracy.
        table: of all candidates, named as scikit-learn's.
        model: fitted on all rows; classes 1 member, 0 non-member.
        nonconverged: whether the fit did not converge.
    """

    method: str
    params: Mapping[str, Any]
    cv_score: float
    table: Mapping[str, Any]
    model: ClassifierMixin
    nonconverged: bool


def tasks(search: GridSearch) -> list[Task]:
    """The search, and then one fit of what it chooses; no row is scored."""
    searched = [task for task in search.tasks() if not task.after]
    fit = Task(
        f"{search.part.key}/fit", search.refit_seconds, _FitToCome(search),
        after=tuple(task.key for task in searched), kept=False,
    )  # fmt: skip
    return [*searched, fit]


def attacker(search: GridSearch, results: Results) -> Attacker:
    """The attacker, from the results of `tasks`.

    Raises:
        CannotEvaluate: no candidate could be fitted.
    """
    choice: Choice = search.choice(results)
    model, nonconverged = results[f"{search.part.key}/fit"]
    score = float(choice.table["mean_test_score"][choice.best])
    return Attacker(search.method, choice.params, score, choice.table, model, nonconverged)


@dataclass(frozen=True)
class _FitToCome:
    """The fit of the candidate that the search will choose."""

    search: GridSearch

    def given(self, results: Results) -> _Fit:
        """The fit of the best."""
        return _Fit(self.search.refit(self.search.choice(results)), self.search.part)


@dataclass(frozen=True)
class _Fit:
    """A fit on all rows that fit, as the work of a task."""

    refit: Refit
    part: Part

    def run(self, samples: Samples) -> tuple[ClassifierMixin, bool]:
        """The fitted estimator, and whether it did not converge."""
        view = samples.view(self.part)
        model = self.refit.build()
        return model, fit_recorded(model, *view.rows(view.split.fit))
