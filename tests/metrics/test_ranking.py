"""Metrics of scores against closed forms, published values, naive references and simulated coverage."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_samples import TWO_CLASSES, columns, naive_auc, naive_points
from scipy import stats
from sklearn import metrics as sk

from mia_batch.metrics import ranking


def test_loss_attack_of_six_against_six() -> None:
    scores = -np.array([0.1, 0.2, 1.3, 0.4, 0.5, 0.6, 1.1, 1.2, 1.3, 0.4, 1.5, 1.6])
    member = np.repeat([1, 0], 6)
    assert ranking.auc(member, scores).value == pytest.approx(5 / 6)
    assert ranking.advantage(member, scores).value == pytest.approx(2 / 3)


def test_three_against_three() -> None:
    member, scores = [0, 0, 0, 1, 1, 1], [0.1, 0.6, 0.2, 0.45, 0.9, 0.99]
    assert ranking.auc(member, scores).value == pytest.approx(8 / 9)
    assert ranking.advantage(member, scores, threshold=0.5).value == pytest.approx(1 / 3)
    assert ranking.tpr_at_fpr(member, scores, 0.0).value == pytest.approx(2 / 3)
    assert ranking.tpr_at_fpr(member, scores, 0.4).value == 1.0


def test_ties_are_worth_one_half() -> None:
    assert ranking.auc([1, 0, 1, 0], [9, 9, 5, 5]).value == 0.5


def test_shifted_normals() -> None:
    rng = np.random.default_rng(0)
    member = np.repeat([1, 0], 200_000)
    estimate = ranking.auc(member, rng.normal(member, 1.0))
    assert estimate.value == pytest.approx(stats.norm.cdf(1 / math.sqrt(2)), abs=3e-3)
    assert estimate.low < 0.76024994 < estimate.high


@given(TWO_CLASSES)
def test_auc_and_roc_agree_with_naive_references(rows: list[tuple[int, int, int]]) -> None:
    member, _, scores = columns(rows)
    assert ranking.auc(member, scores).value == pytest.approx(naive_auc(member, scores))
    assert ranking.auc(member, scores).value == pytest.approx(sk.roc_auc_score(member, scores))
    tpr, fpr = ranking.roc_points(member, scores)
    np.testing.assert_allclose(np.column_stack([tpr, fpr]), naive_points(member, scores))
    expected = max(t - f for t, f in naive_points(member, scores))
    assert ranking.advantage(member, scores).value == pytest.approx(expected)


@given(TWO_CLASSES, st.sampled_from([0.0, 0.001, 0.1, 1 / 3, 0.5, 0.29, 1.0]))
def test_tpr_at_fpr_is_the_brute_force_maximum(rows: list[tuple[int, int, int]], limit: float) -> None:
    member, _, scores = columns(rows)
    expected = max(t for t, f in naive_points(member, scores) if f <= limit)
    estimate = ranking.tpr_at_fpr(member, scores, limit)
    assert estimate.value == pytest.approx(expected)
    assert (estimate.reason is not None) == (limit < 1 / (member == 0).sum())


def test_limit_met_exactly_despite_rounding() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point, and 29 / 100 <= 0.29 holds.
    member = np.array([0] * 100 + [1] * 100)
    scores = np.concatenate([np.arange(100), np.arange(100) - 0.5])
    assert ranking.tpr_at_fpr(member, scores, 0.29).value == 0.29


def test_all_scores_equal() -> None:
    member = np.repeat([1, 0], 50)
    scores = np.full(100, 0.5)
    assert ranking.auc(member, scores).value == 0.5
    assert ranking.auc(member, scores).low < 0.4
    assert ranking.advantage(member, scores).value == 0.0
    assert ranking.tpr_at_fpr(member, scores, 0.1).value == 0.0
    assert ranking.tpr_at_fpr(member, scores, 1.0).value == 1.0


def test_separated_classes_keep_an_interval() -> None:
    member = np.repeat([0, 1], 40)
    estimate = ranking.auc(member, np.arange(80))
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.025 ** (1 / 40))
    assert ranking.auc(member, -np.arange(80)).high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_infinite_scores_are_ordered() -> None:
    member, scores = [1, 1, 0, 0], [math.inf, -math.inf, 0.0, -math.inf]
    assert ranking.auc(member, scores).value == pytest.approx(naive_auc(np.array(member), np.array(scores)))
    assert ranking.tpr_at_fpr(member, scores, 1.0).value == 1.0
    assert ranking.tpr_at_fpr(member, scores, 0.5).value == 0.5


def normal_scores(rng: np.random.Generator, n: int, shift: float) -> np.ndarray:
    return rng.normal(shift, 1.0, n)


def neighbour_scores(rng: np.random.Generator, n: int, shift: float) -> np.ndarray:
    """Four levels, as of 3 nearest neighbours."""
    return rng.binomial(3, stats.norm.cdf(shift - 0.3), n) / 3


def rare_scores(rng: np.random.Generator, n: int, shift: float) -> np.ndarray:
    """A few members leak far above everyone, the rest not at all."""
    return np.where(rng.random(n) < 0.05 * shift, 9.0, 0.0) + rng.normal(size=n)


@lru_cache
def population(draw: Callable, shift: float) -> dict[str, float]:
    """True values, from so many samples that their error does not count."""
    rng, n = np.random.default_rng(99), 100_000
    member, scores = np.repeat([1, 0], n), np.concatenate([draw(rng, n, shift), draw(rng, n, 0.0)])
    return {
        "auc": ranking.auc(member, scores).value,
        "advantage": ranking.advantage(member, scores).value if shift else 0.0,
        "tpr_at_fpr_0.1": ranking.tpr_at_fpr(member, scores, 0.1).value,
        "tpr_at_fpr_0.01": ranking.tpr_at_fpr(member, scores, 0.01).value,
    }


CASES = [(normal_scores, 0.0), (normal_scores, 1.0), (normal_scores, 2.5), (neighbour_scores, 0.0),
         (neighbour_scores, 1.5), (rare_scores, 1.0)]  # fmt: skip


@pytest.mark.parametrize(("draw", "shift"), CASES)
@pytest.mark.parametrize(("n_members", "n_nonmembers"), [(25, 25), (150, 20), (200, 300)])
def test_coverage_of_the_score_metrics(draw: Callable, shift: float, n_members: int, n_nonmembers: int) -> None:
    truth = population(draw, shift)
    rng, trials = np.random.default_rng(7), 100
    member = np.repeat([1, 0], [n_members, n_nonmembers])
    covered = dict.fromkeys(truth, 0)
    for _ in range(trials):
        scores = np.concatenate([draw(rng, n_members, shift), draw(rng, n_nonmembers, 0.0)])
        estimates = {
            "auc": ranking.auc(member, scores),
            "advantage": ranking.advantage(member, scores),
            "tpr_at_fpr_0.1": ranking.tpr_at_fpr(member, scores, 0.1),
            "tpr_at_fpr_0.01": ranking.tpr_at_fpr(member, scores, 0.01),
        }
        for name, estimate in estimates.items():
            covered[name] += estimate.low <= truth[name] <= estimate.high
    # 95 % less three standard errors of 100 trials.
    for name, hits in covered.items():
        assert hits / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials), name


def test_no_signal_gives_no_false_advantage() -> None:
    rng, member = np.random.default_rng(11), np.repeat([1, 0], 500)
    false = sum(ranking.advantage(member, rng.normal(size=1000)).low > 0 for _ in range(300))
    assert false / 300 <= 0.025
