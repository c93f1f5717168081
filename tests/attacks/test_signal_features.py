"""The features of classifiers: known columns, no membership, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch import signals
from mia_batch.attacks.features import n_features, signal_features
from mia_batch.metrics.registry import evaluate
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples, run_attacks

LR = {"method": "lr", "params": {"C": [0.01, 1.0, 100.0]}}


def network(n: int, n_classes: int, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and membership: members' true logits are `gap` higher, all else is noise."""
    rng = np.random.default_rng(seed)
    member, label = (np.arange(n) % 2).astype(np.int8), rng.integers(n_classes, size=n).astype(np.int32)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), label] += rng.normal(3 + gap * member)
    return logits.astype(np.float32), label, member


def features(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    return signal_features(signals.signal_matrix(logits, label), logits, label)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 10])
def test_columns_one_by_one(n_classes: int) -> None:
    logits, label, _ = network(200, n_classes, 1.0, 0)
    X = features(logits, label)
    assert X.shape == (200, n_features("signals", n_classes))
    expected = [compute(logits, label) for compute, _ in signals.SIGNALS.values()]
    expected += [np.sort(logits.astype(float), axis=1)[:, -k] for k in range(1, min(5, n_classes) + 1)]
    for column in expected[:6]:
        means = {c: column[label == c].mean() for c in range(n_classes)}
        expected.append(column - np.array([means[c] for c in label]))
    for found, column in zip(X.T, expected, strict=True):
        np.testing.assert_allclose(found, (column - column.mean()) / column.std(), atol=1e-9)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1, atol=1e-12)


def test_what_is_constant_is_nothing() -> None:
    """0.1 cannot be summed exactly: what is left must not be blown up to a standard deviation of 1."""
    logits, label = np.full((77, 3), [0.1, 0.7, 0.3]), np.zeros(77, dtype=np.int32)
    assert not features(logits, label).any()
    label[:33] = 1  # two classes, constant within each
    X = features(logits, label)
    assert X[:, 0].std() == pytest.approx(1)
    assert not X[:, 6:].any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_finite_at_any_scale(scale: float) -> None:
    logits, label, _ = network(300, 4, 1.0, 1)
    X = features((logits.astype(np.float64) * scale).astype(np.float32), label)
    assert np.isfinite(X).all()
    assert np.isin(X.std(axis=0).round(6), [0, 1] if scale == 1e30 else [1]).all()


@pytest.mark.parametrize("k", [1, 5, 7])
def test_top_logits(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, _, _ = network(50, 7, 1.0, 2)
    expected = np.sort(logits, axis=1)[:, ::-1][:, :k]
    assert np.array_equal(signals.top_logits(logits, k), expected)
    monkeypatch.setattr(signals, "_BLOCK_VALUES", 30)
    assert np.array_equal(signals.top_logits(logits, k), expected)
    with pytest.raises(ValueError, match=r"k: must be in 1\.\.7"):
        signals.top_logits(logits, 8)


@pytest.mark.parametrize("n_classes", [10, 100])
def test_a_linear_model_reaches_the_loss_alone(n_classes: int) -> None:
    """Bayes accuracy about .65. With [loss, logits] of 100 classes it loses more than .01 of AUC to the plain loss."""
    logits, label, member = network(4000, n_classes, 1.09, 1)
    matrix = signals.signal_matrix(logits, label)
    rows = {"signals": features(logits, label), "logits_loss": np.column_stack([matrix[:, 0], logits])}
    attack = AttackConfig(methods=(LR, {"method": "threshold_loss"}))
    auc = {}
    for kind, X in rows.items():
        samples = make_samples(member, attack, features=X, loss=matrix[:, 0])
        for name, result in run_attacks(samples, attack, n_jobs=1).items():
            estimates = evaluate(result.member, result.predicted, result.scores)
            auc[kind if name == "lr" else name] = estimates["auc"].value
            if name == "threshold_loss":
                assert estimates["balanced_accuracy"].value == pytest.approx(0.65, abs=0.02)
    assert auc["signals"] > auc["threshold_loss"] - 0.01
    assert n_classes == 10 or auc["logits_loss"] < auc["threshold_loss"] - 0.01
