"""What holds for every metric: intervals, invariances, degenerate inputs and refusals."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_samples import TWO_CLASSES, columns
from scipy import stats

from mia_batch.metrics import base, classification, ranking, registry
from mia_batch.metrics.base import Estimate, UndefinedMetricWarning


def test_clopper_pearson_closed_forms() -> None:
    assert base.clopper_pearson(0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert base.clopper_pearson(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert base.clopper_pearson(0, 0) == (0.0, 1.0)
    expected = stats.binomtest(13, 40).proportion_ci(0.9, method="exact")
    assert base.clopper_pearson(13, 40, level=0.9) == pytest.approx((expected.low, expected.high))


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
    undefined = undefined | {name for name in registry.METRICS if "_at_fpr_" in name}
    undefined |= set() if member else {"precision"}
    with pytest.warns(UndefinedMetricWarning) as caught:
        estimates = registry.evaluate(member, predicted, np.linspace(0, 1, len(member)))
    assert {name for name, estimate in estimates.items() if not estimate.defined} == undefined
    assert all(cause in str(estimates[name].reason) for name in undefined)
    assert len(caught) == len([name for name in undefined if not name.startswith("predictive_value")])
    with pytest.raises(ValueError, match="both classes"):
        ranking.roc_points(member, predicted)


def test_one_sample_a_side() -> None:
    estimates = registry.evaluate([0, 1], [0, 1], [0.2, 0.7])
    assert estimates["auc"].value == 1.0
    assert estimates["auc"].low == pytest.approx(0.025)
    assert estimates["advantage"].low == 0.0
    assert estimates["tpr_at_fpr_0.1"].low == 0.0
    assert estimates["tpr_at_fpr_0.1"].reason == (
        "FPR 0.1 cannot be resolved with 1 non-members (1/1 = 1); no lower bound with 1 non-members"
    )


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


def test_only_what_is_asked_for_is_computed() -> None:
    assert list(registry.evaluate([0, 1], [0, 1], [0.2, 0.7], names=("auc", "accuracy"))) == ["accuracy", "auc"]


def test_predictive_values_stand_beside_each_tpr() -> None:
    values = [ranking.predictive_value_of(Estimate(0.2, 0.1, 0.3), fpr=0.01, prior=p).value for p in (0.5, 0.1, 0.01)]
    assert values == pytest.approx([0.952381, 0.689655, 0.168067], abs=1e-6)
    member = np.repeat([1, 0], 1000)
    scores = np.random.default_rng(1).normal(2.0 * member)
    found = registry.evaluate(member, scores > 1, scores)
    for fpr in ranking.FPRS:
        for prior in classification.PRIORS:
            asked = f"predictive_value_at_fpr_{fpr:g}_prior_{prior:g}"
            assert found[asked] == ranking.predictive_value_at_fpr(member, scores, fpr, prior=prior)
            assert registry.evaluate(member, scores > 1, scores, names=[asked]) == {asked: found[asked]}


def test_a_tpr_of_0_says_that_the_top_is_tied_and_so_does_its_predictive_value() -> None:
    scores = np.r_[np.full(50, 1.0), np.zeros(50), np.full(30, 1.0), np.zeros(70)]
    found = registry.evaluate(np.repeat([1, 0], 100), scores > 0, scores)
    for name in ("tpr_at_fpr_0.1", "predictive_value_at_fpr_0.1_prior_0.5"):
        assert found[name].value == 0
        assert "0 because the members' top tie group holds 30 non-members, and 10 may pass" in str(found[name].reason)
