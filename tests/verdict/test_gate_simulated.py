"""The gate's errors, on attacks whose balanced accuracy is known: neither too many nor much fewer than it states."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats
from simulated_attacks import decisions, exposed, verdict_of

from mia_batch.metrics.base import melded_lower

TRIALS = 200
ALPHA = 0.05


def outcomes(accuracy: float, n: int, n_attacks: int, *, seed: int = 20) -> Counter[str]:
    rng = np.random.default_rng(seed)
    return Counter(verdict_of(decisions(rng, n, accuracy, n_attacks)).outcome for _ in range(TRIALS))


def assert_share(count: int, low: float, high: float) -> None:
    """The count may be that of an event with a probability in [low, high]."""
    assert stats.binom.ppf(0.001, TRIALS, low) <= count <= stats.binom.isf(0.001, TRIALS, high), count / TRIALS


@pytest.mark.parametrize(("rate", "alpha"), [(0.6, 0.025), (0.4, 0.05)])
def test_the_bound_of_balanced_accuracy_misses_at_its_level_exactly(rate: float, alpha: float) -> None:
    """Over all outcomes of 1,000 a side, where TPR and TNR are `rate`: it lies above that hardly less than stated."""
    n, reach = 1000, 85  # more than five standard deviations
    missing, least = 0.0, n
    for right in range(int(n * rate) - reach, int(n * rate) + reach):  # of members; for more of them less is needed
        while least and melded_lower((right, least - 1), (n, n), alpha) > rate:
            least -= 1
        missing += stats.binom.pmf(right, n, rate) * stats.binom.sf(least - 1, n, rate)
    assert 0.9 * alpha < missing <= alpha


@pytest.mark.slow
def test_no_leak_is_found_where_there_is_none() -> None:
    found = outcomes(0.5, 200, 4)
    assert found["leak"] == 0
    assert_share(found["no leak"], 0.85, 0.97)


@pytest.mark.slow
@pytest.mark.parametrize(("n_attacks", "at_least"), [(1, 0.008), (4, 0.003)])
def test_a_leak_at_the_level_is_found_as_often_as_stated(n_attacks: int, at_least: float) -> None:
    assert_share(outcomes(0.6, 200, n_attacks)["leak"], at_least, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "n_attacks", "at_least"), [(200, 1, 0.015), (1000, 1, 0.02), (200, 4, 0.0)])
def test_just_above_the_level_no_leak_is_as_rare_as_stated(n: int, n_attacks: int, at_least: float) -> None:
    assert_share(outcomes(0.602, n, n_attacks)["no leak"], at_least, ALPHA)


@pytest.mark.slow
def test_a_third_of_the_members_exposed_is_found_and_a_tenth_never_passes() -> None:
    rng = np.random.default_rng(21)
    found = Counter(
        verdict_of({"known": exposed(rng, 1000, 0.3)} | decisions(rng, 1000, 0.5, 3)).outcome for _ in range(100)
    )
    assert found["leak"] >= 95
    few = Counter(
        verdict_of({"known": exposed(rng, 200, 0.1)} | decisions(rng, 200, 0.5, 3)).outcome for _ in range(100)
    )
    assert few["no leak"] <= 3


def test_power_is_as_measured() -> None:
    assert_share(outcomes(0.7, 200, 1)["leak"], 0.95, 1.0)
    assert_share(outcomes(0.65, 1000, 1)["leak"], 0.97, 1.0)
