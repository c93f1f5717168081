"""Features of rows for classifiers, without anything of who is a member."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.trajectories import n_trajectory_features
from mia_batch.signals import NAMES, mindarmour_loss, signal_matrix, top_logits

Floats = NDArray[np.float64]

N_TOP = 5  # logits
ROUNDING = 1e-12  # a standard deviation that sums of equal numbers may have


def feature_rows(
    kind: str, logits: NDArray[np.floating], label: NDArray[np.integer], loss: Floats, trajectory: Floats | None = None
) -> Floats:
    """What classifiers are fitted on, (n_samples, n_features), by `attack.features`.

    `signals` is `signal_features`, `logits_loss` is [loss, logits], `mindarmour` the same with its clipped loss.

    Args:
        kind: one of these.
        logits: shape (n_samples, n_classes).
        label: true classes, shape (n_samples,).
        loss: of the logits, shape (n_samples,).
        trajectory: columns of `trajectories.trajectory_features`, which come last; `signals` has them standardised.
    """
    if kind == "signals":
        rows = signal_features(signal_matrix(logits, label), logits, label)
    else:
        own = mindarmour_loss(logits, label) if kind == "mindarmour" else loss
        rows = np.column_stack([own, logits]).astype(np.float64)
    if trajectory is None:
        return rows
    is_scaled = kind == "signals"
    return np.hstack([rows, _standardised(trajectory, _rounding(trajectory)) if is_scaled else trajectory])


def n_features(kind: str, n_classes: int, n_checkpoints: int = 1) -> int:
    """Columns of `feature_rows`, with those of a trajectory of so many checkpoints."""
    own = 2 * len(NAMES) + min(N_TOP, n_classes) if kind == "signals" else 1 + n_classes
    return own + n_trajectory_features(n_checkpoints)


def signal_features(signals: Floats, logits: NDArray[np.floating], label: NDArray[np.integer]) -> Floats:
    """`attack.features: signals`: of each row its signals, its largest logits, and its signals within its class.

    The class enters as the difference of each signal to its mean over all rows of the class, members and non-members
    alike: what is surprising depends on how hard the class is. A class's number means nothing to a linear model or a
    distance, and a column for each class would fill the memory.

    Args:
        signals: of `signals.signal_matrix`, shape (n_samples, 6).
        logits: shape (n_samples, n_classes).
        label: true classes, shape (n_samples,).

    Returns:
        float64, shape (n_samples, 12 + min(5, n_classes)), each column of mean 0 and standard deviation 1
        over all rows; what is constant is 0.
    """
    top = top_logits(logits, min(N_TOP, logits.shape[1]))
    own = _standardised(signals, _rounding(signals))
    within = _standardised(own - _class_means(own, label), np.full(own.shape[1], ROUNDING))
    largest = _standardised(top.astype(np.float64), _rounding(top))
    return np.hstack([own, largest, within])


def _rounding(X: NDArray[np.floating]) -> Floats:
    """The standard deviation that each column may have by rounding alone, (n_columns,)."""
    return np.asarray(ROUNDING * np.abs(X).max(axis=0))


def _standardised(X: Floats, floor: Floats) -> Floats:
    """Columns of mean 0 and standard deviation 1; 0 where that is at most `floor`, (n_columns,)."""
    X = X - X.mean(axis=0)
    scale = X.std(axis=0)
    X /= np.where(scale > floor, scale, np.inf)
    return X


def _class_means(X: Floats, label: NDArray[np.integer]) -> Floats:
    """Of each row the mean of its class, (n_samples, n_columns)."""
    _, which, size = np.unique(label, return_inverse=True, return_counts=True)
    return np.column_stack([(np.bincount(which, column) / size)[which] for column in X.T])
