"""Metrics of a decision against scikit-learn, degenerate inputs and coverage, enumerated and simulated."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from metric_samples import SAMPLES, columns
from scipy import stats
from sklearn import metrics as sk

from mia_batch.metrics import classification
from mia_batch.metrics.base import UndefinedMetricWarning


@given(SAMPLES)
def test_decisions_agree_with_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    member, predicted, _ = columns(rows)
    assert classification.accuracy(member, predicted).value == pytest.approx(sk.accuracy_score(member, predicted))
    if predicted.any():
        assert classification.precision(member, predicted).value == pytest.approx(sk.precision_score(member, predicted))
    if member.any():
        assert classification.recall(member, predicted).value == pytest.approx(sk.recall_score(member, predicted))
    if len(set(member)) == 2:
        expected = sk.balanced_accuracy_score(member, predicted)
        assert classification.balanced_accuracy(member, predicted).value == pytest.approx(expected)


def test_no_positive_prediction_leaves_precision_undefined() -> None:
    with pytest.warns(UndefinedMetricWarning, match="precision is undefined: no sample is predicted a member"):
        estimate = classification.precision([0, 1], [0, 0])
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.reason == "no sample is predicted a member"
    assert not estimate.defined


@pytest.mark.parametrize(("n_members", "n_nonmembers"), [(6, 6), (4, 15)])
def test_balanced_accuracy_misses_at_most_half_alpha_on_either_side(n_members: int, n_nonmembers: int) -> None:
    """Enumerated: every outcome of both binomials, weighted, over a grid of true rates. Nothing is simulated."""
    totals, shape = (n_members, n_nonmembers), (n_members + 1, n_nonmembers + 1)
    low, high = np.empty(shape), np.empty(shape)
    for right in np.ndindex(shape):
        member = np.repeat([1, 0], totals)
        hits = [np.arange(n) < k for k, n in zip(right, totals, strict=True)]
        estimate = classification.balanced_accuracy(member, np.concatenate([hits[0], ~hits[1]]))
        low[right], high[right] = estimate.low, estimate.high
    for rates in product([0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.999], repeat=2):
        masses = [stats.binom.pmf(np.arange(n + 1), n, p) for n, p in zip(totals, rates, strict=True)]
        weight, truth = np.outer(*masses), sum(rates) / 2
        assert weight[truth < low].sum() <= 0.025
        assert weight[truth > high].sum() <= 0.025


@pytest.mark.parametrize(("n_members", "n_nonmembers"), [(50, 50), (180, 20), (30, 300)])
def test_coverage_of_the_decision_metrics(n_members: int, n_nonmembers: int) -> None:
    rng, trials, tpr, fpr = np.random.default_rng(3), 200, 0.8, 0.4
    member = np.repeat([1, 0], [n_members, n_nonmembers])
    caught, fooled = tpr * n_members, fpr * n_nonmembers
    truth = {
        "accuracy": (caught + n_nonmembers - fooled) / (n_members + n_nonmembers),
        "precision": caught / (caught + fooled),
        "recall": tpr,
        "balanced_accuracy": (tpr + 1 - fpr) / 2,
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(trials):
        predicted = rng.random(len(member)) < np.where(member, tpr, fpr)
        for name in truth:
            estimate = getattr(classification, name)(member, predicted)
            covered[name] += estimate.low <= truth[name] <= estimate.high
    for name, hits in covered.items():
        assert hits / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials), name
