"""Stacked references: what the rows hold, that they know nothing of the target, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mia_batch.attacks.base import STACK, AttackResult, AttackSettings
from mia_batch.attacks.sides import References
from mia_batch.attacks.split import make_splits
from mia_batch.attacks.stacked import (
    MOST_WAYS,
    N_FEATURES,
    NULL,
    STACKED,
    attacked,
    n_stack_features,
    permuted,
    stack_columns,
    stack_features,
    stack_rows,
    stack_shapes,
    units,
)
from mia_batch.attacks.trajectories import lira_trajectory, trajectory_features
from mia_batch.metrics.ranking import auc
from mia_batch.rundir.features import Features
from mia_batch.samples import OwnRows, Part, Samples, Split
from mia_batch.search.tasks import CannotEvaluate
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import run_attacks
from mia_batch.stages.attack import samples_of as samples_of_stage

BY_NAME = {attack.name: attack for attack in STACKED}
LR = AttackSettings({"C": [1.0]})


def drawn(n: int, n_pairs: int, *, leak: float, seed: int = 0) -> tuple[References, np.ndarray]:
    """References in pairs, and a target of the same make with its membership: phi of hardness, leak and noise."""
    rng = np.random.default_rng(seed)
    coins = rng.integers(0, 2, (n, n_pairs)).astype(np.int8)
    inside = np.stack([coins, 1 - coins], axis=2).reshape(n, -1)
    member, hardness, label = rng.integers(0, 2, n).astype(np.int8), rng.normal(0, 3, n), rng.integers(0, 3, n)

    def phi(included: np.ndarray) -> np.ndarray:
        return hardness + leak * included + rng.normal(size=n)

    others = np.stack([phi(inside[:, k]) for k in range(inside.shape[1])], axis=1)
    return References(phi(member)[:, np.newaxis], others[:, np.newaxis, :], inside, label), member


def samples_of(references: References, member: np.ndarray) -> Samples:
    splits = make_splits(member, evaluation="cross_fit", eval_fraction=0.2, seed=1, cv=3)
    rows, null = (stack_rows(each, cv=3, max_rows=3000, seed=1) for each in (references, permuted(references, seed=1)))
    return Samples(member, splits, stack=rows, stack_null=null)


def result_of(name: str, samples: Samples, settings: AttackSettings = LR) -> AttackResult:
    attack, results = BY_NAME[name], dict[str, Any]()
    for task in attack.tasks(samples, settings):
        work: Any = task.work.given(results) if hasattr(task.work, "given") else task.work
        if work is not None:
            results[task.key] = work.run(samples)
    return attack.result(samples, settings, results)


def over_steps(references: References, member: np.ndarray, *, leak: float, seed: int = 0) -> References:
    """The same with two checkpoints before, which leak less, of which the noise is shared."""
    rng = np.random.default_rng([seed, 9])
    target = np.stack([references.target[:, 0] - leak * member * left + rng.normal(size=len(member)) / 2
                       for left in (0.6, 0.3, 0.0)], axis=1)  # fmt: skip
    others = np.stack([references.others[:, 0] - leak * references.inside * left
                       + rng.normal(size=references.inside.shape) / 2 for left in (0.6, 0.3, 0.0)], axis=1)  # fmt: skip
    return replace(references, steps=References(target, others, references.inside))


def test_rows_hold_what_checkpoints_tell_of_the_reference_that_plays_the_target() -> None:
    references, member = drawn(200, 4, leak=1.0)
    known = over_steps(references, member, leak=1.0)
    assert known.steps is not None
    found = stack_features(known)
    assert found.shape == (200, n_stack_features(3))
    assert np.array_equal(found[:, :N_FEATURES], stack_features(references))
    steps = known.steps
    told = trajectory_features(steps.target, np.logaddexp(0, -steps.target))
    assert found[:, N_FEATURES:-1] == pytest.approx(told)
    assert found[:, -1] == pytest.approx(lira_trajectory(steps).values[:, 0])
    left = attacked(known, 2, [0, 1, 4, 5, 6, 7])
    assert left.steps is not None
    assert np.array_equal(left.steps.target, steps.others[:, :, 2])
    assert np.array_equal(left.steps.others, steps.others[:, :, [0, 1, 4, 5, 6, 7]])
    assert np.array_equal(left.steps.inside, references.inside[:, [0, 1, 4, 5, 6, 7]])
    again = permuted(known, seed=1)
    assert again.steps is not None
    assert np.array_equal(again.steps.inside, again.inside)
    assert not np.array_equal(again.inside, known.inside)
    assert stack_shapes(200, 8, cv=3, max_rows=None, n_checkpoints=3)["stack"].X.shape[1] == n_stack_features(3)


def test_checkpoints_that_tell_nothing_find_nothing_and_those_that_leak_more() -> None:
    references, member = drawn(2000, 3, leak=0.0, seed=3)
    null = auc(member, result_of("stack_lr", samples_of(over_steps(references, member, leak=0.0), member)).scores,
               level=0.999)  # fmt: skip
    assert null.low < 0.5 < null.high
    references, member = drawn(2000, 3, leak=1.0, seed=4)
    alone, known = (
        auc(member, result_of("stack_lr", samples_of(each, member)).scores)
        for each in (references, over_steps(references, member, leak=1.0, seed=4))
    )
    assert known.value > alone.value > 0.6


def test_units_are_pairs_of_complements_and_others_alone() -> None:
    inside = np.array([[1, 0, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 1, 0, 0]], np.int8)
    assert units(inside) == [[0, 1], [2, 4], [3]]
    assert units(np.hstack([inside, np.zeros((3, 1), np.int8)])) == units(inside)  # one of other data


def test_rows_are_of_references_that_play_the_target_and_then_of_the_target() -> None:
    references, member = drawn(200, 4, leak=1.0)
    rows = stack_rows(references, cv=3, max_rows=None, seed=1)
    n_ways = 4
    assert rows.X.shape[0] == 200 * (8 + n_ways)
    assert np.array_equal(rows.y[: 8 * 200], references.inside.T.reshape(-1))
    assert rows.split.fit.tolist() == list(range(1600))
    first = stack_features(References(
        references.others[:, :, 0], references.others[:, :, 2:], references.inside[:, 2:], references.label
    ))  # fmt: skip
    scale = rows.X[:1600].std(axis=0)
    assert np.allclose(scale[scale > 0], 1)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, rows.X[:200].T, strict=True)]
    assert np.allclose(correlation, 1)
    assert member.shape == (200,)  # which stack_rows has never seen


def test_the_features_by_hand() -> None:
    """Two references on each side of one sample among others: phi, loss, the sides and the differences."""
    inside = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.int8)
    phi = np.array([[3.0, 5.0, 0.0, -1.0], [0.0, 2.0, 4.0, 4.0]])
    features = stack_features(References(np.array([[3.5], [1.0]]), phi[:, np.newaxis, :], inside, np.array([0, 0])))
    row = features[0]
    assert row[0] == 3.5
    assert row[1] == pytest.approx(np.log1p(np.exp(-3.5)))
    assert row[2:6] == pytest.approx([4.0, -0.5, 4.0, -0.5])
    assert row[6:8] == pytest.approx([1.0, 0.5])
    assert row[11] == pytest.approx(4.0)  # calibration, to the mean of OUT
    assert row[12] == pytest.approx(4.0**2 - 0.5**2)
    assert row[13] == pytest.approx(np.mean([-0.5, 1.0]))  # the class's OUT


def test_a_missing_side_is_filled_from_the_other() -> None:
    inside = np.array([[1, 1], [0, 0], [1, 0]], np.int8)
    phi = np.array([[3.0, 5.0], [1.0, 2.0], [6.0, 4.0]])
    features = stack_features(References(np.zeros((3, 1)), phi[:, np.newaxis, :], inside))
    assert features[0, 2:6] == pytest.approx([4.0, 2.0, 4.0, 2.0])  # OUT: the gap, 2, below IN
    assert features[1, 2:6] == pytest.approx([3.5, 1.5, 3.5, 1.5])
    assert np.isfinite(features).all()


def test_all_rows_of_a_sample_and_of_its_group_are_in_one_fold() -> None:
    references, _ = drawn(60, 3, leak=1.0)
    group = np.arange(60) // 2
    rows = stack_rows(references, cv=3, max_rows=None, seed=1, group=group)
    folds = rows.split.fold_of.reshape(6, 60)
    assert (folds == folds[0]).all()
    assert (folds[0][::2] == folds[0][1::2]).all()
    assert set(folds[0]) == {0, 1, 2}


def test_rows_are_bounded() -> None:
    references, _ = drawn(100, MOST_WAYS + 4, leak=1.0)
    rows = stack_rows(references, cv=3, max_rows=1000, seed=1)
    assert len(rows.split.fit) == 2 * (MOST_WAYS + 4) * (1000 // (2 * (MOST_WAYS + 4)))
    assert len(rows.split.evaluated) == MOST_WAYS * 100


def test_every_sample_is_scored_by_the_mean_of_its_ways() -> None:
    references, member = drawn(300, 3, leak=2.0)
    samples = samples_of(references, member)
    result = result_of("stack_lr", samples)
    assert result.evaluated.all()
    assert result.provenance["n_ways"] == 3
    assert np.array_equal(result.predicted, result.scores >= 0.5)
    again = result_of("stack_lr", samples_of(references, 1 - member))
    assert np.array_equal(again.scores, result.scores)  # no label of the target is used


@pytest.mark.parametrize(("name", "params"), [
    ("stack_lr", {"C": [1.0]}), ("stack_rf", {"n_estimators": [50], "min_samples_leaf": [20]}),
    ("stack_hgb", {"max_iter": [50], "learning_rate": [0.05, 0.1]}), ("stack_knn", {"n_neighbors": [101]}),
    ("stack_mlp", {"hidden_layer_sizes": [(16,)], "max_iter": [30]}),
])  # fmt: skip
def test_it_finds_what_the_targets_answers_alone_do_not(name: str, params: Mapping[str, Any]) -> None:
    references, member = drawn(1500, 4, leak=2.0)
    alone = auc(member, references.target[:, 0])
    found = auc(member, result_of(name, samples_of(references, member), AttackSettings(params)).scores)
    assert found.low > alone.high


def test_without_a_leak_it_finds_nothing() -> None:
    """Of 60 targets and their references, as many intervals miss .5 as may."""
    areas = []
    for seed in range(1000, 1060):
        references, member = drawn(200, 3, leak=0.0, seed=seed)
        areas.append(auc(member, result_of("stack_lr", samples_of(references, member)).scores))
    assert abs(np.mean([area.value for area in areas]) - 0.5) < 4 * 0.041 / np.sqrt(60)  # 0.041: of 100 against 100
    assert sum(not area.low <= 0.5 <= area.high for area in areas) <= 9  # at 5 %: in 99.8 %


@pytest.mark.parametrize("n_pairs", [3, 8])
def test_on_permuted_inclusion_of_networks_that_leak_it_finds_nothing(n_pairs: int) -> None:
    """Pairs together, and the target's membership with them: mean AUC .5, and 1 % of non-members pass at 1 %."""
    areas, covered, passed, n_trials = [], [], [], 30
    for seed in range(n_trials):
        references, member = drawn(600, n_pairs, leak=2.0, seed=seed)
        order = np.random.default_rng((seed, n_pairs)).permutation(len(member))
        null = References(references.target, references.others, references.inside[order], references.label)
        result = result_of("stack_lr", samples_of(null, member[order]))
        area = auc(result.member, result.scores)
        areas.append(area.value)
        covered.append(area.low <= 0.5 <= area.high)
        nonmembers = result.scores[result.member == 0]
        limit = np.sort(nonmembers[::2])[-2]  # 2 of some 150 above or at it
        passed.append(np.mean(nonmembers[1::2] > limit) - 2 / (len(nonmembers[::2]) + 1))
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / n_trials**0.5
    assert sum(covered) >= stats.binom.ppf(1e-5, n_trials, 0.94)
    assert abs(np.mean(passed)) < 4 * np.std(passed) / n_trials**0.5


