"""Metrics of a decision against scikit-learn, degenerate inputs and coverage, enumerated and simulated."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from metric_samples import SAMPLES, columns
from scipy import integrate, stats
from sklearn import metrics as sk

from mia_batch.metrics import base, classification
from mia_batch.metrics.base import Counts, UndefinedMetricWarning


def decisions(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Membership and predictions with these counts."""
    order = (counts.tp, counts.fn, counts.fp, counts.tn)
    return np.repeat([1, 1, 0, 0], order), np.repeat([1, 0, 1, 0], order)


@given(SAMPLES)
def test_counts_are_those_of_a_loop(rows: list[tuple[int, int, int]]) -> None:
    member, predicted, _ = columns(rows)
    pairs = list(zip(member, predicted, strict=True))
    expected = Counts(*(pairs.count(pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0))))
    assert base.count(member, predicted) == expected
    assert base.count(*decisions(expected)) == expected


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


@pytest.mark.parametrize("tail", [0.3, 0.025, 1e-3, 1e-7])
@pytest.mark.parametrize(
    ("right", "total"), [((6, 9), (10, 12)), ((1, 990), (4, 1000)), ((50_000, 30), (100_000, 40)), ((7, 3), (7, 3))]
)
def test_the_melded_bound_solves_its_integral(right: tuple[int, int], total: tuple[int, int], tail: float) -> None:
    """P(mean of two betas <= bound) is the error asked for, by another quadrature, however small it is."""
    bound = base.melded_lower(right, total, tail)
    one, other = (stats.beta(k, n - k + 1) for k, n in zip(right, total, strict=True))
    # Over the part of the first where the second is not sure to be above, cut where its mass is.
    start, end = one.ppf(1e-14), min(one.ppf(1 - 1e-14), 2 * bound)
    points = one.ppf([1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999])
    found, _ = integrate.quad(
        lambda x: one.pdf(x) * other.cdf(2 * bound - x), start, end,
        points=points[points < end], limit=500, epsabs=tail * 1e-8,
    )  # fmt: skip
    assert found == pytest.approx(tail, rel=1e-3)


def test_one_sided_bounds_are_the_ends_of_intervals() -> None:
    member, predicted = decisions(Counts(70, 30, 45, 75))
    low, high = classification.balanced_accuracy_bounds(member, predicted, alpha_low=0.005, alpha_high=0.05)
    assert low == pytest.approx(classification.balanced_accuracy(member, predicted, level=0.99).low)
    assert high == pytest.approx(classification.balanced_accuracy(member, predicted, level=0.9).high)
    stricter = classification.balanced_accuracy_bounds(member, predicted, alpha_low=1e-4, alpha_high=0.01)
    assert stricter[0] < low < high < stricter[1]


@pytest.mark.parametrize(("n_members", "n_nonmembers"), [(9, 7), (4, 16), (14, 3)])
@pytest.mark.parametrize("prior", [None, 0.5, 0.01])
def test_precision_misses_at_most_half_alpha_on_either_side(
    n_members: int, n_nonmembers: int, prior: float | None
) -> None:
    """Enumerated, at the samples' own share of members and at stated ones."""
    totals, shape = (n_members, n_nonmembers), (n_members + 1, n_nonmembers + 1)
    share = n_members / sum(totals) if prior is None else prior
    low, high = np.zeros(shape), np.ones(shape)  # without a positive prediction nothing is claimed
    for tp, fp in np.ndindex(shape):
        if tp + fp:
            member, predicted = decisions(Counts(tp, n_members - tp, fp, n_nonmembers - fp))
            found = (
                classification.precision(member, predicted) if prior is None
                else classification.predictive_value(member, predicted, prior=prior)
            )  # fmt: skip
            low[tp, fp], high[tp, fp] = found.low, found.high
    for tpr, fpr in product([0.001, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999], repeat=2):
        masses = [stats.binom.pmf(np.arange(n + 1), n, p) for n, p in zip(totals, (tpr, fpr), strict=True)]
        weight, truth = np.outer(*masses), share * tpr / (share * tpr + (1 - share) * fpr)
        assert weight[truth < low].sum() <= 0.025
        assert weight[truth > high].sum() <= 0.025


