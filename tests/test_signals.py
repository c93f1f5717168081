"""Signals against closed forms, published values, a multi-precision reference and hostile magnitudes."""

import inspect
import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mia_batch import signals

# Song & Mittal's example: probabilities and labels with published entropies.
PROBS = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.2, 0.3, 0.5]])
LABELS = np.array([0, 1, 0])

PER_LABEL: list[Callable] = [
    signals.loss,
    signals.mindarmour_loss,
    signals.phi,
    signals.hinge,
    signals.modified_entropy,
    signals.correctness,
]
FLOAT32_LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 7)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
MODEST_LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(-300, 300, width=32)
)


def exact_reference(row: np.ndarray, y: int) -> dict[str, float]:
    """Definitions as written, in 600-digit decimals: no trick that the implementation could share."""
    with localcontext() as context:
        context.prec = 600
        exp = [Decimal(float(z)).exp() for z in row]
        total = sum(exp)
        p = [e / total for e in exp]
        rest = [sum(e for j, e in enumerate(exp) if j != i) / total for i in range(len(exp))]
        others = [i for i in range(len(p)) if i != y]
        return {
            "loss": float(-p[y].ln()),
            "phi": float((p[y] / rest[y]).ln()),
            "entropy": float(-sum(q * q.ln() for q in p)),
            "modified_entropy": float(-rest[y] * p[y].ln() - sum(p[i] * rest[i].ln() for i in others)),
        }


def test_published_entropies() -> None:
    z = np.log(PROBS)
    np.testing.assert_allclose(signals.entropy(z), [0.80181855, 0.39439769, 1.02965301], atol=5e-9)
    np.testing.assert_allclose(signals.modified_entropy(z, LABELS), [0.16216725, 0.01566538, 1.7411264], atol=5e-8)


def test_loss_and_phi_of_probabilities() -> None:
    p = PROBS[np.arange(3), LABELS]
    np.testing.assert_allclose(signals.loss(np.log(PROBS), LABELS), -np.log(p), rtol=1e-14)
    np.testing.assert_allclose(signals.phi(np.log(PROBS), LABELS), np.log(p / (1 - p)), rtol=1e-14)


def test_confident_logits_are_exact_and_not_clipped() -> None:
    z = np.array([[200.0, 0.0, 0.0]], dtype=np.float32)
    assert signals.phi(z, [0])[0] == pytest.approx(200 - math.log(2), abs=1e-12)
    assert signals.loss(z, [0])[0] == pytest.approx(2 * math.exp(-200), rel=1e-12)
    assert signals.loss(z, [1])[0] == pytest.approx(200.0)
    assert signals.hinge(z, [0])[0] == 200.0
    assert signals.hinge(z, [1])[0] == -200.0
    assert signals.entropy(z)[0] == pytest.approx(402 * math.exp(-200), rel=1e-12)


@given(MODEST_LOGITS, st.data())
def test_against_600_digits(z: np.ndarray, data: st.DataObject) -> None:
    y = data.draw(st.integers(0, z.shape[1] - 1))
    expected = exact_reference(z[0], y)
    assert signals.entropy(z)[0] == pytest.approx(expected["entropy"], rel=1e-11, abs=1e-300)
    for name in ("loss", "phi", "modified_entropy"):
        got = getattr(signals, name)(z, np.full(len(z), y))[0]
        # Where log odds cross zero their error is that of the logits themselves.
        assert got == pytest.approx(expected[name], rel=1e-11, abs=1e-13 if name == "phi" else 1e-300), name


@given(FLOAT32_LOGITS, st.data())
def test_finite_in_range_at_any_magnitude(z: np.ndarray, data: st.DataObject) -> None:
    y = np.array(data.draw(st.lists(st.integers(0, z.shape[1] - 1), min_size=len(z), max_size=len(z))))
    values = {f.__name__: f(z, y) for f in PER_LABEL} | {"entropy": signals.entropy(z)}
    for name, value in values.items():
        assert value.dtype == np.float64, name
        assert value.shape == (len(z),), name
        assert np.isfinite(value).all(), name
    for name in ("loss", "mindarmour_loss", "entropy", "modified_entropy"):
        assert (values[name] >= 0).all(), name
        assert not np.signbit(values[name]).any(), name
    assert (values["entropy"] <= math.log(z.shape[1]) + 1e-12).all()
    assert (values["mindarmour_loss"] <= 27.64).all()
    assert (values["phi"] <= values["hinge"]).all()
    assert (values["correctness"][values["hinge"] > 0] == 1).all()


def test_loss_is_softplus_of_minus_phi() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 30, (500, 10)), rng.integers(0, 10, 500)
    np.testing.assert_allclose(signals.loss(z, y), np.logaddexp(0, -signals.phi(z, y)), rtol=1e-12)


def test_two_classes_reduce_to_the_margin() -> None:
    z = np.array([[3.0, 1.0], [-2.0, 5.0]])
    np.testing.assert_array_equal(signals.phi(z, [0, 0]), [2.0, -7.0])
    np.testing.assert_array_equal(signals.hinge(z, [0, 0]), [2.0, -7.0])


def test_ties_in_the_largest_logit() -> None:
    z = np.array([[1.0, 1.0, 0.0]])
    assert signals.correctness(z, [0])[0] == 1.0
    assert signals.correctness(z, [1])[0] == 0.0
    assert signals.hinge(z, [1])[0] == 0.0
    assert signals.modified_entropy(np.zeros((1, 2)), [0])[0] == pytest.approx(math.log(2))


