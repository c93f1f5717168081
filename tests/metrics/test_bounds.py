"""One-sided bounds: known answers, degenerate samples, and coverage from both sides."""

import math

import numpy as np
import pytest
from scipy import stats

from mia_batch.metrics.base import clopper_pearson, melded_lower
from mia_batch.metrics.bounds import (
    balanced_accuracy_bounds,
    epsilon,
    epsilon_lower,
    epsilon_threshold,
    precision_at_equal_sides,
    tpr_at_fpr_bounds,
)
from mia_batch.metrics.classification import balanced_accuracy
from mia_batch.metrics.ranking import tpr_at_fpr

ALPHA = 0.05
ONE_SIDED = {"alpha_low": ALPHA, "alpha_high": ALPHA}


def sides(n: int) -> np.ndarray:
    return np.repeat([True, False], n)


def test_epsilon_of_a_perfect_attack() -> None:
    member = sides(500)
    assert epsilon_lower(member, member, alpha=0.01) == pytest.approx(4.541916, abs=1e-6)
    assert epsilon_lower(member, ~member, alpha=0.01) == 0


def test_epsilon_looks_at_both_errors() -> None:
    assert epsilon(0.5, 0.1) == pytest.approx(math.log(5))
    assert epsilon(0.9, 0.5) == pytest.approx(math.log(5))  # TNR .5 over FNR .1
    assert epsilon(0.5, 0.0) == math.inf
    assert epsilon(0.001, 0.001, delta=0.01) == 0


def test_delta_takes_from_epsilon() -> None:
    member = sides(500)
    said = member & (np.arange(1000) % 2 == 0)
    assert epsilon_lower(member, said, delta=0.1, alpha=ALPHA) < epsilon_lower(member, said, alpha=ALPHA)


def test_a_threshold_of_out_of_fold_scores_finds_the_exposed() -> None:
    member, scores = sides(100), np.concatenate([np.arange(100.0), np.arange(100.0) - 30])
    threshold = epsilon_threshold(member, scores)
    naive = max(np.unique(scores), key=lambda t: (epsilon_lower(member, scores >= t, alpha=ALPHA), t))
    assert threshold == naive


def test_two_sided_interval_is_made_of_two_bounds() -> None:
    rng = np.random.default_rng(1)
    member, said = sides(60), rng.random(120) < 0.4
    whole = balanced_accuracy(member, said, level=1 - 2 * ALPHA)
    assert balanced_accuracy_bounds(member, said, **ONE_SIDED) == pytest.approx((whole.low, whole.high))


@pytest.mark.parametrize(("rate", "alpha"), [(0.6, 0.025), (0.4, 0.05)])
def test_the_balanced_accuracys_bound_misses_at_its_level_exactly(rate: float, alpha: float) -> None:
    """Over all outcomes of 1,000 a side, where TPR and TNR are `rate`: it lies above that hardly less than stated."""
    n, reach = 1000, 85  # more than five standard deviations
    missing = 0.0
    least = n
    for right in range(int(n * rate) - reach, int(n * rate) + reach):  # of members; for more of them less is needed
        while least and melded_lower((right, least - 1), (n, n), alpha) > rate:
            least -= 1
        missing += stats.binom.pmf(right, n, rate) * stats.binom.sf(least - 1, n, rate)
    assert 0.9 * alpha < missing <= alpha


def missed(found: tuple[float, float], truth: float) -> np.ndarray:
    return np.array([found[0] > truth, found[1] < truth])


def assert_share(count: int, n_trials: int, low: float, high: float) -> None:
    """The count may be that of an event with a probability in [low, high]."""
    assert stats.binom.ppf(0.001, n_trials, low) <= count <= stats.binom.isf(0.001, n_trials, high), count / n_trials


@pytest.mark.parametrize(("n", "fpr"), [(400, 0.1), (2000, 0.01)])
def test_tpr_bounds_miss_at_their_level_and_not_much_less(n: int, fpr: float) -> None:
    rng, member, trials = np.random.default_rng(11), sides(n), 400
    truth = stats.norm.sf(stats.norm.isf(fpr) - 1)
    count = np.zeros(2, dtype=int)
    for _ in range(trials):
        scores = np.concatenate([rng.normal(1, 1, n), rng.normal(0, 1, n)])
        count += missed(tpr_at_fpr_bounds(member, scores, fpr, **ONE_SIDED), truth)
    for each in count:
        assert_share(each, trials, 0.01, ALPHA)


def test_tpr_bounds_are_tighter_than_the_two_steps() -> None:
    rng, member = np.random.default_rng(2), sides(1000)
    scores = rng.normal(member.astype(float))
    low, high = tpr_at_fpr_bounds(member, scores, 0.1, alpha_low=0.025, alpha_high=0.025)
    wide = tpr_at_fpr(member, scores, 0.1)
    assert wide.low < low < wide.value < high < wide.high
    assert high - low < 0.8 * (wide.high - wide.low)


def test_ties_keep_the_bound_valid() -> None:
    """Scores in three steps: the threshold falls into a tie group, whose members are above it or not."""
    rng, member, n, trials = np.random.default_rng(3), sides(300), 300, 300
    low_misses = high_misses = 0
    for _ in range(trials):
        scores = np.concatenate([rng.integers(0, 3, n) + (rng.random(n) < 0.2), rng.integers(0, 3, n)]).astype(float)
        low, high = tpr_at_fpr_bounds(member, scores, 0.1, **ONE_SIDED)
        truth = 0.2 / 3  # above the highest value of non-members
        low_misses += low > truth
        high_misses += high < truth
    assert_share(low_misses, trials, 0, ALPHA)
    assert_share(high_misses, trials, 0, ALPHA)


def test_too_few_nonmembers_have_no_lower_bound() -> None:
    member = sides(50)
    low, high = tpr_at_fpr_bounds(member, member.astype(float), 0.01, **ONE_SIDED)
    assert (low, high) == (0.0, 1.0)


def test_precision_at_equal_sides() -> None:
    member = np.repeat([True, False], [800, 200])
    value, low, high = precision_at_equal_sides(member, np.ones(1000, dtype=bool), alpha=ALPHA)
    assert value == 0.5
    assert low < 0.5 < high < 0.51
    assert all(map(math.isnan, precision_at_equal_sides(member, np.zeros(1000, dtype=bool), alpha=ALPHA)))
    perfect = precision_at_equal_sides(member, member, alpha=ALPHA)
    assert perfect[0] == perfect[2] == 1
    assert perfect[1] > 0.98


def test_precision_bounds_cover() -> None:
    rng, member, trials = np.random.default_rng(4), np.repeat([True, False], [300, 100]), 400
    count = np.zeros(2, dtype=int)
    for _ in range(trials):
        said = rng.random(400) < np.where(member, 0.6, 0.3)
        count += missed(precision_at_equal_sides(member, said, alpha=ALPHA)[1:], 0.6 / 0.9)
    for each in count:
        assert_share(each, trials, 0.01, ALPHA)


def test_two_bounds_are_clopper_pearsons_where_nothing_is_mixed() -> None:
    """With an FPR that k non-members out of very many mark, the mixture is one Beta distribution."""
    member = np.repeat([True, False], [50, 200_000])
    scores = np.concatenate([np.repeat([2.0, -2.0], 25), np.linspace(-1, 1, 200_000)])
    low, high = tpr_at_fpr_bounds(member, scores, 0.1, **ONE_SIDED)
    assert (low, high) == pytest.approx(clopper_pearson(25, 50, level=1 - 2 * ALPHA), abs=1e-9)
