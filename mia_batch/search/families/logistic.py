"""LR: Newton's method with a Cholesky factor goes along C and starts each fit at the optimum of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.linear_model import LogisticRegression

from mia_batch.samples import Fold
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.base import Family, fold_result, group_by
from mia_batch.search.families.stock import StockFamily, decide, fit_recorded, stock_families
from mia_batch.search.tasks import FIT_ERRORS

SHARED = ("C", "solver")
# These minimise one smooth, strictly convex function; liblinear penalises the intercept too, sag and saga stop far
# from the optimum on features of mixed scale. A grid over tol or max_iter asks about the solver: it gets its own fits.
SAME_OPTIMUM = ("lbfgs", "newton-cg", "newton-cholesky")
ABOUT_THE_SOLVER = ("tol", "max_iter", "dual", "intercept_scaling")
TOLERANCE = 1e-8  # of the mean loss's gradient; Newton's last step squares what was left
MAX_FEATURES = 2000  # the Hessian has n_features ** 2 entries
MAX_NEWTON_STEPS = 100


class LogisticFamily(StockFamily):
    """L2-penalised candidates that differ in C alone, or in solvers that reach the same optimum."""

    name = "LogisticFamily"

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        return len(self.candidates) * 4 * 5e-11 * n_rows * n_features * (n_features + 40)

    def run(self, fold: Fold, chunk: Any) -> dict[str, Any]:
        stock = [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]
        decisions: list[Any] = [None] * len(stock)
        nonconverged = [False] * len(stock)
        path: LogisticRegression | None = None
        for i in sorted(range(len(stock)), key=lambda i: stock[i].C):
            path = path or newton_path(stock[i])
            path.set_params(C=stock[i].C)
            if not decided(path, fold):  # separable rows, or a singular Hessian
                path = None
                decisions[i], nonconverged[i] = decide(stock[i], fold)
            else:
                decisions[i] = path.predict(fold.X_val)
        return fold_result(decisions, fold.y_val, nonconverged)


def decided(path: LogisticRegression, fold: Fold) -> bool:
    """Whether Newton's method has found the optimum; `path` is then fitted."""
    try:
        return not fit_recorded(path, fold.X_fit, fold.y_fit)
    except FIT_ERRORS:  # the stock fit comes next, and names its own error
        return False


def newton_path(model: LogisticRegression) -> LogisticRegression:
    """`model` with the solver that needs the fewest passes here; fits start where the last one ended."""
    path = LogisticRegression(**model.get_params())
    return path.set_params(solver="newton-cholesky", tol=TOLERANCE, max_iter=MAX_NEWTON_STEPS, warm_start=True)


def logistic_families(
    candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int, n_features: int
) -> list[Family]:
    """Families of the LR grid."""
    families: list[Family] = []
    for group in group_by(candidates, SHARED):
        sound = [(i, p) for i, p in group if n_features <= MAX_FEATURES and _is_smooth(p)]
        if sound:
            indices, members = zip(*sound, strict=True)
            families.append(LogisticFamily("lr", indices, members, seed))
        families += stock_families("lr", [pair for pair in group if pair not in sound], seed)
    return families


def _is_smooth(params: Mapping[str, Any]) -> bool:
    l2 = params.get("penalty", "l2") == "l2" and not params.get("l1_ratio")
    finite = params.get("C", 1.0) != float("inf")
    plain = not any(name in params for name in ABOUT_THE_SOLVER)
    return l2 and finite and plain and params.get("solver", "lbfgs") in SAME_OPTIMUM