def test_references_that_were_drawn_to_exact_halves_are_refused() -> None:
    """Each sample is in exactly half of the models: the others' sides tell what the one that plays was trained on."""
    rng = np.random.default_rng(0)
    inside = np.stack([rng.permutation([1, 1, 0, 0]) for _ in range(3000)]).astype(np.int8)
    phi = rng.normal(size=(3000, 1, 4)) + 2.0 * inside[:, np.newaxis, :]
    references = References(rng.normal(size=(3000, 1)), phi, inside)
    samples = samples_of(references, rng.integers(0, 2, 3000).astype(np.int8))
    kept = stack_rows(references, cv=3, max_rows=3000, seed=1)
    samples.columns[NULL] = kept  # as if inclusion had been permuted with all columns together
    with pytest.raises(CannotEvaluate, match="on permuted inclusion the accuracy must be at most"):
        result_of("stack_lr", samples)


def test_own_rows_travel_as_arrays() -> None:
    references, member = drawn(60, 3, leak=1.0)
    samples = samples_of(references, member)
    again = Samples.of_arrays(samples.arrays())
    for name in (STACK, NULL):
        one, other = samples.view(Part("x", name)), again.view(Part("x", name))
        assert np.array_equal(one.X, other.X)
        assert np.array_equal(one.member, other.member)
        assert np.array_equal(one.split.fold_of, other.split.fold_of)
    with pytest.raises(ValueError, match="own rows: must have shapes"):
        OwnRows(np.zeros((3, 2)), np.zeros(2, np.int8), Split(np.arange(1), np.zeros(1, np.int32), np.arange(1, 3)))


