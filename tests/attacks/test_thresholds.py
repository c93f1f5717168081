"""Threshold attacks and Attack-P against naive references, closed forms and hand-made rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_batch import signals
from mia_batch.attacks.base import AttackResult, AttackSettings
from mia_batch.attacks.classifiers import HGB, KNN, LR, MLP, RF
from mia_batch.attacks.quantile import QMIA
from mia_batch.attacks.references import ON_REFERENCES, ON_TRAJECTORIES
from mia_batch.attacks.registry import ATTACKS
from mia_batch.attacks.split import make_splits
from mia_batch.attacks.stacked import STACKED
from mia_batch.attacks.thresholds import MIN_OF_CLASS, class_thresholds
from mia_batch.metrics.ranking import best_threshold
from mia_batch.samples import Samples, Split

THRESHOLDS = [f"threshold_{name}" for name in signals.NAMES if name != "correctness"]
PER_CLASS = [f"class_{name}" for name in THRESHOLDS]
NO_GRID = [*THRESHOLDS, "correctness", *PER_CLASS, "attack_p"]


def audit(n: int = 400, n_classes: int = 4, *, shift: float = 2.0, seed: int = 0, **splitting: Any) -> Samples:
    """Rows of a made-up network that is surer of members by `shift` logits; classes differ in how hard they are."""
    rng = np.random.default_rng(seed)
    member, label = (np.arange(n) % 2).astype(np.int8), rng.integers(n_classes, size=n).astype(np.int32)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), label] += rng.normal(label + shift * member)
    options = {"evaluation": "cross_fit", "eval_fraction": 0.2, "seed": 1, "cv": 3} | splitting
    columns = {**signals.signal_columns(logits, label, signals.NAMES), "label": label}
    return Samples(member, make_splits(member, **options), **columns)


def result_of(name: str, samples: Samples) -> AttackResult:
    """As a worker and the stage make it, the task's result through a journal."""
    (task,) = ATTACKS[name].tasks(samples, AttackSettings())
    assert task.key == f"{name}/all"
    found = json.loads(json.dumps(task.work.run(samples), allow_nan=False))  # type: ignore[union-attr]
    return ATTACKS[name].result(samples, AttackSettings(), {task.key: found})


def naive_threshold(scores: np.ndarray, member: np.ndarray) -> tuple[float, float]:
    """Every score tried, from the highest down."""
    best = (0.0, 0.0)
    for t in sorted(set(scores.tolist()), reverse=True):
        accuracy = (np.mean(scores[member == 1] >= t) + np.mean(scores[member == 0] < t)) / 2
        if accuracy > best[1] + 1e-12:
            best = (t, accuracy)
    return best


SIDES = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({side for _, side in rows}) == 2
)


@given(SIDES)
def test_the_best_threshold_is_that_of_trying_all(rows: list[tuple[int, bool]]) -> None:
    scores, member = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows], np.int8)
    t, accuracy = best_threshold(scores, member)
    assert (t, pytest.approx(accuracy)) == naive_threshold(scores, member)


@pytest.mark.parametrize(
    ("scores", "member", "threshold", "accuracy"),
    [
        ([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0], 2.0, 1.0),
        ([1.0, 0.0, 1.0, 0.0], [1, 1, 0, 0], 1.0, 0.5),  # nothing to tell by
        ([5.0, 5.0, 5.0], [1, 0, 0], 5.0, 0.5),
        ([0.0, 1.0], [1, 0], 0.0, 0.5),  # the wrong way round: everybody, rather than the reverse
        ([4.0, 3.0, 2.0, 1.0], [1, 0, 1, 0], 4.0, 0.75),  # 2 is as good; the highest is taken
    ],
)
def test_thresholds_by_hand(scores: list[float], member: list[int], threshold: float, accuracy: float) -> None:
    assert best_threshold(np.array(scores), np.array(member, np.int8)) == (threshold, accuracy)


