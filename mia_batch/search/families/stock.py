"""Stock scikit-learn: one candidate at a time, the final fit, and its own three searches for reference."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (importing it is how halving is enabled)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV

from mia_batch.search.estimators import METHODS, n_candidates
from mia_batch.search.tasks import Family, Fold, fold_result

# Of one core per row and feature, each row with as many features more; only the proportions matter.
SECONDS_PER_VALUE = {"lr": 1e-7, "knn": 3e-7, "mlp": 1.2e-5, "rf": 2e-5}
MORE_FEATURES = 16


def fit_seconds(method: str, n_rows: int, n_features: int) -> float:
    """Estimated seconds of one core for a fit by scikit-learn."""
    return SECONDS_PER_VALUE[method] * n_rows * (n_features + MORE_FEATURES)


@contextmanager
def recorded_convergence() -> Iterator[list[str]]:
    """Collect ConvergenceWarnings instead of printing each; other warnings pass through."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            found.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def fit_recorded(model: ClassifierMixin, X: NDArray[Any], y: NDArray[Any]) -> bool:
    """Fit `model` in place; returns whether it failed to converge."""
    with recorded_convergence() as found:
        model.fit(X, y)
    return bool(found)


class StockFamily(Family):
    """Candidates that share nothing: scikit-learn's own estimator is fitted for each."""

    def cost(self, piece: Any, n_rows: int, n_features: int) -> float:
        return len(self.candidates) * fit_seconds(self.method, n_rows, n_features)

    def run(self, fold: Fold, piece: Any) -> dict[str, Any]:
        predicted, nonconverged = [], []
        for params in self.candidates:
            model = METHODS[self.method].build(params, seed=self.seed)
            nonconverged.append(fit_recorded(model, fold.X_fit, fold.y_fit))
            predicted.append(model.predict(fold.X_val))
        return fold_result(predicted, fold.y_val, nonconverged)


def stock_families(method: str, candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Family]:
    """A family for each candidate."""
    return [StockFamily(method, (index,), (params,), seed) for index, params in candidates]


class CountingConvergence(ClassifierMixin, BaseEstimator):
    """Fits `estimator` and notes in `nonconverged_` whether it warned, which a search would lose with its workers."""

    def __init__(self, estimator: ClassifierMixin) -> None:
        self.estimator = estimator

    def fit(self, X: NDArray[Any], y: NDArray[Any]) -> CountingConvergence:
        """Fit a clone."""
        self.model_ = clone(self.estimator)
        self.nonconverged_ = fit_recorded(self.model_, X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """The clone's decisions."""
        return self.model_.predict(X)


def _accuracy_and_convergence(model: CountingConvergence, X: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    return {"score": float(np.mean(model.predict(X) == y)), "nonconverged": float(model.nonconverged_)}


def stock_search(
    search: str, method: str, grid: Mapping[str, Sequence[Any]], X: NDArray[Any], y: NDArray[Any],
    *, cv: int, seed: int, n_iter: int, n_jobs: int,
) -> dict[str, Any]:
    """scikit-learn's own search, `exact`, `random` or `halving`, over one grid.

    Returns:
        Its `cv_results_`, the parameters without prefix, and a column `n_nonconverged`.
    """
    model = CountingConvergence(METHODS[method].build({}, seed=seed))
    space = {f"estimator__{name}": list(values) for name, values in grid.items()}
    common = {"cv": cv, "n_jobs": n_jobs, "refit": False, "error_score": "raise"}
    if search == "halving":
        # Its rounds score by one number; convergence is counted in the final fit alone.
        found = HalvingGridSearchCV(model, space, scoring="accuracy", random_state=seed, **common).fit(X, y).cv_results_
        return _columns(found, np.zeros(len(found["params"])))
    common |= {"scoring": _accuracy_and_convergence}
    if search == "random":
        tried = min(n_iter, n_candidates(grid))
        chosen = RandomizedSearchCV(model, space, n_iter=tried, random_state=seed, **common).fit(X, y)
    else:
        chosen = GridSearchCV(model, space, **common).fit(X, y)
    return _columns(chosen.cv_results_, chosen.cv_results_["mean_test_nonconverged"] * cv)


def _columns(found: Mapping[str, Any], n_nonconverged: NDArray[Any]) -> dict[str, Any]:
    kept = {name: column for name, column in found.items() if name in ("iter", "n_resources")}
    scores = {
        name: column for name, column in found.items()
        if name.endswith("_test_score") and name.startswith(("mean", "std", "rank", "split"))
    }
    params = [{name.removeprefix("estimator__"): value for name, value in p.items()} for p in found["params"]]
    return {"params": params, **scores, **kept, "n_nonconverged": np.rint(n_nonconverged).astype(int)}
