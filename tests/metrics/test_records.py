"""Claims about records against published numbers, slow references, SciPy and simulated false discoveries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mia_batch.metrics import records


def test_published_numbers() -> None:
    p = records.conformal_p_values(np.arange(1, 20) * 0.05, [2, 0.97, 0.9, 0.5, 0.3])
    assert p == pytest.approx([0.05, 0.05, 0.15, 0.55, 0.75])
    assert not records.benjamini_hochberg(p, q=0.1).any()
    # With q = .125 the limit of the second is .05, which both reach.
    assert records.benjamini_hochberg(p, q=0.125).tolist() == [True, True, False, False, False]


@given(st.lists(st.integers(-3, 3), max_size=12), st.lists(st.integers(-4, 4), max_size=12))
def test_p_values_are_shares_counted_one_by_one(calibration: list[int], scores: list[int]) -> None:
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert records.conformal_p_values(calibration, scores) == pytest.approx(expected)


@given(st.lists(st.integers(0, 1000), max_size=30), st.floats(0.01, 0.5))
def test_rejections_are_those_of_adjusted_p_values(thousandths: list[int], q: float) -> None:
    p = np.array(thousandths) / 1000
    rejected = records.benjamini_hochberg(p, q=q)
    if len(p):
        adjusted = stats.false_discovery_control(p)
        clear = np.abs(adjusted - q) > 1e-9
        assert (rejected == (adjusted <= q))[clear].all()
    else:
        assert rejected.shape == (0,)


def test_a_p_value_at_its_limit_is_rejected_despite_rounding() -> None:
    for m in range(1, 200):
        p = np.ones(m)
        p[: m // 2 + 1] = 0.1 * (m // 2 + 1) / m
        assert records.benjamini_hochberg(p, q=0.1).sum() == m // 2 + 1


def test_nothing_to_compare_with_claims_nothing() -> None:
    assert records.conformal_p_values([], [9.0, math.inf]).tolist() == [1.0, 1.0]
    assert not records.claimed_members([], [9.0], q=0.5).any()
    assert records.claimed_members([0.0], [], q=0.5).shape == (0,)


@pytest.mark.parametrize("decimals", [20, 0])
def test_p_values_of_nonmembers_are_as_rare_as_they_say(decimals: int) -> None:
    """Both ways without ties: at most and, as they are uniform on multiples of 1 / 40, exactly."""
    rng, trials = np.random.default_rng(0), 20_000
    calibration, scores = rng.normal(size=(trials, 39)).round(decimals), rng.normal(size=trials).round(decimals)
    p = np.array([records.conformal_p_values(c, [s])[0] for c, s in zip(calibration, scores, strict=True)])
    for u in (0.025, 0.1, 0.5):
        noise = 3 * math.sqrt(u * (1 - u) / trials)
        assert np.mean(p <= u + 1e-12) <= u + noise
        if decimals == 20:
            assert np.mean(p <= u + 1e-12) >= u - noise


def test_false_claims_are_as_rare_as_they_say() -> None:
    """A fifth of 200 records are members, far up: with q = .2 the share of false claims is .2 x .8 on average."""
    rng, trials, q = np.random.default_rng(1), 400, 0.2
    shares, found = [], []
    for _ in range(trials):
        claimed = records.claimed_members(rng.normal(size=400), rng.normal(np.repeat([3.0, 0.0], [40, 160])), q=q)
        shares.append(claimed[40:].sum() / max(1, claimed.sum()))
        found.append(claimed[:40].mean())
    error = 3 * np.std(shares) / math.sqrt(trials)
    assert abs(np.mean(shares) - 0.8 * q) <= error
    assert np.mean(found) > 0.7


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="calibration: must not be NaN, got NaN at 1"):
        records.conformal_p_values([0.0, math.nan], [0.0])
    with pytest.raises(ValueError, match="scores: must have one dimension"):
        records.conformal_p_values([0.0], [[0.0]])
    with pytest.raises(ValueError, match=r"p_values: must be in \[0, 1\], got 1.5"):
        records.benjamini_hochberg([0.5, 1.5], q=0.1)
    for q in (0.0, 1.0):
        with pytest.raises(ValueError, match="q: must be in"):
            records.benjamini_hochberg([0.5], q=q)
