"""Slices against closed forms and slow references; the worst one's bound in simulated audits."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from mia_batch.metrics.base import Estimate, clopper_pearson
from mia_batch.metrics.registry import evaluate
from mia_batch.metrics.slices import (
    WORST_BY,
    Slice,
    SliceEstimates,
    evaluate_slices,
    level_together,
    slices_by_value,
    too_few,
    worst_slices,
)


def test_a_slice_for_each_value() -> None:
    value = np.array([3, 1, 3, 1, 7])
    found = slices_by_value("age", value, {1: "old", 3: "young"})
    assert [(each.name, each.rows.tolist()) for each in found] == [
        ("age=old", [1, 3]), ("age=young", [0, 2]), ("age=7", [4]),
    ]  # fmt: skip
    assert slices_by_value("age", value[:0], {}) == []


def test_too_few_has_a_reason() -> None:
    assert too_few([0] * 10 + [1] * 10) is None
    assert too_few([0] * 9 + [1] * 10) == "10 members and 9 non-members, fewer than 10 of one"
    assert too_few([1] * 30) == "30 members and 0 non-members, fewer than 10 of one"
    assert too_few([]) == "0 members and 0 non-members, fewer than 10 of one"
    assert too_few([0, 1], fewest=1) is None


def test_bonferroni() -> None:
    assert level_together(1) == pytest.approx(0.95)
    assert level_together(10) == pytest.approx(0.995)
    assert level_together(0) == pytest.approx(0.95)
    with pytest.raises(ValueError, match="level: must be in"):
        level_together(3, level=1.0)


def sample(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, 300)
    scores = rng.normal(member * 0.8)
    return member, (scores > 0.4).astype(int), scores


def test_a_slice_has_what_its_samples_alone_have() -> None:
    member, predicted, scores = sample()
    slices = slices_by_value("class", np.arange(300) % 3, {})
    found = evaluate_slices(member, predicted, scores, slices, names=["recall", "auc"], n_attacks=2)
    for i, each in enumerate(slices):
        rows = np.arange(300) % 3 == i
        alone = [evaluate(member[rows], predicted[rows], scores[rows], names=["recall", "auc"], level=level)
                 for level in (0.95, 1 - 0.05 / 6)]  # fmt: skip
        assert [found[each.name].own, found[each.name].together] == alone
    whole = evaluate_slices(member, predicted, scores, [Slice("all", np.arange(300))], names=["auc"])["all"]
    assert whole.own == whole.together == evaluate(member, predicted, scores, names=["auc"])


def test_samples_that_count_less_widen_their_slice() -> None:
    member, predicted, scores = sample()
    slices = slices_by_value("class", np.arange(300) % 2, {})
    found = evaluate_slices(
        member, predicted, scores, slices, names=["recall"], effects=lambda rows: (4.0, 4.0) if rows[0] else (1.0, 1.0)
    )
    one, four = (found[each.name].own["recall"] for each in slices)
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(2, rel=0.2)


def test_what_a_slice_does_not_define_has_a_reason_and_no_warning() -> None:
    member, scores = np.repeat([0, 1], 20), np.zeros(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate_slices(
            member, np.zeros(40, dtype=int), scores, [Slice("a", np.arange(40)), Slice("none", np.arange(0))],
            names=["precision", "auc"],
        )  # fmt: skip
    assert math.isnan(found["a"].own["precision"].value)
    assert found["a"].own["precision"].reason == "no sample is predicted a member"
    assert found["a"].own["auc"].value == 0.5
    assert math.isnan(found["none"].own["auc"].value)
    assert "precision" not in worst_slices(found)
    assert worst_slices(found)["auc"][0] == "a"


def test_the_worst_has_the_highest_lower_bound() -> None:
    def of(value: float, low: float) -> SliceEstimates:
        each = {"auc": Estimate(value, low, 1.0)}
        return SliceEstimates(each, each)

    found = {"wide": of(0.9, 0.5), "sure": of(0.8, 0.7), "same": of(0.8, 0.7), "higher": of(0.85, 0.7)}
    assert worst_slices(found)["auc"] == ("higher", Estimate(0.85, 0.7, 1.0))
    assert worst_slices({name: found[name] for name in ("sure", "same")})["auc"][0] == "sure"
    assert worst_slices({}) == {}
    assert worst_slices(evaluate_slices([0, 1], [0, 1], [0.0, 1.0], [], names=["auc"])) == {}


# 10 slices of 100 members and 100 non-members
MEMBER, SLICES = np.arange(2000) // 10 % 2, slices_by_value("class", np.arange(2000) % 10, {})


@pytest.mark.parametrize("level", [0.95, 0.6])
def test_the_worst_recall_exceeds_the_truth_as_often_as_counting_says(level: float) -> None:
    """Without a leak, recall .5: neither too often nor too rarely, and by hand the odds that some slice is too high."""
    rng, trials, above, wrong = np.random.default_rng(6), 800, 0, 0
    for _ in range(trials):
        predicted = rng.integers(0, 2, 2000)
        found = evaluate_slices(MEMBER, predicted, predicted.astype(float), SLICES, names=["recall"], level=level)
        _, worst = worst_slices(found)["recall"]
        above += worst.low > 0.5
        wrong += not worst.low <= 0.5 <= worst.high
    tail = (1 - level) / 20
    fewest = next(k for k in range(101) if clopper_pearson(k, 100, level=1 - 2 * tail)[0] > 0.5)
    expected = 1 - (1 - stats.binom.sf(fewest - 1, 100, 0.5)) ** 10
    assert abs(above / trials - expected) <= 3 * math.sqrt(expected * (1 - expected) / trials)
    assert 0 < expected <= (1 - level) / 2
    assert wrong / trials <= 1 - level + 3 * math.sqrt(level * (1 - level) / trials)


def test_the_worst_slice_of_a_clean_model_is_not_above_the_truth() -> None:
    """Balanced accuracy: the bound is wrong in at most 5 %; one that ignores how many slices there are more often."""
    rng, trials, wrong, alone = np.random.default_rng(8), 150, 0, 0
    for _ in range(trials):
        predicted = rng.integers(0, 2, 2000)
        found = evaluate_slices(MEMBER, predicted, predicted, SLICES, names=[WORST_BY])
        _, worst = worst_slices(found)[WORST_BY]
        wrong += not worst.low <= 0.5 <= worst.high
        alone += max(each.own[WORST_BY].low for each in found.values()) > 0.5
    assert wrong / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert alone / trials > 0.1


def test_a_slice_that_leaks_is_found() -> None:
    rng = np.random.default_rng(7)
    member, number = np.arange(4000) % 2, np.arange(4000) // 2 % 20
    hits = 0
    for _ in range(20):
        right = rng.random(4000) < np.where(number == 4, 0.8, 0.5)
        predicted = np.where(right, member, 1 - member)
        slices = slices_by_value("class", number, {})
        name, worst = worst_slices(evaluate_slices(member, predicted, predicted, slices, names=[WORST_BY]))[WORST_BY]
        hits += name == "class=4" and worst.low > 0.6
    assert hits >= 19
