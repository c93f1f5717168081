"""The plan of references: fair coins, complements, units, and pairs that depend on nothing but seed and number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, kstest

from mia_batch.attacks.reference_plan import ReferencePlan, plan_references


def test_pairs_are_complements() -> None:
    plan = plan_references(np.arange(501), 8, seed=3)
    assert (plan.included.shape, plan.included.dtype) == ((8, 501), np.bool_)
    np.testing.assert_array_equal(plan.included[1::2], ~plan.included[0::2])
    np.testing.assert_array_equal(plan.included.sum(0), np.full(501, 4))
    assert (plan.seeds.shape, plan.seeds.dtype, len(set(plan.seeds))) == ((8,), np.uint32, 8)


def test_each_coin_is_fair_and_no_fairer_than_coins_are() -> None:
    """Sizes of the models are binomial: neither biased nor balanced by design, whose sizes are all M/2."""
    n_pairs, n_samples = 400, 1000
    first = plan_references(np.arange(n_samples), 2 * n_pairs, seed=1).included[0::2]
    assert binomtest(int(first.sum()), first.size).pvalue > 1e-3
    for axis, n in ((0, n_pairs), (1, n_samples)):
        counts = first.sum(axis)
        jitter = np.random.default_rng(0).random(len(counts))  # a randomised CDF is uniform, if the counts are binomial
        uniform = binom.cdf(counts - 1, n, 0.5) + jitter * binom.pmf(counts, n, 0.5)
        assert kstest(uniform, "uniform").pvalue > 1e-3
        assert 0.8 < counts.var() / (n / 4) < 1.25


def test_coins_of_samples_and_of_pairs_are_independent() -> None:
    first = plan_references(np.arange(400), 800, seed=2).included[0::2].astype(float) - 0.5
    for rows in (first, first.T):
        correlation = np.corrcoef(rows)[np.triu_indices(400, 1)]
        assert abs(correlation.mean()) < 4 / np.sqrt(400 * len(correlation))
        assert np.sqrt(400) * correlation.std() == pytest.approx(1, abs=0.02)
        assert np.sqrt(400) * abs(correlation).max() < 6


def test_the_other_models_tell_nothing_of_a_model_once_its_complement_is_left_out() -> None:
    """On null data the number of IN references has an AUC of .5; with the complement kept it says everything."""
    included = plan_references(np.arange(4000), 6, seed=5).included
    others = included[2:].sum(0)
    assert set(others) == {2}  # the same for every sample: nothing to tell
    of_halves = included[2::2].sum(0)
    means = [of_halves[included[0] == side].mean() for side in (True, False)]
    assert means[0] == pytest.approx(means[1], abs=4 * np.sqrt(2 / 4 * 2 / 2000))
    np.testing.assert_array_equal(included[1:].sum(0), 3 - included[0])


def test_samples_of_one_unit_share_their_coins() -> None:
    unit = np.array([7, 0, 7, 3, 0, 9, 7])
    included = plan_references(unit, 40, seed=1).included
    for name in np.unique(unit):
        assert (included[:, unit == name] == included[:, unit == name][:, :1]).all()
    assert len({included[:, i].tobytes() for i in (0, 1, 3, 5)}) == 4
    np.testing.assert_array_equal(included[:, [1, 3, 0, 5]], plan_references(np.arange(4), 40, seed=1).included)


def test_a_larger_plan_begins_with_the_smaller_and_another_seed_is_another_plan() -> None:
    unit = np.arange(60)
    small, large = plan_references(unit, 4, seed=9), plan_references(unit, 10, seed=9)
    np.testing.assert_array_equal(large.included[:4], small.included)
    np.testing.assert_array_equal(large.seeds[:4], small.seeds)
    grown = small.extended(large)
    np.testing.assert_array_equal(grown.included, large.included)
    np.testing.assert_array_equal(grown.seeds, large.seeds)
    other = plan_references(unit, 4, seed=10)
    assert not set(other.seeds) & set(small.seeds)
    assert 0 < (other.included != small.included).mean() < 1


def test_an_extension_keeps_what_was_drawn_otherwise() -> None:
    """As by a version of NumPy whose streams differ."""
    drawn, now = plan_references(np.arange(9), 2, seed=1), plan_references(np.arange(9), 4, seed=2)
    grown = drawn.extended(now)
    np.testing.assert_array_equal(grown.included[:2], drawn.included)
    np.testing.assert_array_equal(grown.included[2:], now.included[2:])
    with pytest.raises(ValueError, match="more must have 9 samples, got 3"):
        drawn.extended(plan_references(np.arange(3), 4, seed=1))


@pytest.mark.parametrize("n_references", [-2, 0, 1, 3, 7])
def test_a_number_that_makes_no_pairs_is_refused(n_references: int) -> None:
    with pytest.raises(ValueError, match=f"must be an even number of at least 2, got {n_references}"):
        plan_references(np.arange(5), n_references, seed=1)


def test_what_is_no_plan_is_refused() -> None:
    good = plan_references(np.arange(5), 4, seed=1)
    with pytest.raises(ValueError, match=r"model 2j \+ 1 must have the samples that model 2j has not"):
        ReferencePlan(good.included[[0, 2, 1, 3]], good.seeds)
    with pytest.raises(ValueError, match="an even number of models"):
        ReferencePlan(good.included[:3], good.seeds[:3])
    with pytest.raises(ValueError, match=r"included must be bools \(K, M\), got int8"):
        ReferencePlan(good.included.astype(np.int8), good.seeds)
    with pytest.raises(ValueError, match=r"seeds must be uint32 \(4,\), got int64"):
        ReferencePlan(good.included, good.seeds.astype(np.int64))
