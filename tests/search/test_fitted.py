"""Attackers that are kept say of rows that come later what a refit says of rows that it scores."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from in_process import run_here
from samples import fitting

from mia_batch.attacks.base import AttackSettings
from mia_batch.attacks.registry import ATTACKS
from mia_batch.samples import Part
from mia_batch.search.fitted import attacker, tasks
from mia_batch.search.grid_search import GridSearch
from mia_batch.search.tasks import CannotEvaluate, Work, WorkToCome, execute

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "lr": {"C": (0.01, 1.0)},
    "knn": {"n_neighbors": (3, 7)},
    "mlp": {"hidden_layer_sizes": ((4,),), "alpha": (0.001, 0.01), "max_iter": (20,)},
    "rf": {"n_estimators": (5,), "max_depth": (2, 5)},
}


@pytest.mark.parametrize("method", list(GRIDS))
def test_it_scores_as_the_refit_does(method: str) -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 90)
    X = rng.normal(size=(180, 4)) + y[:, None]
    samples = fitting(X, y, n_eval=60)
    search = GridSearch(method, GRIDS[method], samples, seed=1, part=Part("0"))
    results: dict[str, Any] = {}
    for task in tasks(search):
        assert task.attack == "0"
        work = cast(WorkToCome, task.work).given(results) if task.after else cast(Work, task.work)
        results[task.key] = execute(samples, task.key, cast(Work, work)).result
    kept = attacker(search, results)
    refitted = run_here(ATTACKS[method], samples, AttackSettings(GRIDS[method], seed=1))
    assert (kept.method, kept.params) == (method, refitted.best_params)
    assert kept.cv_score == pytest.approx(refitted.best_score)
    assert len(kept.table["params"]) == 2
    assert np.array_equal(kept.model.predict(X[120:]), refitted.predicted[120:])
    assert kept.model.predict_proba(X[120:])[:, 1] == pytest.approx(refitted.scores[120:])


def test_nothing_that_can_be_fitted_is_said_so() -> None:
    samples = fitting(np.zeros((12, 2)), np.tile([0, 1], 6))
    search = GridSearch("lr", {"C": (1.0,)}, samples, seed=1, search="exact", part=Part("0"))
    failed = {"accuracy": [None], "nonconverged": [False], "failures": {"0": "ValueError: no"}}
    results = {task.key: failed for task in tasks(search)}
    with pytest.raises(CannotEvaluate, match=r"lr: no candidate could be fitted: .*ValueError: no"):
        attacker(search, results)
