"""Bounds of scores of which several count as one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mia_batch.metrics.base import count, thinned
from mia_batch.metrics.epsilon import (
    choose_threshold,
    epsilon_over_thresholds,
    out_of_fold_decisions,
    out_of_fold_ranks,
)
from mia_batch.metrics.registry import METRICS, evaluate


@pytest.mark.parametrize("effects", [(1.0, 1.0), (2.0, 2.0), (2.0, 3.5), (10.0, 1.0)])
def test_counts_are_divided_and_what_is_left_over_errs_to_the_safe_side(effects: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        m, n = rng.integers(20, 200, size=2)
        member, said = np.repeat([1, 0], [m, n]), rng.random(m + n) < 0.4
        whole = count(member, said)
        for generous in (False, True):
            some = count(*thinned(member, said, effects, generous=generous))
            assert (some.n_members, some.n_nonmembers) == (int(m / effects[0]), int(n / effects[1]))
            more = (some.tp * effects[0] - whole.tp, whole.fp - some.fp * effects[1])
            reach = effects[0], effects[1]
            for error, limit in zip(more, reach, strict=True):
                assert (-1e-9 <= error < limit) if generous else (-limit < error <= 1e-9)


def test_every_other_score_has_the_distribution_of_all() -> None:
    member, scores = np.repeat([1, 0], [2000, 1000]), np.random.default_rng(1).normal(size=3000)
    truth, kept = thinned(member, scores, (2.0, 2.0), generous=False)
    assert stats.ks_2samp(kept[truth], scores[:2000]).statistic <= 1 / 1000
    assert stats.ks_2samp(kept[~truth], scores[2000:]).statistic <= 1 / 500


def test_an_effect_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="effects: must be 1 or more"):
        thinned([1, 0], [1.0, 0.0], (0.5, 1.0), generous=True)


def test_doubling_every_row_widens_no_interval_and_narrows_none_by_much() -> None:
    """Samples that are all there twice, and count once, have nearly the intervals of one copy, and never narrower."""
    rng = np.random.default_rng(2)
    member = np.repeat([1, 0], 300)
    scores = rng.normal(member * 0.8)
    once = evaluate(member, scores > 0.4, scores)
    twice = evaluate(*(np.repeat(a, 2) for a in (member, scores > 0.4, scores)), effects=(2.0, 2.0))
    for name in METRICS:
        assert twice[name].value == pytest.approx(once[name].value)
        assert twice[name].low <= once[name].low + 1e-9, name
        assert twice[name].high >= once[name].high - 1e-9, name
        assert twice[name].high - twice[name].low <= once[name].high - once[name].low + 0.02, name


def test_a_metric_that_few_samples_leave_undefined_has_no_bound() -> None:
    member, said = np.repeat([1, 0], 10), np.zeros(20)
    said[0] = 1
    found = evaluate(member, said, said, names=["precision"], effects=(4.0, 4.0))["precision"]
    assert (found.value, found.low) == (1.0, 0.0)


def test_out_of_fold_thresholds_are_those_of_the_other_parts() -> None:
    rng = np.random.default_rng(3)
    member = np.tile([True, False], 200)
    scores, part = rng.normal(size=400) + 3 * (member & (rng.random(400) < 0.3)), np.arange(400) // 4 % 5
    said = out_of_fold_decisions(member, scores, part)
    for each in range(5):
        inside = part == each
        threshold = choose_threshold(member[~inside], scores[~inside])
        assert np.array_equal(said[inside], scores[inside] >= threshold)


def test_ranks_are_among_the_nonmembers_of_other_parts() -> None:
    rng = np.random.default_rng(4)
    member, part = rng.random(60) < 0.5, rng.integers(0, 3, 60)
    scores = rng.integers(0, 8, 60).astype(float)
    ranks = out_of_fold_ranks(member, scores, part)
    for i in range(60):
        others = [scores[j] for j in range(60) if part[j] != part[i] and not member[j]]
        assert ranks[i] == pytest.approx(np.mean([other < scores[i] for other in others]))


def test_epsilon_at_four_fprs_claims_nothing_on_noise_and_finds_a_leak() -> None:
    rng = np.random.default_rng(5)
    member, part = np.tile([True, False], 400), np.arange(800) // 2 % 5
    levels = [1 - f for f in (0.5, 0.1, 0.01, 0.001)]

    def bound(scores: np.ndarray) -> float:
        return epsilon_over_thresholds(*thinned(member, out_of_fold_ranks(member, scores, part), (2.0, 2.0),
                                               generous=False), levels).low  # fmt: skip

    claimed = sum(bound(rng.normal(size=800)) > 0 for _ in range(300))
    assert claimed <= stats.binom.isf(0.001, 300, 0.05)
    assert bound(rng.normal(size=800) + 5 * (member & (rng.random(800) < 0.3))) > 1