def test_a_class_has_a_threshold_of_its_own_only_where_it_can() -> None:
    """Of class 0 enough rows, of 1 too few members, in 2 the signal is the wrong way round; there is no class 3."""
    n = MIN_OF_CLASS
    member = np.array([1] * n + [0] * n + [1] * (n - 1) + [0] * n + [1] * n + [0] * n + [1, 0], np.int8)
    label = np.repeat([0, 1, 2, 4], [2 * n, 2 * n - 1, 2 * n, 2])
    scores = np.where(member == 1, 7.0, 3.0)
    scores[label == 2] *= -1
    assert class_thresholds(scores, member, label, 0.25).tolist() == [7.0, 0.25, 0.25, 0.25, 0.25]
    shuffled = np.random.default_rng(0).permutation(len(member))
    assert class_thresholds(scores[shuffled], member[shuffled], label[shuffled], 0.25)[0] == 7.0


@pytest.mark.parametrize("name", [*THRESHOLDS, "correctness"])
@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
def test_scores_are_the_signal_and_decisions_those_of_the_fit_rows(name: str, evaluation: str) -> None:
    samples = audit(evaluation=evaluation)
    result = result_of(name, samples)
    signal = name.removeprefix("threshold_")
    oriented = signals.SIGNALS[signal][1] * samples.columns[signal]
    assert np.array_equal(result.scores[result.evaluated], oriented[result.evaluated])
    assert result.evaluated.all() == (evaluation == "cross_fit")
    for number, split in enumerate(samples.splits):
        t, _ = naive_threshold(oriented[split.fit], samples.member[split.fit])
        assert result.provenance["thresholds"][number] == {"common": t}
        assert np.array_equal(result.predicted[split.evaluated], oriented[split.evaluated] >= t)


@pytest.mark.parametrize("name", PER_CLASS)
def test_per_class_scores_are_above_zero_where_called_member(name: str) -> None:
    samples = audit()
    result, label = result_of(name, samples), samples.columns["label"]
    signal = ATTACKS[name].signal  # type: ignore[attr-defined]
    oriented = signals.SIGNALS[signal][1] * samples.columns[signal]
    for number, split in enumerate(samples.splits):
        found = result.provenance["thresholds"][number]
        for c in range(4):
            fit, rows = split.fit[label[split.fit] == c], split.evaluated[label[split.evaluated] == c]
            t, accuracy = naive_threshold(oriented[fit], samples.member[fit])
            limit = t if accuracy > 0.5 else found["common"]
            assert found["by_class"].get(str(c), found["common"]) == limit
            assert np.array_equal(result.scores[rows], oriented[rows] - limit)
    assert np.array_equal(result.predicted == 1, result.scores >= 0)


def test_a_class_that_no_fit_row_has_gets_the_common_threshold() -> None:
    samples = audit(evaluation="holdout")
    label = samples.columns["label"].copy()
    (split,) = samples.splits
    label[split.evaluated[:3]] = [9, 9, 17]
    result = result_of("class_threshold_loss", Samples(samples.member, [split], **{**samples.columns, "label": label}))
    common = result.provenance["thresholds"][0]["common"]
    rows = split.evaluated[:3]
    np.testing.assert_array_equal(result.scores[rows], -samples.columns["loss"][rows] - common)


def test_classes_of_other_difficulty_are_where_thresholds_per_class_win() -> None:
    """Members lie 1 above non-members of their class, classes 20 apart: one threshold tells little, four all."""
    member = np.tile([1, 0], 400).astype(np.int8)
    label = np.repeat(np.arange(4), 200).astype(np.int32)
    loss = 20.0 * label + 1 - member + np.random.default_rng(0).uniform(0, 0.9, 800)
    columns = {"loss": loss, "label": label}
    splits = make_splits(member, evaluation="cross_fit", eval_fraction=0.2, seed=1, cv=3)
    samples = Samples(member, splits, **columns)
    assert np.mean(result_of("threshold_loss", samples).predicted == member) < 0.65
    assert np.mean(result_of("class_threshold_loss", samples).predicted == member) > 0.97


def test_correctness_is_the_gap_attack() -> None:
    """Its balanced accuracy is 1/2 + (accuracy on members - on non-members) / 2 (Yeom et al. 2018)."""
    samples = audit(4000, n_classes=8)
    result, right = result_of("correctness", samples), samples.columns["correctness"] == 1
    assert np.array_equal(result.predicted == 1, right)
    rates = [np.mean(result.predicted[samples.member == side] == side) for side in (0, 1)]
    gap = right[samples.member == 1].mean() - right[samples.member == 0].mean()
    assert np.mean(rates) == pytest.approx(0.5 + gap / 2)


