"""From samples to results: whole results, other searches, restarts, fits and attacks that fail."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from deeds import Deed
from sklearn.datasets import make_classification

from mia_batch import signals
from mia_batch.attacks.base import AttackResult, AttackSettings, result_over_all_rows
from mia_batch.attacks.features import signal_features
from mia_batch.attacks.registry import ATTACKS
from mia_batch.attacks.split import make_splits
from mia_batch.errors import InputError, Problem
from mia_batch.metrics.ranking import auc
from mia_batch.rundir.features import Features
from mia_batch.samples import Samples
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.stock import fit_recorded
from mia_batch.search.order_of_work import Stopped
from mia_batch.search.tasks import Task
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages import attack as stage
from mia_batch.stages.attack import make_columns, make_samples

GRIDS: dict[str, dict[str, Any]] = {
    "lr": {"C": [0.01, 1.0, 100.0]},
    "knn": {"n_neighbors": [1, 5, 9], "weights": ["uniform", "distance"]},
    "mlp": {"hidden_layer_sizes": [[8]], "alpha": [0.001, 0.1], "max_iter": [15]},
    "rf": {"n_estimators": [10, 30], "max_depth": [3, None], "min_samples_leaf": [1, 3]},
}


def data(n: int = 260, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(n, d, n_informative=4, n_redundant=0, flip_y=0.3, random_state=0)
    return X, y


def settings(*methods: str, **options: Any) -> AttackConfig:
    chosen = tuple({"method": method, "params": GRIDS[method]} for method in methods or GRIDS)
    return AttackConfig(**{"methods": chosen, "eval": "holdout", **options})


def run_attacks(X: np.ndarray, y: np.ndarray, attack: AttackConfig, **options: Any) -> dict[str, AttackResult]:
    return stage.run_attacks(make_samples(y, attack, features=X), attack, **options)


def same(a: AttackResult, b: AttackResult) -> bool:
    return (
        np.array_equal(a.scores, b.scores, equal_nan=True) and np.array_equal(a.predicted, b.predicted)
        and a.cv_results == b.cv_results and a.best_params == b.best_params
    )


def searched(result: AttackResult) -> list[str]:
    """Tasks of the search that this run has done."""
    return [entry["task"] for entry in result.provenance["tasks"] if "/refit/" not in entry["task"]]


class DictJournal(dict):  # type: ignore[type-arg]
    def put(self, key: str, value: dict[str, Any]) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def journal() -> DictJournal:
    """What the run of `shared` has put down."""
    return DictJournal()


@pytest.fixture(scope="module")
def shared(journal: DictJournal) -> dict[str, AttackResult]:
    """All four methods by the engine, on two workers."""
    return run_attacks(*data(), settings(), n_jobs=2, journal=journal)


class TestShared:
    def test_whole_results_in_the_order_of_the_config(self, shared: dict[str, AttackResult]) -> None:
        assert list(shared) == list(GRIDS)
        _, y = data()
        for method, result in shared.items():
            assert np.array_equal(result.member, y)
            assert result.evaluated.sum() == 52
            assert np.array_equal(np.isnan(result.scores), ~result.evaluated)
            assert len(result.cv_results["params"]) == len(result.cv_results["split2_test_score"])
            assert result.provenance["engine"] == ("compiled" if method in ("mlp", "rf") else "scikit-learn")
            assert result.provenance["final_engine"] == ("compiled" if method == "rf" else "scikit-learn")
            json.dumps([result.provenance, result.cv_results, result.best_params], allow_nan=False)
            best = result.cv_results["rank_test_score"].index(1)
            assert json.loads(result.cv_results["params"][best]) == json.loads(json.dumps(result.best_params)), method

    def test_the_final_model_is_stock(self, shared: dict[str, AttackResult]) -> None:
        X, y = data()
        (split,) = make_splits(y.astype(np.int8), **settings().splitting())
        fit, evaluated = split.fit, split.evaluated
        for method, result in shared.items():
            stock = METHODS[method].build(result.best_params, seed=1)
            nonconverged = fit_recorded(stock, X[fit], y[fit])
            np.testing.assert_allclose(result.scores[evaluated], stock.predict_proba(X[evaluated])[:, 1], rtol=1e-12)
            assert np.array_equal(result.predicted[evaluated], stock.predict(X[evaluated]))
            assert result.provenance["n_nonconverged"]["final"] == nonconverged

    def test_nonconvergence_is_counted(self, shared: dict[str, AttackResult]) -> None:
        assert shared["mlp"].provenance["n_nonconverged"] == {"search": 6, "final": 1}
        assert shared["mlp"].cv_results["n_nonconverged"] == [3, 3]
        assert shared["rf"].provenance["n_nonconverged"] == {"search": 0, "final": 0}

    def test_the_same_numbers_on_any_number_of_workers_as_they_are_ready(self, shared: dict[str, AttackResult]) -> None:
        seen: list[AttackResult] = []
        again = run_attacks(*data(), settings(), n_jobs=1, on_result=seen.append)
        assert [method for method in GRIDS if not same(shared[method], again[method])] == []
        assert {result.method: result for result in seen} == again
        assert [result.method for result in seen] != list(GRIDS)  # in the order in which they end

    def test_another_seed_is_another_run(self, shared: dict[str, AttackResult]) -> None:
        other = run_attacks(*data(), settings("knn", seed=2), n_jobs=1)
        assert not np.array_equal(other["knn"].evaluated, shared["knn"].evaluated)


class TestCrossFitting:
    def test_every_row_is_scored_by_a_stock_model_that_did_not_see_it(self) -> None:
        X, y = data()
        attack = settings("knn", "lr", eval="cross_fit", eval_fraction=0.33)
        results = run_attacks(X, y, attack, n_jobs=2)
        splits = make_splits(y.astype(np.int8), **attack.splitting())
        for method, result in results.items():
            assert result.evaluated.all()
            for number, (split, params) in enumerate(zip(splits, result.provenance["chosen"], strict=True)):
                stock = METHODS[method].build(params, seed=1).fit(X[split.fit], y[split.fit])
                expected = stock.predict_proba(X[split.evaluated])[:, 1]
                np.testing.assert_allclose(result.scores[split.evaluated], expected, rtol=1e-12)
                assert set(result.scored_by[split.evaluated]) == {number}
            assert result.cv_results["split"] == sorted([0, 1, 2] * (len(result.cv_results["split"]) // 3))
            assert result.best_params in result.provenance["chosen"]

    def test_a_journal_saves_the_searches_of_all_splits(self) -> None:
        journal = DictJournal()
        attack = settings("rf", eval="cross_fit", eval_fraction=0.5)
        first = run_attacks(*data(), attack, n_jobs=2, journal=journal)["rf"]
        again = run_attacks(*data(), attack, n_jobs=1, journal=journal)["rf"]
        assert searched(again) == []
        assert same(first, again)

    def test_labels_drawn_by_lot_give_no_auc(self) -> None:
        """A model that had seen the rows that it scores would show: a forest's AUC on its own rows is 1."""
        rng = np.random.default_rng(4)
        X, y = rng.normal(size=(600, 5)), rng.integers(0, 2, 600)
        result = run_attacks(X, y, settings("rf", eval="cross_fit"), n_jobs=2)["rf"]
        assert abs(auc(y, result.scores).value - 0.5) < 0.08


