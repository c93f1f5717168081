"""Classifiers of features, chosen by a grid search: the attacks of MindArmour and of Shokri et al. 2017.

"Membership Inference Attacks Against Machine Learning Models", arXiv 1610.05820: members and non-members whose
membership is known fit a binary classifier of the network's outputs; it scores rows that it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import scipy
import sklearn

from mia_batch.attacks.base import AttackResult, AttackSettings, result_over_all_rows
from mia_batch.samples import Samples
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

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[str]:
        """What is wrong with a grid."""
        return check_grid(self.name, params)

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """The grid search's tasks, and the refit after them."""
        return self._search(samples, settings).tasks()

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The refitted model's scores, and how it was chosen."""
        search = self._search(samples, settings)
        choice = search.choice(results)
        scored = search.scored(choice, results)
        n_nonconverged = {"search": int(np.sum(choice.table["n_nonconverged"])), "final": int(scored.nonconverged)}
        return result_over_all_rows(
            self.name, samples, scored.scores, scored.predicted, best_params=choice.params,
            best_score=float(choice.table["mean_test_score"][choice.best]), cv_results=plain_columns(choice.table),
            provenance={**_provenance(search, choice), "n_nonconverged": n_nonconverged},
        )  # fmt: skip

    def _search(self, samples: Samples, settings: AttackSettings) -> GridSearch:
        return GridSearch(
            self.name, settings.params, samples, seed=settings.seed, search=settings.search, n_iter=settings.n_iter
        )


def _provenance(search: GridSearch, choice: Choice) -> dict[str, Any]:
    engines = sorted({family.engine for family in search.families}) or ["scikit-learn"]
    return {
        "search": search.search, "engine": " and ".join(engines), "final_engine": search.refit(choice).engine,
        "families": [f"{family.name} of {len(family.indices)}" for family in search.families],
        "seed": search.seed, "n_failed": len(choice.failures), "failures": list(choice.failures[:SHOWN_FAILURES]),
        "versions": {name: module.__version__ for name, module in MODULES.items()},
    }


LR, KNN, MLP, RF = (ClassifierAttack(name) for name in ("lr", "knn", "mlp", "rf"))