def test_shapes_for_estimates_are_those_of_the_rows() -> None:
    """References without complements; with pairs there are fewer ways."""
    rng = np.random.default_rng(0)
    inside = (rng.random((90, 5)) < 0.5).astype(np.int8)
    references = References(rng.normal(size=(90, 1)), rng.normal(size=(90, 1, 5)), inside)
    made, told = (
        stack_columns(references, cv=3, max_rows=200, seed=1), stack_shapes(90, 5, cv=3, max_rows=200)
    )  # fmt: skip
    for name in (STACK, NULL):
        assert made[name].X.shape == told[name].X.shape == (5 * 40 + 5 * 90, N_FEATURES)
        assert len(made[name].split.fit) == len(told[name].split.fit)
    assert stack_columns(References(references.target, references.others[:, :, :2], inside[:, :2]), cv=3, max_rows=9,
                         seed=1) == stack_shapes(90, 2, cv=3, max_rows=9) == {}  # fmt: skip


@pytest.mark.parametrize("n_pairs", [2, 3])
def test_the_stage_makes_the_rows_and_says_where_references_are_too_few(n_pairs: int) -> None:
    references, member = drawn(200, n_pairs, leak=2.0)
    rng, n = np.random.default_rng(0), len(member)
    features = Features(
        np.arange(n), np.repeat("train", n), np.asarray(references.label, dtype=np.int32), member,
        rng.normal(size=(n, 3)).astype(np.float32), rng.random(n), {},
    )  # fmt: skip
    attack = AttackConfig(methods=({"method": "stack_lr", "params": {"C": [0.1, 1.0]}}, {"method": "calibration"}))
    columns = {"query_phi": references.target, "reference_phi": references.others, "reference_in": references.inside}
    samples = samples_of_stage(features, attack, [], columns)
    results = run_attacks(samples, attack, n_jobs=2)
    assert results["calibration"].evaluated.all()
    if n_pairs == 2:
        assert results["stack_lr"].not_run
        assert "reference models enough for one of them, or a pair, to play" in results["stack_lr"].reason
        return
    here = result_of("stack_lr", samples, AttackSettings({"C": [0.1, 1.0]}))
    assert np.allclose(results["stack_lr"].scores, here.scores, rtol=1e-6, atol=0)  # with one thread, not with all
