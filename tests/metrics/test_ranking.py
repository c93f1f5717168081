"""Metrics of scores against closed forms, published values, naive references and simulated coverage."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_samples import TWO_CLASSES, columns, mixture_bounds, naive_auc, naive_points, two_step_bounds
from scipy import stats
from sklearn import metrics as sk

from mia_batch.metrics import ranking
from mia_batch.metrics.base import UndefinedMetricWarning


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
    assert ("cannot be resolved" in (estimate.reason or "")) == (limit < 1 / (member == 0).sum())
    tops = {label: max(scores[member == label]) for label in (0, 1)}
    held_back = expected == 0 and sum(scores[member == 0] > tops[1]) <= limit * sum(member == 0)
    assert ("top tie group" in (estimate.reason or "")) == held_back


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


def drawn(n_members: int, n_nonmembers: int, *, decimals: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Membership and scores of two normals shifted by 1, tied where rounded."""
    member = np.repeat([1, 0], [n_members, n_nonmembers])
    return member, np.random.default_rng(seed).normal(member, 1.0).round(decimals)


@pytest.mark.parametrize(("n_members", "n_nonmembers"), [(40, 60), (7, 300), (500, 12), (30, 900)])
@pytest.mark.parametrize("fpr", [0.0, 0.004, 0.1, 0.5, 1.0])
def test_bounds_of_the_tpr_are_quantiles_of_the_mixture(n_members: int, n_nonmembers: int, fpr: float) -> None:
    member, scores = drawn(n_members, n_nonmembers)
    found = ranking.tpr_at_fpr_bounds(member, scores, fpr, alpha_low=0.025, alpha_high=0.025)
    assert found == pytest.approx(mixture_bounds(member, scores, fpr, 0.025), abs=1e-9)


