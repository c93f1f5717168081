"""Candidates that share nothing: stock scikit-learn fits them one by one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning

from mia_batch.errors import one_line
from mia_batch.samples import Fold
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.base import Family, fold_result
from mia_batch.search.tasks import FIT_ERRORS

# Of one core, per row and feature, with MORE_FEATURES added to the features; only the proportions matter.
SECONDS_PER_VALUE = {"lr": 1e-7, "knn": 3e-7, "mlp": 1.2e-5, "rf": 2e-5, "hgb": 1e-6}
MORE_FEATURES = 16


def fit_seconds(method: str, n_rows: int, n_features: int) -> float:
    """Estimated seconds of one core for a fit by scikit-learn."""
    return SECONDS_PER_VALUE[method] * n_rows * (n_features + MORE_FEATURES)


@contextmanager
def recorded_convergence() -> Iterator[list[str]]:
    """Collect the texts of ConvergenceWarnings; other warnings pass through."""
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
    """Fit `model` in place; returns whether it did not converge."""
    with recorded_convergence() as found:
        model.fit(X, y)
    return bool(found)


def decide(model: ClassifierMixin, fold: Fold) -> tuple[NDArray[Any] | str, bool]:
    """A model's decisions on the validation rows, or why its fit failed, and whether it did not converge."""
    try:
        nonconverged = fit_recorded(model, fold.X_fit, fold.y_fit)
        return model.predict(fold.X_val), nonconverged
    except FIT_ERRORS as error:
        return one_line(error), False


class StockFamily(Family):
    """One candidate or several that share nothing; scikit-learn's estimator is fitted for each."""

    name = "StockFamily"

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        return len(self.candidates) * fit_seconds(self.method, n_rows, n_features)

    def run(self, fold: Fold, chunk: Any) -> dict[str, Any]:
        models = [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]
        decisions, nonconverged = zip(*(decide(model, fold) for model in models), strict=True)
        return fold_result(decisions, fold.y_val, nonconverged)


def stock_families(method: str, candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Family]:
    """A family for each candidate."""
    return [StockFamily(method, (index,), (params,), seed) for index, params in candidates]