def clipped_softmax_loss(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """MindArmour's steps one by one over the whole matrix: one-hot labels, clip every probability, sum."""
    one_hot = np.eye(z.shape[1])[y].astype(np.int32)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    p = np.clip(e / e.sum(axis=-1, keepdims=True), 1e-12, 1.0 - 1e-12)
    return -1 * (one_hot * np.log(p)).sum(axis=-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_mindarmour_loss_to_the_last_bit(dtype: type, scale: float) -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, scale, (300, 100)).astype(dtype), rng.integers(0, 100, 300)
    np.testing.assert_array_equal(signals.mindarmour_loss(z, y), clipped_softmax_loss(z, y))


def test_mindarmour_loss_at_both_clips() -> None:
    z = np.array([[100.0, 0.0]])
    np.testing.assert_allclose(signals.mindarmour_loss(z, [0]), [1e-12], rtol=1e-3)
    np.testing.assert_allclose(signals.mindarmour_loss(z, [1]), [12 * math.log(10)])
    assert signals.mindarmour_loss(z.astype(np.float32), [0])[0] == 0.0


@pytest.mark.parametrize("signal", PER_LABEL)
def test_rows_do_not_depend_on_the_batch_or_memory_order(signal: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    z, y = rng.normal(0, 5, (67, 100)).astype(np.float32), rng.integers(0, 100, 67)
    whole = signal(z, y)
    np.testing.assert_array_equal(np.concatenate([signal(z[i : i + 1], y[i : i + 1]) for i in range(67)]), whole)
    np.testing.assert_array_equal(signal(np.asfortranarray(z), y), whole)
    monkeypatch.setattr(signals, "_BLOCK_VALUES", 1000)
    np.testing.assert_array_equal(signal(z, y), whole)
    np.testing.assert_array_equal(
        signals.entropy(z), np.concatenate([signals.entropy(z[:30]), signals.entropy(z[30:])])
    )


def test_inputs_are_left_alone_and_may_be_empty() -> None:
    z, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])
    before = z.copy()
    for signal in PER_LABEL:
        signal(z, y)
        assert signal(np.empty((0, 3)), []).shape == (0,)
    assert signals.entropy(np.empty((0, 3))).shape == (0,)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(signals.hinge([[1, 3]], [1]), [2.0])
    np.testing.assert_allclose(signals.mindarmour_loss([[0, 0]], [1]), [math.log(2)])


@pytest.mark.parametrize("signal", PER_LABEL)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, 2.0], [0], "logits: must have shape"),
        ([[1.0]], [0], "n_classes >= 2"),
        ([["a", "b"]], [0], "logits: must be real"),
        ([[1.0, 2.0]], [0, 1], r"labels: must have shape \(1,\)"),
        ([[1.0, 2.0]], [0.0], "labels: must be integers"),
        ([[1.0, 2.0]], [True], "labels: must be integers"),
        ([[1.0, 2.0]], [2], r"in 0\.\.1, got 2 at sample 0"),
        ([[1.0, 2.0]], [-1], "got -1 at sample 0"),
        ([[1.0, 2.0], [1.0, np.nan]], [0, 1], "finite, got NaN or infinity at sample 1"),
        ([[np.inf, 2.0]], [0], "at sample 0"),
    ],
)
def test_wrong_arguments(signal: Callable, logits: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signal(logits, labels)


def test_entropy_checks_too() -> None:
    with pytest.raises(ValueError, match="finite"):
        signals.entropy([[np.nan, 0.0]])


@pytest.mark.parametrize("signal", PER_LABEL)
def test_arguments_go_by_the_names_that_are_shown(signal: Callable) -> None:
    z, y = np.zeros((2, 3)), np.zeros(2, dtype=int)
    assert list(inspect.signature(signal).parameters) == ["logits", "labels"]
    np.testing.assert_array_equal(signal(logits=z, labels=y), signal(z, y))


def test_two_classes_of_one_column() -> None:
    z = np.array([-2.0, 0.5])
    assert signals.two_classes(z, probabilities=False).tolist() == [[0, -2.0], [0, 0.5]]
    p = signals.two_classes(np.array([[0.25], [1.0]]), probabilities=True)
    assert p.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    by_logit = signals.loss(signals.two_classes(z, probabilities=False), [1, 0])
    by_probability = signals.loss(
        signals.logits_of_probabilities(signals.two_classes(1 / (1 + np.exp(-z)), probabilities=True))[0], [1, 0]
    )
    np.testing.assert_allclose(by_logit, np.log1p(np.exp([2.0, 0.5])))
    np.testing.assert_allclose(by_probability, by_logit)


def test_probabilities_of_any_type_as_float32_logits() -> None:
    """Below the smallest float32 a probability counts as rounded to 0: no logit is infinite."""
    for kind in (np.float64, np.float32, np.float16):
        p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 1e-60]], dtype=kind)
        found = signals.float32_logits(p)
        assert found.dtype == np.float32
        lowest = np.float32(np.log(signals.LEAST))
        assert np.array_equal(found, np.float32([[np.log(0.5)] * 2 + [lowest], [0.0, lowest, lowest]]))
    with pytest.raises(ValueError, match="must be at least 0 and sum to 1"):
        signals.float32_logits([[0.5, 0.4], [np.nan, 1.0]])