class TestOtherSearches:
    def test_exact_agrees_with_shared(self, shared: dict[str, AttackResult]) -> None:
        exact = run_attacks(*data(), settings("lr", "knn", "mlp", search="exact"), n_jobs=2)
        for method in ("knn", "mlp"):
            assert same(exact[method], shared[method])
        difference = np.subtract(exact["lr"].cv_results["mean_test_score"], shared["lr"].cv_results["mean_test_score"])
        assert np.abs(difference).max() < 0.01

    def test_random_tries_n_iter(self) -> None:
        result = run_attacks(*data(), settings("rf", "lr", search="random", n_iter=4), n_jobs=2)
        assert len(result["rf"].cv_results["params"]) == 4
        assert len(result["lr"].cv_results["params"]) == 3

    def test_halving_ends_with_a_candidate_of_its_last_round(self) -> None:
        result = run_attacks(*data(), settings("knn", search="halving"), n_jobs=2)["knn"]
        table = result.cv_results
        last = [i for i, r in enumerate(table["iter"]) if r == max(table["iter"])]
        assert json.loads(json.dumps(result.best_params)) in [json.loads(table["params"][i]) for i in last]
        assert len(set(table["n_resources"])) > 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "line"),
        [
            ({"cv": 120}, "attack.cv: must be at most"),
            ({"eval_fraction": 0.999}, "attack.eval_fraction: must leave members"),
            ({"memory_gib": 0.01}, "attack.memory_gib: must be at least"),
        ],
    )
    def test_before_the_first_fit(self, options: dict[str, Any], line: str) -> None:
        with pytest.raises(InputError, match=line):
            run_attacks(*data(), settings("lr", **options), n_jobs=1)


