"""Models of which an audit would mean nothing."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from mia_batch import signals
from mia_batch.verdict import evaluability as module
from mia_batch.verdict.evaluability import (
    EXCHANGED,
    GUESSING_LEVEL,
    Evaluability,
    Side,
    evaluability,
    gap_exceeds,
    low_accuracy,
    tied_share,
    too_coarse,
)
from mia_batch.verdict.rules import Gate, JointRule

N, CLASSES = 400, 10


def model(strength: float, *, seed: int = 1, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs that know so much of the members' labels and a little less of the others', labels, membership."""
    rng = np.random.default_rng(seed)
    labels, member = rng.integers(0, CLASSES, N), np.repeat([1, 0], N // 2)
    outputs = rng.normal(size=(N, CLASSES))
    outputs[np.arange(N), labels] += strength * np.where(member, 1.0, 0.6)
    return (scale * outputs).astype(np.float32), labels, member


def test_a_model_that_has_learned_is_evaluable_and_its_figures_are_said() -> None:
    outputs, labels, member = model(4.0)
    found = evaluability(outputs, labels, member)
    assert found.reasons == ()
    assert found.members.n == found.nonmembers.n == N // 2
    seen = member == 1
    assert found.members.accuracy == (outputs[seen].argmax(axis=1) == labels[seen]).mean()
    assert found.nonmembers.loss == pytest.approx(signals.loss(outputs, labels)[~seen].mean())


def test_guessing_is_not_evaluable() -> None:
    found = evaluability(*model(0.0))
    (reason,) = found.reasons
    assert reason.startswith("the model is right on ")
    assert "no better than guessing" in reason
    assert "Look at the checkpoint" in reason
    assert evaluability(*model(0.0), weak=True).reasons == ()
    assert evaluability(*model(0.0), weak=True).expected


def test_the_largest_class_is_a_guess_too() -> None:
    """Nine of ten labels are 0, and so is every prediction: an accuracy of .9 that knows nothing."""
    rng, member = np.random.default_rng(2), np.repeat([1, 0], N // 2)
    labels = np.where(rng.random(N) < 0.9, 0, 1)
    outputs = rng.normal(size=(N, 2)) + np.array([9, 0])
    assert "no better than guessing" in evaluability(outputs, labels, member).reasons[0]


def test_members_of_one_class_can_be_audited() -> None:
    rng, member, labels = np.random.default_rng(2), np.repeat([1, 0], N // 2), np.zeros(N, dtype=int)
    outputs = rng.normal(size=(N, CLASSES))
    assert "no better than guessing (10.0%" in evaluability(outputs, labels, member).reasons[0]
    outputs[:, 0] += 3
    assert evaluability(outputs, labels, member).reasons == ()


def test_the_level_is_kept() -> None:
    guessing = [not evaluability(*model(0.0, seed=seed)).reasons for seed in range(300)]
    assert sum(guessing) <= 3 * GUESSING_LEVEL * 300


def test_a_gross_loss_is_not_evaluable() -> None:
    """Outputs that are right more often than by chance, and sure where they are wrong."""
    (reason,) = evaluability(*model(1.0, scale=40.0)).reasons
    assert "mean loss on its members" in reason
    assert f"ln {CLASSES} = {math.log(CLASSES):.2f}" in reason
    assert "more than that of equal probabilities" in reason


def test_constant_outputs_are_not_evaluable_even_of_a_weak_model() -> None:
    outputs, labels, member = model(1.0)
    constant = np.repeat(outputs[:1], N, axis=0)
    for weak in (False, True):
        assert "the same outputs" in evaluability(constant, labels, member, weak=weak).reasons[0]


def test_probabilities_that_are_declared_logits() -> None:
    outputs, labels, member = model(4.0)
    p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    (reason,) = evaluability(p, labels, member).reasons
    assert "model.output: probabilities" in reason
    logits, n_zero = signals.logits_of_probabilities(p)
    assert n_zero == 0
    assert evaluability(logits, labels, member, output="probabilities").reasons == ()
    np.testing.assert_allclose(signals.loss(logits, labels), signals.loss(outputs, labels), rtol=2e-5, atol=1e-7)


def binary(seed: int = 1, strength: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One logit for each sample, its label and its membership."""
    rng = np.random.default_rng(seed)
    labels, member = rng.integers(0, 2, N), np.repeat([1, 0], N // 2)
    return rng.normal(size=N) + strength * (2 * labels - 1), labels, member


def test_one_probability_that_is_declared_a_logit() -> None:
    z, labels, member = binary()
    assert evaluability(np.column_stack([np.zeros(N), z]), labels, member).reasons == ()
    p = 1 / (1 + np.exp(-z))
    for weak in (False, True):
        (reason,) = evaluability(np.column_stack([np.zeros(N), p]), labels, member, weak=weak).reasons
        assert "is in [0, 1] everywhere: it is a probability, and a logit is declared" in reason
        assert "Set model.output: probabilities, or take the sigmoid out" in reason
    (reason,) = evaluability(np.column_stack([1 - p, p]), labels, member).reasons
    assert "sums to 1" in reason
    logits, _ = signals.logits_of_probabilities(np.column_stack([1 - p, p]))
    assert evaluability(logits, labels, member, output="probabilities").reasons == ()


def test_a_single_logit_is_not_taken_for_a_probability() -> None:
    """Also of a weak model: one value outside [0, 1] among all is enough. Two-sided, over many models."""
    for seed in range(200):
        z, labels, member = binary(seed, strength=0.5)
        outputs = np.column_stack([np.zeros(N), z])
        assert not any("probabilit" in reason for reason in evaluability(outputs, labels, member, weak=True).reasons)
        p = np.column_stack([np.zeros(N), 1 / (1 + np.exp(-z))])
        assert len(evaluability(p, labels, member, weak=True).reasons) == 1
        p[seed, 1] = -1e-6
        assert evaluability(p, labels, member, weak=True).reasons == ()
    two = np.random.default_rng(0).random((N, 2))  # two columns that are both there are no single probability
    assert evaluability(two, labels, member, weak=True).reasons == ()


def test_probabilities_rounded_to_zero_are_counted() -> None:
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], dtype=np.float32)
    logits, n_zero = signals.logits_of_probabilities(p)
    assert n_zero == 3
    assert np.isfinite(logits).all()
    assert logits.dtype == np.float32
    assert evaluability(logits, np.array([0, 1, 2]), np.array([1, 1, 0]), output="probabilities").n_rounded == 3
    with pytest.raises(ValueError, match="must be at least 0 and sum to 1, got others at sample 1"):
        signals.logits_of_probabilities(np.array([[0.5, 0.5], [0.5, 0.6]]))
    with pytest.raises(ValueError, match="at sample 0"):
        signals.logits_of_probabilities(np.array([[1.5, -0.5]]))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, labels, member = model(0.0)
    whole = evaluability(outputs, labels, member)
    monkeypatch.setattr(module, "BLOCK_VALUES", 3 * CLASSES)
    assert evaluability(outputs, labels, member) == whole


def test_without_members_there_is_nothing_to_test() -> None:
    outputs, labels, _ = model(4.0)
    found = evaluability(outputs, labels, np.zeros(N, dtype=int))
    assert math.isnan(found.members.accuracy)
    assert found.reasons == ()
    with pytest.raises(ValueError, match="output: must be one of logits, probabilities, got 'odds'"):
        evaluability(outputs, labels, labels * 0, output="odds")


def figures(members: float, nonmembers: float, **more: Any) -> Evaluability:
    return Evaluability(Side(1000, members, 0.1), Side(1000, nonmembers, 1.0), **more)


def test_a_gap_that_the_attacks_miss_leaves_no_room_for_no_leak() -> None:
    assert gap_exceeds(figures(0.999, 0.655), Gate()).startswith("the model is right on 99.9% of members and 65.5%")
    assert gap_exceeds(figures(0.79, 0.60), Gate()) == ""
    assert gap_exceeds(figures(0.65, 0.64), Gate()) == ""
    assert gap_exceeds(figures(0.655, 0.999), Gate()).endswith(EXCHANGED)
    assert gap_exceeds(figures(0.60, 0.79), Gate()) == ""
    joint = JointRule("any_above", 0.9, ("auc",))
    assert gap_exceeds(figures(0.999, 0.655), Gate(joint=joint)) == ""  # nor would correctness exceed that
    assert gap_exceeds(figures(0.999, 0.155), Gate(joint=joint)) != ""
    assert gap_exceeds(figures(0.999, 0.655), Gate(joint=joint, tutorial=True)) != ""


def test_a_model_that_is_wrong_on_its_members_is_said_so_unless_it_is_weak_on_purpose() -> None:
    assert "56.8% of its members" in str(low_accuracy(figures(0.568, 0.5)))
    assert low_accuracy(figures(0.95, 0.5)) is None
    assert low_accuracy(figures(0.568, 0.5, expected=True)) is None


def test_nonmembers_below_chance_are_not_of_the_members_kind() -> None:
    rng = np.random.default_rng(2)
    labels, member = rng.integers(0, 10, 1200), np.repeat([1, 0], 600)
    outputs = 0.1 * rng.normal(size=(1200, 10))
    outputs[np.arange(1200), labels] += 4.0
    assert evaluability(outputs, labels, member).reasons == ()
    shifted = np.where(member == 1, labels, (labels + 1) % 10)
    (reason,) = evaluability(outputs, shifted, member).reasons
    assert reason.startswith("the model is right on 0.0% of 600 non-members, less often than by guessing")


def labelled(
    right_of_nonmembers: float, *, n: int = 400, classes: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs that are right on all members and on some of the non-members, labels, membership."""
    rng = np.random.default_rng(3)
    labels, member = rng.integers(0, classes, 2 * n), np.repeat([1, 0], n)
    answered = np.where((member == 1) | (rng.random(2 * n) < right_of_nonmembers), labels, rng.permutation(labels))
    return 0.1 * rng.normal(size=(2 * n, classes)) + 4.0 * (answered[:, None] == np.arange(classes)), labels, member


@pytest.mark.parametrize("classes", [2, 10])
def test_nonmembers_that_are_right_by_chance_alone_may_have_labels_in_another_order(classes: int) -> None:
    (doubt,) = evaluability(*labelled(0.0, classes=classes)).labels
    assert "as of a loader that shuffles and was read twice" in doubt
    assert evaluability(*labelled(0.4, classes=classes)).labels == ()
    assert evaluability(*labelled(0.0, n=20, classes=classes)).labels == ()  # too few to say so
    assert evaluability(*model(0.5)).labels == ()  # it is hardly right on its members


def test_a_model_that_is_always_right_may_have_made_the_labels() -> None:
    outputs, labels, member = labelled(1.0)
    (doubt,) = evaluability(outputs, labels, member).labels
    assert doubt.startswith("the model is right on all 400 members and all 400 non-members. If the labels are its own")
    labels[0] = (labels[0] + 1) % 10
    assert evaluability(outputs, labels, member).labels == ()


def confidences(digits: int | None, dtype: Any = np.float64, spread: float = 3.0) -> np.ndarray:
    """Of the label, of a model whose probabilities were rounded, or kept in a short type."""
    rng = np.random.default_rng(1)
    z = np.column_stack([rng.normal(9, spread, 1000), np.zeros(1000)])
    p = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(dtype)
    logits = signals.float32_logits(p if digits is None else np.round(p, digits))
    return np.round(signals.phi(logits, np.zeros(1000, dtype=int)), 9)


@pytest.mark.parametrize(
    ("digits", "dtype", "coarse"),
    [(None, np.float64, False), (None, np.float32, False), (8, np.float64, False), (4, np.float64, True),
     (2, np.float64, True), (0, np.float64, True)],
)  # fmt: skip
def test_outputs_that_do_not_tell_many_samples_apart_are_too_coarse(
    digits: int | None, dtype: Any, coarse: bool
) -> None:
    share = tied_share(confidences(digits, dtype))
    said = too_coarse(figures(0.9, 0.9, tied=(share, 0.0)))
    assert bool(said) == coarse
    if coarse:
        assert said.startswith(f"the outputs are too coarse: by them {share:.1%} of members have one and the same")
        assert "Export logits, or probabilities with all their digits" in said
        both = too_coarse(figures(0.9, 0.9, tied=(share, 0.5)))
        assert f"{share:.1%} of members and 50.0% of non-members have" in both


def test_samples_of_one_input_tie_by_themselves() -> None:
    signal = np.repeat(np.arange(20.0), 50)
    signal[:300] = 0.0
    assert tied_share(signal) == 0.3
    assert tied_share(signal, np.repeat(np.arange(20), 50)) == 0.0
    assert tied_share(np.zeros(9)) == 0.0
    assert tied_share(np.zeros(0)) == 0.0


def test_a_real_network_that_is_as_sure_as_can_be_is_not_coarse() -> None:
    """Trained until every probability of a member is 1 in float32; the logits still differ."""
    X, y = load_digits(return_X_y=True)
    network = MLPClassifier((64,), max_iter=300, alpha=0, tol=0, n_iter_no_change=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(X[:600], y[:600])
    hidden = np.maximum(X @ network.coefs_[0] + network.intercepts_[0], 0)
    logits = 3 * (hidden @ network.coefs_[1] + network.intercepts_[1]).astype(np.float32)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert (p[:600].max(axis=1) / p[:600].sum(axis=1) == 1).mean() > 0.5
    for outputs in (logits, signals.float32_logits(p.astype(float) / p.sum(axis=1, keepdims=True, dtype=float))):
        phi = np.round(signals.phi(outputs, y), 9)
        assert max(tied_share(phi[:600]), tied_share(phi[600:])) == 0.0
