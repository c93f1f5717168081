"""One contestant on given rows, in this process: `python contestants.py NAME ROWS.npz SETTINGS.json RESULT.json`.

stock       scikit-learn's GridSearchCV, method after method
mindarmour  the attacker of PyPI's mindarmour: seven random candidates for RF, GridSearchCV for the others
shared      this project's engine
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from process_tree import cpu_seconds
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from mia_batch.attacks.split import make_splits
from mia_batch.search.estimators import METHODS
from mia_batch.settings.schema import AttackConfig, MethodConfig
from mia_batch.stages.attack import make_samples, run_attacks


class Kept(dict):  # type: ignore[type-arg]
    """A journal in memory."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        self[key] = value


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": cpu_seconds() - self._cpu}


def _task_seconds(table: dict[str, Any]) -> np.ndarray:
    """Of one fold of each candidate, (n_candidates,)."""
    return np.asarray(table["mean_fit_time"]) + np.asarray(table["mean_score_time"])


def by_searches(
    search: Callable[[MethodConfig, np.ndarray, np.ndarray], Any], X: np.ndarray, y: np.ndarray, attack: AttackConfig
) -> dict[str, Any]:
    """Method after method by scikit-learn's own search objects, refit included."""
    (split,) = make_splits(y, **attack.splitting())
    fit, evaluated = split.fit, split.evaluated
    methods, whole = {}, Stopwatch()
    for method in attack.methods:
        watch = Stopwatch()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the engine counts them; its results say how many
            found = search(method, X[fit], y[fit])
        methods[method.method] = {
            **watch.read(), "best_params": found.best_params_, "best_score": found.best_score_,
            "n_right": int(np.sum(found.predict(X[evaluated]) == y[evaluated])),
            "scores": np.asarray(found.cv_results_["mean_test_score"]).tolist(),
            "task_seconds": np.repeat(_task_seconds(found.cv_results_), attack.cv).tolist(),
            "refit_seconds": found.refit_time_,
        }
    return {**whole.read(), "methods": methods, "n_eval": len(evaluated)}


def stock(X: np.ndarray, y: np.ndarray, attack: AttackConfig, n_jobs: int) -> dict[str, Any]:
    """GridSearchCV as anyone would call it."""

    def search(method: MethodConfig, X_fit: np.ndarray, y_fit: np.ndarray) -> Any:
        model = METHODS[method.method].build({}, seed=attack.seed)
        grid = {name: list(values) for name, values in method.params.items()}
        return GridSearchCV(model, grid, cv=attack.cv, n_jobs=n_jobs).fit(X_fit, y_fit)

    return by_searches(search, X, y, attack)


def mindarmour(X: np.ndarray, y: np.ndarray, attack: AttackConfig, n_jobs: int) -> dict[str, Any]:
    """The function behind MembershipInference.train, which cannot be given features."""
    from mindarmour.privacy.evaluation.attacker import _get_attack_model

    def search(method: MethodConfig, X_fit: np.ndarray, y_fit: np.ndarray) -> Any:
        grid = {name: list(values) for name, values in method.params.items()}
        return _get_attack_model(X_fit, y_fit, {"method": method.method, "params": grid}, n_jobs)

    return by_searches(search, X, y, attack)


def shared(X: np.ndarray, y: np.ndarray, attack: AttackConfig, n_jobs: int) -> dict[str, Any]:
    """The engine."""
    watch, journal = Stopwatch(), Kept()
    results = run_attacks(make_samples(y, attack, features=X), attack, n_jobs=n_jobs, journal=journal)
    taken = watch.read()
    methods = {
        name: {
            "cpu_seconds": sum(task["cpu_seconds"] for task in result.provenance["tasks"]),
            "best_params": result.best_params, "best_score": result.best_score,
            "n_right": int(np.sum(result.predicted[result.evaluated] == y[result.evaluated])),
            "scores": result.cv_results["mean_test_score"], "engine": result.provenance["engine"],
            "tasks": result.provenance["tasks"], "n_workers": result.provenance["n_jobs"],
        }
        for name, result in results.items()
    }
    n_eval = int(next(iter(results.values())).evaluated.sum())
    return {**taken, "methods": methods, "n_eval": n_eval, "journal": journal}


CONTESTANTS: dict[str, Callable[[np.ndarray, np.ndarray, AttackConfig, int], dict[str, Any]]] = {
    "stock": stock,
    "mindarmour": mindarmour,
    "shared": shared,
}


def main(name: str, rows: str, settings: str, result: str) -> None:
    with np.load(rows) as arrays:
        X, y = arrays["X"], arrays["y"]
    given = json.loads(Path(settings).read_text())
    outcome = CONTESTANTS[name](X, y, AttackConfig(**given["attack"]), given["n_jobs"])
    Path(result).write_text(json.dumps(outcome, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
