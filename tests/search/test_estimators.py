"""Results, grids, splits, tables and cores of the attacks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import fitting
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.split import check_arrays, make_splits
from mia_batch.errors import InputError
from mia_batch.search.estimators import METHODS, candidates, check_grid, n_candidates
from mia_batch.search.folds import check_grids, fold_numbers, fold_rows
from mia_batch.search.table import best_index, plain_columns, score_table


def result(**changes: object) -> AttackResult:
    plain = AttackResult(
        method="lr", scores=np.array([np.nan, 0.5]), predicted=np.array([-1, 1], dtype=np.int8),
        scored_by=np.array([-1, 0], dtype=np.int32), member=np.array([1, 0], dtype=np.int8), best_params={},
        best_score=0.5, cv_results={"params": ["{}"], "mean_test_score": [0.5]}, provenance={},
    )
    return replace(plain, **changes)


class TestResult:
    def test_accepts_a_consistent_result(self) -> None:
        assert result().scores[1] == 0.5

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"scores": np.array([0.1, 0.5])}, "exactly the evaluated rows must have a score"),
            ({"scores": np.array([np.nan, np.inf])}, "exactly the evaluated rows must have a score"),
            ({"predicted": np.array([1, 1], dtype=np.int8)}, "must have a decision"),
            ({"member": np.array([1], dtype=np.int8)}, "of one length"),
            ({"cv_results": {"params": ["{}"], "mean_test_score": []}}, "columns of cv_results"),
        ],
    )
    def test_refuses_what_disagrees(self, changes: dict[str, object], rule: str) -> None:
        with pytest.raises(ValueError, match=rule):
            result(**changes)


class TestGrids:
    def test_tutorial_settings(self) -> None:
        assert METHODS["lr"].build({}, seed=1).max_iter == 300
        assert METHODS["mlp"].build({}, seed=1).get_params()["max_iter"] == 300
        assert METHODS["mlp"].build({}, seed=1).random_state == 1

    def test_order_is_parameter_grids(self) -> None:
        grid = {"b": (1, 2), "a": ("x", "y", "z"), "c": (None,)}
        assert candidates(grid) == list(ParameterGrid({name: list(values) for name, values in grid.items()}))
        assert len(candidates(grid)) == n_candidates(grid) == 6

    def test_an_empty_grid_is_the_default_settings(self) -> None:
        assert candidates({}) == [{}]
        assert check_grid("rf", {}) == []

    @pytest.mark.parametrize(
        ("method", "params", "expected"),
        [
            ("lr", {"penalti": (1,)}, "params.penalti is unknown; valid parameters: C, "),
            ("lr", {"n_jobs": (1,)}, "params.n_jobs is set by the engine"),
            ("lr", {"C": (0.1, -1)}, "params.C must be a float in the range (0.0, inf], got -1"),
            ("lr", {"C": ()}, "params.C must have at least one value"),
            ("knn", {"n_neighbors": (3, 3)}, "params.n_neighbors must have each value once, got 3 again"),
            ("rf", {"max_features": ("auto",)}, "params.max_features must be an int"),
            ("rf", {"min_samples_leaf": (0,)}, "params.min_samples_leaf must be"),
            ("lr", {"l1_ratio": (1.0,), "solver": ("lbfgs",)}, "cannot be fitted: Solver lbfgs supports only"),
            ("mlp", {"hidden_layer_sizes": ((0,),)}, "cannot be fitted: hidden_layer_sizes must be > 0"),
            ("mlp", {"hidden_layer_sizes": ((None,),)}, "cannot be fitted"),
            ("mlp", {"hidden_layer_sizes": (((1,), (1, 2)),)}, "cannot be fitted"),
            ("mlp", {"hidden_layer_sizes": (("x", 1.5),)}, "cannot be fitted"),
            ("mlp", {"hidden_layer_sizes": ({},)}, "must be a whole number or a list of them, got {}"),
            ("mlp", {"hidden_layer_sizes": ({5: 6},)}, "must be a whole number or a list of them, got {5: 6}"),
            ("rf", {"bootstrap": (False,), "max_samples": (0.5,)}, "cannot be fitted"),
        ],
    )
    def test_one_line_for_each_problem(self, method: str, params: dict, expected: str) -> None:
        ((key, rule),) = check_grid(method, params)
        assert expected in f"{key} {rule}"

    def test_all_problems_at_once(self) -> None:
        assert len(check_grid("lr", {"C": (0, "x"), "foo": (1,)})) == 3


class TestSplit:
    y = np.repeat([1, 0], [60, 40]).astype(np.int8)

    def holdout(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        (split,) = make_splits(self.y, evaluation="holdout", eval_fraction=0.2, seed=seed, cv=3)
        return split.fit, split.evaluated

    def test_stratified_disjoint_and_seeded(self) -> None:
        (fit, evaluated), again, other = (self.holdout(seed) for seed in (3, 3, 4))
        assert sorted([*fit, *evaluated]) == list(range(100))
        assert self.y[evaluated].sum() == 12
        assert np.array_equal(fit, again[0])
        assert not np.array_equal(evaluated, other[1])

    def test_folds_are_grid_searchs(self) -> None:
        for (train, validation), (a, b) in zip(
            fold_rows(self.y, 3), StratifiedKFold(3).split(self.y, self.y), strict=True
        ):
            assert np.array_equal(train, a)
            assert np.array_equal(validation, b)

    def test_a_side_without_members(self) -> None:
        with pytest.raises(InputError, match=r"attack\.eval_fraction"):
            make_splits(np.array([1, 0, 0, 0], dtype=np.int8), evaluation="holdout", eval_fraction=0.2, seed=1, cv=2)

    @pytest.mark.parametrize(
        ("X", "y", "rule"),
        [
            (np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), "finite, got NaN or infinity in row 0"),
            (np.zeros((4, 2)), np.zeros(4), "must have both 0 and 1"),
            (np.zeros((4, 2)), np.zeros(3), "shapes"),
        ],
    )
    def test_unusable_features(self, X: np.ndarray, y: np.ndarray, rule: str) -> None:
        with pytest.raises(InputError, match=rule):
            check_arrays(X, y)

    def test_impossible_for_the_data(self) -> None:
        (split,) = fitting(np.zeros((100, 1)), self.y, 2).splits
        with pytest.raises(InputError) as error:
            check_grids(split, {"knn": {"n_neighbors": (3, 51, 70)}, "rf": {"max_samples": (80,)}})
        assert [line.split(",")[0] for line in error.value.problems] == [
            "attack.methods: knn: params.n_neighbors must be at most 50",
            "attack.methods: knn: params.n_neighbors must be at most 50",
            "attack.methods: rf: params.max_samples must be at most 50",
        ]
        with pytest.raises(InputError, match=r"attack\.cv: must be at most 40"):
            fold_numbers(self.y, 41)


class TestTable:
    def test_columns_are_grid_searchs(self) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
        grid = {"n_neighbors": [1, 3, 5, 4]}
        stock = GridSearchCV(METHODS["knn"].build({}, seed=1), grid, cv=3).fit(X, y)
        scores = np.column_stack([stock.cv_results_[f"split{i}_test_score"] for i in range(3)])
        table = score_table(candidates(grid), scores, np.zeros(4, dtype=np.int64))
        for name in ("mean_test_score", "std_test_score", "rank_test_score"):
            assert np.array_equal(table[name], stock.cv_results_[name]), name
        assert best_index(table) == stock.best_index_

    def test_ties_go_to_the_first(self) -> None:
        scores = np.array([[0.5], [0.7], [0.7]])
        table = score_table([{"a": 1}, {"a": 2}, {"a": 3}], scores, np.zeros(3, dtype=np.int64))
        assert best_index(table) == 1
        assert table["rank_test_score"].tolist() == [3, 1, 1]
        assert plain_columns(table)["params"][1] == '{"a": 2}'


def test_numeric_core_imports_no_framework() -> None:
    code = (
        "import sys, mia_batch.attacks.registry, mia_batch.workers.open_executor; "
        "print([m for m in ('mindspore', 'mpi4py', 'h5py', 'dask', 'sklearnex') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