class TestRestart:
    def test_the_journal_saves_the_search(self, shared: dict[str, AttackResult], journal: DictJournal) -> None:
        again = run_attacks(*data(), settings("rf", "mlp"), n_jobs=2, journal=journal)
        for method in ("rf", "mlp"):
            assert searched(again[method]) == []
            assert same(again[method], shared[method])

    def test_a_stopped_search_goes_on(self, shared: dict[str, AttackResult]) -> None:
        journal = DictJournal()
        with pytest.raises(Stopped):
            run_attacks(*data(), settings("rf"), n_jobs=1, journal=journal, stop=lambda: len(journal) >= 3)
        done = len(journal)
        result = run_attacks(*data(), settings("rf"), n_jobs=1, journal=journal)["rf"]
        assert len(searched(result)) == len(journal) - done
        assert same(result, shared["rf"])

    def test_another_grid_takes_nothing_from_the_journal(
        self, shared: dict[str, AttackResult], journal: DictJournal
    ) -> None:
        grid = {"method": "rf", "params": {**GRIDS["rf"], "min_samples_leaf": [2]}}
        other = run_attacks(*data(), settings(methods=(grid,)), n_jobs=1, journal=journal)["rf"]
        assert len(searched(other)) == 6  # two ranges of trees on three folds


@dataclass(frozen=True)
class LossThreshold:
    """A toy attack in one file and one line: one task, no search."""

    name: str = "toy"
    needs = frozenset({"member", "features"})
    deed: str = ""

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        return [(f"params.{name}", "is unknown") for name in params]

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        return [Task("toy/all", 0.1, Deed(self.deed or "sum"))]

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        values = samples.columns["features"][:, 0] + 0 * results["toy/all"][0]
        scored = [(values[split.evaluated], (values[split.evaluated] > 0).astype(np.int8)) for split in samples.splits]
        return result_over_all_rows("toy", samples, scored)


class TestAToyAttack:
    def test_joins_the_list_by_one_line_in_the_registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ATTACKS, "toy", LossThreshold())
        methods = ({"method": "toy"}, {"method": "knn", "params": GRIDS["knn"]})
        results = run_attacks(*data(), AttackConfig(methods=methods, eval="holdout"), n_jobs=2)
        X, _ = data()
        rows = results["toy"].evaluated
        assert np.array_equal(results["toy"].scores[rows], X[rows, 0])
        assert results["toy"].cv_results == {}
        assert np.array_equal(rows, results["knn"].evaluated)

    def test_and_says_what_is_wrong_with_its_parameters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ATTACKS, "toy", LossThreshold())
        with pytest.raises(ValueError, match=r"params\.C: is unknown"):
            AttackConfig(methods=({"method": "toy", "params": {"C": [1]}},))

    @pytest.mark.parametrize(
        ("deed", "reason"),
        [("die", "toy/all: 3 workers ended at it"), ("fail", "toy/all: ValueError: numbers of no use")],
    )
    def test_that_comes_to_nothing_has_the_reason_and_the_others_go_on(
        self, monkeypatch: pytest.MonkeyPatch, shared: dict[str, AttackResult], deed: str, reason: str
    ) -> None:
        monkeypatch.setitem(ATTACKS, "toy", LossThreshold(deed=deed))
        methods = ({"method": "toy"}, {"method": "knn", "params": GRIDS["knn"]})
        results = run_attacks(*data(), AttackConfig(methods=methods, eval="holdout"), n_jobs=2)
        assert results["toy"].reason.startswith(reason)
        assert not results["toy"].evaluated.any()
        assert same(results["knn"], shared["knn"])


def test_an_attack_that_needs_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = LossThreshold()
    object.__setattr__(needy, "needs", frozenset({"member", "references"}))
    monkeypatch.setitem(ATTACKS, "toy", needy)
    attack = AttackConfig(methods=({"method": "toy"}, {"method": "lr"}), eval="holdout")
    results = run_attacks(*data(), attack, n_jobs=1)
    assert results["toy"].reason == "it needs references, which these samples do not have"
    assert results["lr"].reason == ""


