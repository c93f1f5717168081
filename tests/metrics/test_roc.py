"""ROC curves with bands: at each point what `tpr_at_fpr` says, with and without ties, and of samples that are fewer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special, stats

from mia_batch.metrics import ranking
from mia_batch.metrics.ranking import FPRS, _mixture_lower, fpr_name, roc_band, roc_fprs, tpr_at_fpr
from mia_batch.metrics.registry import evaluate, roc


def samples(n: int, *, ties: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + ties)
    member = np.arange(n) % 3 > 0
    scores = rng.normal(member * 1.0)
    return member.astype(np.int8), np.round(scores * ties) / ties if ties else scores


@pytest.mark.parametrize(("n", "ties"), [(30, 0), (600, 0), (3000, 0), (600, 4), (3000, 1)])
def test_each_point_is_that_of_tpr_at_fpr(n: int, ties: int) -> None:
    member, scores = samples(n, ties=ties)
    fprs = roc_fprs(int((member == 0).sum()), n_points=12)
    found = roc_band(member, scores, fprs, level=0.9)
    for i, fpr in enumerate(fprs):
        alone = tpr_at_fpr(member, scores, float(fpr), level=0.9)
        assert (found.tpr[i], found.low[i], found.high[i]) == (alone.value, alone.low, alone.high)
    assert (np.diff(found.tpr) >= 0).all()
    assert found.tpr[-1] == 1


def test_the_band_of_samples_that_belong_together_is_that_of_the_metrics() -> None:
    member, scores = samples(1500)
    metrics = evaluate(member, scores > 0, scores, effects=(1.7, 2.0))
    found = roc(member, scores, FPRS, effects=(1.7, 2.0))
    for i, fpr in enumerate(FPRS):
        alone = metrics[fpr_name(fpr)]
        assert (found.tpr[i], found.low[i], found.high[i]) == (alone.value, alone.low, alone.high)
    wide, narrow = roc(member, scores, [0.1], effects=(4.0, 4.0)), roc(member, scores, [0.1])
    assert wide.low[0] < narrow.low[0] < narrow.high[0] < wide.high[0]


def test_fprs_are_steps_that_are_there() -> None:
    for n in (1, 2, 7, 1000, 500_000):
        found = roc_fprs(n)
        assert found[-1] == 1
        assert (np.diff(found) > 0).all()
        assert len(found) <= 32 + len(FPRS)
        steps = found[~np.isin(found, FPRS)] * n
        assert steps == pytest.approx(np.round(steps), abs=1e-6)
        assert set(FPRS) <= set(found)


def lower_bound_from_the_whole_interval(counts: np.ndarray, m: int, weight: np.ndarray, tail: float) -> float:
    """The quantile of the mixture of Beta(c, m - c + 1), or 0 for c = 0, each term alone, sought in all of [0, 1]."""
    there = counts > 0
    none = weight[~there].sum()

    def excess(x: float) -> float:
        return float(special.betainc(counts[there], m - counts[there] + 1, x) @ weight[there]) + none - tail

    if excess(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-14)) if excess(1.0) > 0 else 1.0


@pytest.mark.parametrize("tail", [0.025, 1e-7])
@pytest.mark.parametrize(
    ("m", "n", "slope"), [(1, 200, 1.0), (5, 4000, 0.1), (300, 300, 1.5), (40_000, 500, 0.02), (40_000, 60_000, 0.9)]
)
def test_a_bound_from_near_its_place_is_that_from_the_whole_interval(m: int, n: int, slope: float, tail: float) -> None:
    """Where counts rise evenly, jump, stand still, or all members are caught."""
    for fpr in (0.0005, 0.01, 0.3, 0.97):
        first = max(0, int(n * fpr - 9 * np.sqrt(n * fpr)) - 30)
        k = np.arange(first, min(n, first + 20_000) + 1)
        weight = stats.binom.pmf(k, n, fpr)
        for counts in (k * slope * m / n, np.where(k > n * fpr, 0.9 * m, 0.1 * m), np.full(len(k), m // 2), k * 0 + m):
            whole = np.minimum(counts, m).astype(np.int64)
            expected = lower_bound_from_the_whole_interval(whole, m, weight, tail)
            assert _mixture_lower(whole, m, weight, tail) == pytest.approx(expected, abs=1e-9, rel=0)


def test_only_the_bounds_that_are_wanted_are_sought() -> None:
    member, scores = samples(900)
    both = roc_band(member, scores, FPRS)
    low, high = roc_band(member, scores, FPRS, upper=False), roc_band(member, scores, FPRS, lower=False)
    assert low.low.tolist() == both.low.tolist()
    assert high.high.tolist() == both.high.tolist()
    assert (low.high.tolist(), high.low.tolist()) == ([1, 1, 1], [0, 0, 0])
    assert low.tpr.tolist() == high.tpr.tolist() == both.tpr.tolist()


def test_the_band_of_a_million_samples_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty cross-fitted attacks are on one page: each look at thousands of terms counts."""
    member = (np.arange(1_000_000) % 2).astype(np.int8)
    scores = np.random.default_rng(4).normal(member * 1.0)
    looks = []
    betainc = special.betainc
    monkeypatch.setattr(ranking.special, "betainc", lambda *args: looks.append(1) or betainc(*args))
    fprs = roc_fprs(500_000)
    roc(member, scores, fprs, effects=(2.0, 2.0))
    assert len(looks) < 10 * 2 * len(fprs)


def test_one_class_has_no_curve() -> None:
    found = roc_band([1, 1, 1], [0.1, 0.2, 0.3], [0.1, 1.0])
    assert np.isnan(found.tpr).all()
    assert (found.low.tolist(), found.high.tolist()) == ([0, 0], [1, 1])
    with pytest.raises(ValueError, match="fpr"):
        roc_band([1, 0], [0.1, 0.2], [1.5])