@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
def test_attack_p_counts_the_population(evaluation: str) -> None:
    samples = audit(120, evaluation=evaluation)
    loss = samples.columns["loss"] = np.round(samples.columns["loss"], 1)  # ties
    result = result_of("attack_p", samples)
    for number, split in enumerate(samples.splits):
        population = [row for row in split.fit if samples.member[row] == 0]
        for row in split.evaluated:
            assert result.scores[row] == sum(loss[other] >= loss[row] for other in population) / len(population)
        on_fit = []
        for row in split.fit:  # a non-member is not compared with itself
            others = [other for other in population if other != row]
            on_fit.append(sum(loss[other] >= loss[row] for other in others) / len(others))
        t, _ = naive_threshold(np.array(on_fit), samples.member[split.fit])
        assert result.provenance["thresholds"][number] == t
        assert np.array_equal(result.predicted[split.evaluated], result.scores[split.evaluated] >= t)
    assert result.provenance["n_population"] == [
        int((samples.member[split.fit] == 0).sum()) for split in samples.splits
    ]


def test_attack_p_of_non_members_is_uniform() -> None:
    """A fresh non-member's score is k/m, k = 0..m, each with the same probability: mean 1/2, variance near 1/12."""
    samples = audit(20_000, shift=0.0)
    scores = result_of("attack_p", samples).scores
    assert scores.mean() == pytest.approx(0.5, abs=0.01)
    assert scores.var() == pytest.approx(1 / 12, rel=0.02)


@pytest.mark.parametrize("name", NO_GRID)
def test_without_a_leak_nothing_is_found(name: str) -> None:
    """40,000 rows: the accuracy of any decision fixed beforehand has a standard error of .0025 at most."""
    samples = audit(40_000, shift=0.0)
    result = result_of(name, samples)
    rates = [np.mean(result.predicted[samples.member == side] == side) for side in (0, 1)]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.0125)


@pytest.mark.parametrize("name", NO_GRID)
def test_decisions_never_come_from_the_rows_that_are_scored(name: str) -> None:
    """Membership of the evaluated rows turned round changes neither a score nor a decision."""
    samples = audit(evaluation="holdout")
    (split,) = samples.splits
    member = samples.member.copy()
    member[split.evaluated] = 1 - member[split.evaluated]
    one, other = result_of(name, samples), result_of(name, Samples(member, [split], **samples.columns))
    assert np.array_equal(one.scores, other.scores, equal_nan=True)
    assert np.array_equal(one.predicted, other.predicted)


@pytest.mark.parametrize("name", NO_GRID)
def test_samples_mapped_from_a_file_give_the_same(name: str) -> None:
    samples = audit()
    again = Samples.of_arrays({key: np.array(array) for key, array in samples.arrays().items()})
    assert np.array_equal(result_of(name, samples).scores, result_of(name, again).scores)


@pytest.mark.parametrize("name", NO_GRID)
def test_they_take_no_parameters(name: str) -> None:
    assert ATTACKS[name].check({}) == []
    assert ATTACKS[name].check({"C": [1]}) == [("params.C", f"is unknown: {name} takes no parameters")]


def test_every_signal_is_oriented_so_that_members_score_higher() -> None:
    samples = audit(4000)
    others = {attack.name for attack in (LR, KNN, MLP, RF, HGB, QMIA, *ON_REFERENCES, *ON_TRAJECTORIES, *STACKED)}
    assert set(NO_GRID) == set(ATTACKS) - others
    for name in NO_GRID:
        scores = result_of(name, samples).scores
        assert scores[samples.member == 1].mean() > scores[samples.member == 0].mean(), name


def test_one_split_of_two_rows_a_side() -> None:
    """The smallest audit that there is."""
    split = Split(np.arange(4), np.array([0, 0, 1, 1], np.int32), np.arange(4, 8))
    member = np.array([1, 0, 1, 0] * 2, np.int8)
    samples = Samples(member, [split], loss=1.0 - member, label=np.zeros(8, np.int32))
    for name in ("threshold_loss", "class_threshold_loss"):
        assert np.array_equal(result_of(name, samples).predicted[4:], member[4:])
