"""Metrics against closed forms, published values, naive references, degenerate inputs and simulated coverage."""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mia_batch.metrics import base, classification, ranking, registry
from mia_batch.metrics.base import Estimate, UndefinedMetricWarning

# Membership, predictions and heavily tied scores, both classes present or not.
SAMPLES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(-2, 2)), min_size=1, max_size=25)
TWO_CLASSES = SAMPLES.filter(lambda rows: {row[0] for row in rows} == {0, 1})


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    member, predicted, scores = (np.array(column) for column in zip(*rows, strict=True))
    return member, predicted, scores.astype(float)


def naive_auc(member: np.ndarray, scores: np.ndarray) -> float:
    pairs = list(product(scores[member == 1], scores[member == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def naive_points(member: np.ndarray, scores: np.ndarray) -> list[tuple[float, float]]:
    """(TPR, FPR) of every threshold, one at a time."""
    thresholds = [math.inf, *sorted(set(scores), reverse=True)]
    positives, negatives = scores[member == 1], scores[member == 0]
    return [(float(np.mean(positives >= t)), float(np.mean(negatives >= t))) for t in thresholds]


# Known answers


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


def test_clopper_pearson_closed_forms() -> None:
    assert base.clopper_pearson(0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert base.clopper_pearson(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert base.clopper_pearson(0, 0) == (0.0, 1.0)
    expected = stats.binomtest(13, 40).proportion_ci(0.9, method="exact")
    assert base.clopper_pearson(13, 40, level=0.9) == pytest.approx((expected.low, expected.high))


# Naive references and scikit-learn


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


@given(TWO_CLASSES, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_every_interval_holds_its_value(rows: list[tuple[int, int, int]], level: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        estimates = registry.evaluate(*columns(rows), level=level)
    for name, estimate in estimates.items():
        if estimate.defined:
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1, name
            assert estimate.low < estimate.high, f"{name}: an interval of a few samples is never a point"


@given(TWO_CLASSES, st.integers(0, 2**32 - 1))
def test_order_and_monotone_scales_do_not_matter(rows: list[tuple[int, int, int]], seed: int) -> None:
    member, predicted, scores = columns(rows)
    order = np.random.default_rng(seed).permutation(len(member))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        plain = registry.evaluate(member, predicted, scores)
        shuffled = registry.evaluate(member[order], predicted[order], np.exp(scores[order]) * 1e6)
    for name, estimate in plain.items():
        numbers = [(e.value, e.low, e.high) for e in (estimate, shuffled[name])]
        np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-12, err_msg=name)


@given(TWO_CLASSES)
def test_swapping_the_classes_mirrors_auc_and_balanced_accuracy(rows: list[tuple[int, int, int]]) -> None:
    member, predicted, scores = columns(rows)
    for function, column in ((ranking.auc, scores), (classification.balanced_accuracy, predicted)):
        estimate, mirrored = function(member, column), function(1 - member, column)
        assert mirrored.value == pytest.approx(1 - estimate.value)
        assert mirrored.low == pytest.approx(1 - estimate.high, abs=1e-4)


# Degenerate inputs


def test_no_positive_prediction_leaves_precision_undefined() -> None:
    with pytest.warns(UndefinedMetricWarning, match="precision is undefined: no sample is predicted a member"):
        estimate = classification.precision([0, 1], [0, 0])
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.reason == "no sample is predicted a member"
    assert not estimate.defined


@pytest.mark.parametrize(
    ("member", "undefined", "cause"),
    [
        ([1, 1], {"balanced_accuracy", "auc", "advantage"}, "no non-members"),
        ([0, 0], {"recall", "balanced_accuracy", "auc", "advantage"}, "no members"),
        ([], {"accuracy", "recall", "balanced_accuracy", "auc", "advantage"}, "no "),
    ],
)
def test_one_class_or_none(member: list[int], undefined: set[str], cause: str) -> None:
    predicted = [1] * len(member)
    undefined = undefined | {"tpr_at_fpr_0.1", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001"}
    undefined |= set() if member else {"precision"}
    with pytest.warns(UndefinedMetricWarning) as caught:
        estimates = registry.evaluate(member, predicted, np.linspace(0, 1, len(member)))
    assert {name for name, estimate in estimates.items() if not estimate.defined} == undefined
    assert all(cause in str(estimates[name].reason) for name in undefined)
    assert len(caught) == len(undefined)
    with pytest.raises(ValueError, match="both classes"):
        ranking.roc_points(member, predicted)


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


def test_one_sample_a_side() -> None:
    estimates = registry.evaluate([0, 1], [0, 1], [0.2, 0.7])
    assert estimates["auc"].value == 1.0
    assert estimates["auc"].low == pytest.approx(0.025)
    assert estimates["advantage"].low == 0.0
    assert estimates["tpr_at_fpr_0.1"].low == 0.0
    assert estimates["tpr_at_fpr_0.1"].reason == "FPR 0.1 cannot be resolved with 1 non-members (1/1 = 1)"


def test_infinite_scores_are_ordered() -> None:
    member, scores = [1, 1, 0, 0], [math.inf, -math.inf, 0.0, -math.inf]
    assert ranking.auc(member, scores).value == pytest.approx(naive_auc(np.array(member), np.array(scores)))
    assert ranking.tpr_at_fpr(member, scores, 1.0).value == 1.0
    assert ranking.tpr_at_fpr(member, scores, 0.5).value == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classification.accuracy([0, 1], [0]), r"predicted: must have shape \(2,\)"),
        (lambda: classification.accuracy([[0]], [0]), r"member: must have shape \(n_samples,\)"),
        (lambda: classification.accuracy([0, 2], [0, 1]), "member: must be 0 or 1"),
        (lambda: classification.recall([0, 1], [0, -1]), "predicted: must be 0 or 1"),
        (lambda: classification.recall(["a"], [0]), "member: must be 0 or 1"),
        (lambda: ranking.auc([0, 1], [0.1, math.nan]), "NaN at sample 1"),
        (lambda: ranking.auc([0, 1], [0.1]), "scores: must have shape"),
        (lambda: ranking.auc([0, 1], [0.1, 0.2], level=1.0), "level: must be in"),
        (lambda: classification.precision([0, 1], [0, 1], level=95), "level: must be in"),
        (lambda: ranking.tpr_at_fpr([0, 1], [0.1, 0.2], 1.1), "fpr: must be in"),
        (lambda: base.clopper_pearson(3, 2), r"successes: must be in 0\.\.2"),
        (lambda: Estimate(math.nan, 0.0, 1.0), "NaN needs"),
        (lambda: Estimate(math.nan, math.nan, math.nan), "NaN needs"),
        (lambda: Estimate(0.5, 0.6, 0.7), "low <= value <= high"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Coverage of the intervals. Each trial draws members and non-members anew; seeds are fixed.


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
