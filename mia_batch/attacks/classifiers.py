"""Classifiers of features, chosen by a grid search: the attacks of MindArmour and of Shokri et al. 2017.

"Membership Inference Attacks Against Machine Learning Models", arXiv 1610.05820: members and non-members whose
membership is known fit a binary classifier of the network's outputs; it scores rows that it has not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import scipy
import sklearn

from mia_batch.attacks.base import AttackResult, AttackSettings, result_over_all_rows
from mia_batch.errors import Problem
from mia_batch.samples import Part, Samples
from mia_batch.search.estimators import check_grid
from mia_batch.search.grid_search import Choice, GridSearch
from mia_batch.search.table import plain_columns
from mia_batch.search.tasks import Task

SHOWN_FAILURES = 20
MODULES = {"scikit-learn": sklearn, "numpy": np, "scipy": scipy, "joblib": joblib}


@dataclass(frozen=True)
class ClassifierAttack:
    """One classifier, named as in `search.estimators.METHODS`."""

    name: str
    needs = frozenset({"member", "features"})

    @property
    def method(self) -> str:
        """The classifier, as a stack has it too."""
        return self.name

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """What is wrong with a grid."""
        return check_grid(self.name, params)

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """On each split the grid search's tasks, and the refit after them."""
        return [task for search in self._searches(samples, settings) for task in search.tasks()]

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The refitted models' scores, and how they were chosen."""
        searches = self._searches(samples, settings)
        choices = [search.choice(results) for search in searches]
        scored = [search.scored(choice, results) for search, choice in zip(searches, choices, strict=True)]
        n_nonconverged = {
            "search": sum(int(np.sum(choice.table["n_nonconverged"])) for choice in choices),
            "final": sum(int(each.nonconverged) for each in scored),
        }
        return result_over_all_rows(
            self.name, samples, [(each.scores, each.predicted) for each in scored], best_params=_most_chosen(choices),
            best_score=float(np.mean([choice.table["mean_test_score"][choice.best] for choice in choices])),
            cv_results=_tables(choices),
            provenance={**_provenance(searches, choices), "n_nonconverged": n_nonconverged},
        )

    def _searches(self, samples: Samples, settings: AttackSettings) -> list[GridSearch]:
        return [
            GridSearch(
                self.name, settings.params, samples, seed=settings.seed, search=settings.search, n_iter=settings.n_iter,
                part=part,
            )
            for part in parts(self.name, samples)
        ]


def parts(key: str, samples: Samples, matrix: str = "features") -> list[Part]:
    """A matrix with each split of the samples. With one split alone the keys of its tasks have no number."""
    numbers = range(len(samples.splits))
    return [Part(key if len(numbers) == 1 else f"{key}/{number}", matrix, number) for number in numbers]


def _most_chosen(choices: Sequence[Choice]) -> dict[str, Any]:
    """The candidate that most splits have chosen, the first of several."""
    rows = Counter(choice.best for choice in choices)
    return next(choice.params for choice in choices if choice.best == rows.most_common(1)[0][0])


def _tables(choices: Sequence[Choice]) -> dict[str, list[Any]]:
    """The searches' tables one under the other; of several, the column `split` says which search a row is of."""
    tables = [plain_columns(choice.table) for choice in choices]
    if len(tables) == 1:
        return tables[0]
    numbers = [number for number, choice in enumerate(choices) for _ in choice.table["params"]]
    return {name: [value for table in tables for value in table[name]] for name in tables[0]} | {"split": numbers}


def _provenance(searches: Sequence[GridSearch], choices: Sequence[Choice]) -> dict[str, Any]:
    search, failures = searches[0], [failure for choice in choices for failure in choice.failures]
    engines = sorted({family.engine for family in search.families}) or ["scikit-learn"]
    refits = {each.refit(choice).engine for each, choice in zip(searches, choices, strict=True)}
    several = {"chosen": [choice.params for choice in choices]} if len(choices) > 1 else {}
    return {
        "search": search.search, "engine": " and ".join(engines), "final_engine": " and ".join(sorted(refits)),
        "families": [f"{family.name} of {len(family.indices)}" for family in search.families],
        "seed": search.seed, "n_failed": len(failures), "failures": failures[:SHOWN_FAILURES], **several,
        "versions": {name: module.__version__ for name, module in MODULES.items()},
    }


LR, KNN, MLP, RF, HGB = (ClassifierAttack(name) for name in ("lr", "knn", "mlp", "rf", "hgb"))