@pytest.mark.parametrize("fpr", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_under_ties_the_bounds_take_two_steps(fpr: float, alpha: float) -> None:
    member, scores = drawn(80, 120, decimals=0)
    found = ranking.tpr_at_fpr_bounds(member, scores, fpr, alpha_low=alpha, alpha_high=alpha)
    assert found == pytest.approx(two_step_bounds(member, scores, fpr, alpha))
    assert found != pytest.approx(mixture_bounds(member, scores, fpr, alpha))


def test_which_ties_count() -> None:
    """At FPR .1 of 100 the spread of the rank is 3: a tie group of 4 within ranks 1 to 19 counts, one of 3 does not."""
    member = np.repeat([1, 0], [50, 100])
    for first, size, counts in ((8, 3, False), (8, 4, True), (17, 4, True), (30, 40, False), (20, 90, False)):
        negatives = np.arange(100.0, 0.0, -1.0)
        negatives[first : first + size] = negatives[first]
        scores = np.concatenate([np.linspace(20.5, 110.5, 50), negatives])
        reference = two_step_bounds if counts else mixture_bounds
        found = ranking.tpr_at_fpr_bounds(member, scores, 0.1, alpha_low=0.025, alpha_high=0.025)
        assert found == pytest.approx(reference(member, scores, 0.1, 0.025), abs=1e-9), (first, size)


def test_one_sided_bounds_are_the_ends_of_intervals() -> None:
    member, scores = drawn(300, 500)
    low, high = ranking.tpr_at_fpr_bounds(member, scores, 0.05, alpha_low=0.005, alpha_high=0.05)
    assert low == pytest.approx(ranking.tpr_at_fpr(member, scores, 0.05, level=0.99).low)
    assert high == pytest.approx(ranking.tpr_at_fpr(member, scores, 0.05, level=0.9).high)
    for wrong in (0.0, 0.6):
        with pytest.raises(ValueError, match="alpha_low: must be in"):
            ranking.tpr_at_fpr_bounds(member, scores, 0.05, alpha_low=wrong, alpha_high=0.05)
    with pytest.raises(ValueError, match="both classes, got no members"):
        ranking.tpr_at_fpr_bounds(0 * member, scores, 0.05, alpha_low=0.05, alpha_high=0.05)


@pytest.mark.parametrize(("n_nonmembers", "bounded"), [(35, False), (36, True)])  # .9^35 = .02503, .9^36 = .02253
def test_too_few_nonmembers_give_no_lower_bound(n_nonmembers: int, bounded: bool) -> None:
    member = np.repeat([1, 0], [50, n_nonmembers])
    estimate = ranking.tpr_at_fpr(member, np.arange(len(member))[::-1], 0.1)
    assert estimate.value == 1.0
    assert (estimate.low > 0) == bounded
    assert estimate.reason == (None if bounded else "no lower bound with 35 non-members")


def test_members_among_too_many_tied_nonmembers_are_said() -> None:
    """As nearest neighbours score: 30 members and 12 non-members share the top score, and 10 non-members may pass."""
    scores = np.repeat([1.0, 0.5, 1.0, 0.5], [30, 70, 12, 88])
    estimate = ranking.tpr_at_fpr(np.repeat([1, 0], 100), scores, 0.1)
    assert estimate.value == 0.0
    assert estimate.reason == "0 because the members' top tie group holds 12 non-members, and 10 may pass"
    fewer = ranking.tpr_at_fpr(np.repeat([1, 0], 100), scores, 0.12)
    assert (fewer.value, fewer.reason) == (0.3, None)
    beaten = ranking.tpr_at_fpr(np.repeat([1, 0], 50), np.arange(100.0), 0.1)
    assert (beaten.value, beaten.reason) == (0.0, None)


@pytest.mark.parametrize("n", [2, 5, 40, 400])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_interval_of_auc_rises_with_it_up_to_perfect_separation(n: int, level: float) -> None:
    """A single member sinks past one non-member after another."""
    member, previous = np.repeat([0, 1], n), (1.0, 1.0)
    for passed in range(min(n, 12)):
        scores = np.arange(2.0 * n)
        scores[n] -= passed + (0.5 if passed else 0.0)
        found = ranking.auc(member, scores, level=level)
        assert found.value == pytest.approx(1 - passed / n**2)
        assert found.low <= previous[0] + 1e-12
        mirrored = ranking.auc(member, -scores, level=level)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
        previous = (found.low, found.high)


def test_placements_keep_the_order_of_the_samples() -> None:
    above, below = ranking.placements(np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0]))
    assert above.tolist() == [1.0, 0.5, 0.75]
    assert below.tolist() == pytest.approx([0.5, 1.0])


def test_the_largest_advantage_says_that_it_only_describes() -> None:
    member, scores = drawn(50, 50)
    assert ranking.advantage(member, scores).reason == ranking.OF_THE_MAXIMUM
    assert ranking.advantage(member, scores, threshold=0.5).reason is None


def test_predictive_value_at_an_fpr() -> None:
    member, scores = drawn(400, 600)
    tpr = ranking.tpr_at_fpr(member, scores, 0.05)
    found = ranking.predictive_value_at_fpr(member, scores, 0.05, prior=0.1)
    for got, rate in ((found.value, tpr.value), (found.low, tpr.low), (found.high, tpr.high)):
        assert got == pytest.approx(0.1 * rate / (0.1 * rate + 0.9 * 0.05))
    sure = ranking.predictive_value_at_fpr(member, scores, 0.0, prior=0.1)
    assert (sure.value, sure.low, sure.high) == (1.0, 0.0, 1.0)
    with pytest.warns(UndefinedMetricWarning, match="no member is caught without a false positive"):
        none = ranking.predictive_value_at_fpr(member, -np.abs(scores) * member, 0.0, prior=0.1)
    assert math.isnan(none.value)
    with pytest.warns(UndefinedMetricWarning, match="no members"):
        assert math.isnan(ranking.predictive_value_at_fpr(0 * member, scores, 0.1, prior=0.1).value)