@pytest.mark.parametrize("counts", [Counts(8, 2, 3, 17), Counts(300, 700, 10, 990), Counts(90, 10, 400, 600)])
@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_melded_precision_agrees_with_random_draws(counts: Counts, prior: float) -> None:
    rng, n, (m, others) = np.random.default_rng(4), 400_000, (counts.n_members, counts.n_nonmembers)
    found = classification.predictive_value(*decisions(counts), prior=prior)
    for tpr, fpr, q, bound in (
        (rng.beta(counts.tp, m - counts.tp + 1, n), rng.beta(counts.fp + 1, others - counts.fp, n), 0.025, found.low),
        (rng.beta(counts.tp + 1, m - counts.tp, n), rng.beta(counts.fp, others - counts.fp + 1, n), 0.975, found.high),
    ):
        assert np.mean(prior * tpr / (prior * tpr + (1 - prior) * fpr) <= bound) == pytest.approx(q, abs=1e-3)


def test_precision_at_the_edges() -> None:
    sure = classification.precision(*decisions(Counts(5, 5, 0, 10)))
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert 0.5 < sure.low < 1.0
    wrong = classification.precision(*decisions(Counts(0, 10, 5, 5)))
    assert (wrong.value, wrong.low) == (0.0, 0.0)
    # All non-members fool it: their rate is at most 1, and the bound is of Clopper-Pearson for the members alone.
    lowest = stats.beta.ppf(0.025, 6, 10 - 6 + 1)
    fooled = classification.predictive_value(*decisions(Counts(6, 4, 10, 0)), prior=0.2)
    assert fooled.low == pytest.approx(0.2 * lowest / (0.2 * lowest + 0.8))
    alone = classification.precision([1, 1, 1], [1, 1, 1])
    assert (alone.value, alone.low) == (1.0, pytest.approx(0.025 ** (1 / 3)))


def test_precision_at_the_samples_own_share_is_their_predictive_value() -> None:
    member, predicted = decisions(Counts(40, 20, 10, 110))
    expected = classification.predictive_value(member, predicted, prior=1 / 3)
    observed = classification.precision(member, predicted)
    assert observed.value == pytest.approx(40 / 50)
    assert (observed.value, observed.low, observed.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_predictive_value_at_priors() -> None:
    found = [classification.precision_at_prior(0.2, 0.01, prior=prior) for prior in (0.5, 0.1, 0.01)]
    assert found == pytest.approx([0.952381, 0.689655, 0.168067], abs=1e-6)
    assert math.isnan(classification.precision_at_prior(0.0, 0.0, prior=0.5))


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        (Counts(0, 0, 0, 0), "no scored samples"),
        (Counts(0, 0, 2, 1), "no members among"),
        (Counts(2, 1, 0, 0), "no non-members among"),
        (Counts(0, 3, 0, 2), "no sample is predicted a member"),
    ],
)
def test_no_predictive_value(counts: Counts, cause: str) -> None:
    with pytest.warns(UndefinedMetricWarning, match=f"predictive_value is undefined: {cause}"):
        found = classification.predictive_value(*decisions(counts), prior=0.5)
    assert math.isnan(found.value)
    assert str(found.reason).startswith(cause)


def test_wrong_priors_errors_and_classes() -> None:
    for prior in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="prior: must be in"):
            classification.predictive_value([0, 1], [0, 1], prior=prior)
    with pytest.raises(ValueError, match="fpr: must be in"):
        classification.precision_at_prior(0.5, 1.5, prior=0.5)
    with pytest.raises(ValueError, match="alpha_high: must be in"):
        classification.balanced_accuracy_bounds([0, 1], [0, 1], alpha_low=0.05, alpha_high=0.7)
    with pytest.raises(ValueError, match="both classes, got no non-members"):
        classification.balanced_accuracy_bounds([1, 1], [0, 1], alpha_low=0.05, alpha_high=0.05)
    with pytest.raises(ValueError, match="counts: must be 0 or more"):
        Counts(1, -1, 0, 0)
