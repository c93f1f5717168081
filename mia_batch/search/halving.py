"""scikit-learn's own successive halving over one grid, as the work of one task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (importing it is how halving is enabled)
from sklearn.model_selection import HalvingGridSearchCV

from mia_batch.samples import Part, Samples
from mia_batch.search.estimators import METHODS
from mia_batch.search.table import listed

KEPT = ("params", "mean_test_score", "std_test_score", "rank_test_score", "iter", "n_resources")


@dataclass(frozen=True)
class Halving:
    """Candidates compete in rounds, on more rows each time; scores of different rounds are not comparable."""

    method: str
    grid: Mapping[str, Sequence[Any]]
    seed: int
    part: Part

    def run(self, samples: Samples) -> dict[str, Any]:
        """The search's `cv_results_` as lists."""
        view = samples.view(self.part)
        X, y = view.rows(view.split.fit)
        search = HalvingGridSearchCV(
            METHODS[self.method].build({}, seed=self.seed), {name: list(values) for name, values in self.grid.items()},
            cv=view.split.n_folds, scoring="accuracy", random_state=self.seed, refit=False, return_train_score=False,
        )  # fmt: skip
        with warnings.catch_warnings():
            # Its rounds score by one number: convergence is counted in the refit alone, and a failed fit scores NaN.
            for kind in (ConvergenceWarning, FitFailedWarning):
                warnings.simplefilter("ignore", kind)
            warnings.filterwarnings("ignore", "One or more of the test scores are non-finite", UserWarning)
            found = search.fit(X, y).cv_results_
        splits = [name for name in found if name.startswith("split") and name.endswith("_test_score")]
        nonconverged = np.zeros(len(found["params"]), dtype=int)
        return listed({name: found[name] for name in (*KEPT, *splits)} | {"n_nonconverged": nonconverged})