def test_a_diverging_network_scores_nan_is_named_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    X, y = data()
    grid = {"hidden_layer_sizes": [[3]], "learning_rate_init": [0.01, 1e308], "max_iter": [5]}
    methods = ({"method": "mlp", "params": grid}, {"method": "knn", "params": GRIDS["knn"]})
    attack = AttackConfig(methods=methods, eval="holdout")
    results = run_attacks(X, y, attack, n_jobs=2)
    assert results["mlp"].best_params["learning_rate_init"] == 0.01
    assert np.isnan(results["mlp"].cv_results["mean_test_score"]).tolist() == [False, True]
    assert results["mlp"].provenance["n_failed"] == 3
    assert "1e+308" in results["mlp"].provenance["failures"][0]
    assert results["knn"].reason == ""


def test_a_grid_of_which_nothing_can_be_fitted_is_not_evaluable() -> None:
    X, y = data()
    grid = {"hidden_layer_sizes": [[3]], "learning_rate_init": [1e308], "max_iter": [5]}
    result = run_attacks(X, y, AttackConfig(methods=({"method": "mlp", "params": grid},)), n_jobs=1)["mlp"]
    assert result.reason.startswith("mlp: no candidate could be fitted: ")


# --- attacks without a grid, and columns -----------------------------------------------------------------------------


def some_features(n: int = 300, n_classes: int = 3) -> Features:
    """What extract would have written of a made-up network that is surer of members."""
    rng = np.random.default_rng(0)
    member, label = (np.arange(n) % 2).astype(np.int8), rng.integers(n_classes, size=n).astype(np.int32)
    logits = rng.normal(size=(n, n_classes)).astype(np.float32)
    logits[np.arange(n), label] += 2 * member
    split = np.array(["train"] * n)
    return Features(np.arange(n), split, label, member, logits, signals.loss(logits, label), {})


WITHOUT_GRID = tuple(
    {"method": name} for name in ("threshold_loss", "correctness", "class_threshold_hinge", "attack_p")
)


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (WITHOUT_GRID[:1], {"loss"}),
        (WITHOUT_GRID, {"loss", "correctness", "hinge", "label"}),
        (({"method": "lr"},), {"features"}),
        (({"method": "lr"}, *WITHOUT_GRID), {"features", "loss", "correctness", "hinge", "label"}),
    ],
)
def test_columns_are_made_only_where_an_attack_needs_them(methods: tuple[Any, ...], expected: set[str]) -> None:
    columns = make_columns(some_features(), AttackConfig(methods=methods))
    assert set(columns) == expected
    assert all(column.dtype == ("int32" if name == "label" else "float64") for name, column in columns.items())


def test_rows_of_each_kind_of_features() -> None:
    features = some_features()

    def rows(kind: str) -> np.ndarray:
        return make_columns(features, AttackConfig(methods=({"method": "lr"},), features=kind))["features"]

    assert AttackConfig(methods=({"method": "lr"},)).features == "signals"
    matrix = signals.signal_matrix(features.logits, features.label)
    assert np.array_equal(rows("signals"), signal_features(matrix, features.logits, features.label))
    assert np.array_equal(rows("logits_loss"), np.column_stack([features.loss, features.logits]))
    assert np.array_equal(rows("mindarmour")[:, 0], signals.mindarmour_loss(features.logits, features.label))


def test_logits_that_cannot_be_are_one_line() -> None:
    features = some_features()
    features.logits[7, 1] = np.nan
    with pytest.raises(InputError, match=r"features\.h5: logits: must be finite, got NaN or infinity at sample 7"):
        make_columns(features, AttackConfig(methods=WITHOUT_GRID[:1]))


def test_attacks_without_a_grid_run_beside_a_search_and_find_the_same_again() -> None:
    features, journal = some_features(), DictJournal()
    attack = AttackConfig(methods=(*WITHOUT_GRID, {"method": "lr"}))
    samples = make_samples(features.member, attack, **make_columns(features, attack))
    results = stage.run_attacks(samples, attack, n_jobs=2, journal=journal)
    again = stage.run_attacks(samples, attack, n_jobs=1, journal=journal)
    for name, result in results.items():
        assert result.evaluated.all(), result.reason
        assert same(result, again[name])
        assert searched(again[name]) == []
        json.dumps(result.provenance, allow_nan=False)
    assert [len(result.cv_results) > 0 for result in results.values()] == [False] * 4 + [True]
    assert np.array_equal(results["threshold_loss"].scores, -signals.loss(features.logits, features.label))
