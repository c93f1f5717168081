"""Which rows fit an attack and which score it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from mia_batch.errors import InputError
from mia_batch.samples import Split
from mia_batch.search.folds import Indices, check_grids, fold_numbers

Floats = NDArray[np.floating]


def check_arrays(X: Floats, y: NDArray[Any]) -> None:
    """Refuse features that no classifier can use.

    Raises:
        InputError: wrong shapes, NaN or infinity, membership other than 0 and 1 or of one kind only.
    """
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise InputError(f"features: must have shapes (n, d) and (n,), got {X.shape} and {y.shape}")
    if not np.isfinite(X).all():
        row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
        raise InputError(f"features: must be finite, got NaN or infinity in row {row}")
    if not np.array_equal(np.unique(y), [0, 1]):
        raise InputError(f"features: member must have both 0 and 1, got {np.unique(y).tolist()[:5]}")


def n_evaluated(n_samples: int, eval_fraction: float) -> int:
    """How many of the samples score: as many as scikit-learn's `train_test_split` takes, which rounds up."""
    return math.ceil(eval_fraction * n_samples)


def split_rows(y: NDArray[np.int8], eval_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Stratified split into rows that fit and select, in shuffled order, and rows that score, ascending.

    Raises:
        InputError: a side would lack members or non-members.
    """
    n_eval = n_evaluated(len(y), eval_fraction)
    if min(n_eval, len(y) - n_eval, np.bincount(y).min()) < 2:
        counts = f"{int(y.sum())} members and {int((1 - y).sum())} non-members"
        raise InputError(
            f"attack.eval_fraction: must leave members and non-members on both sides of {counts}, got {eval_fraction}"
        )
    fit, evaluated = train_test_split(np.arange(len(y)), test_size=eval_fraction, stratify=y, random_state=seed)
    return fit, np.sort(evaluated)


def make_split(
    X: Floats, y: NDArray[np.int8], *, eval_fraction: float, seed: int, cv: int,
    grids: Mapping[str, Mapping[str, Sequence[Any]]],
) -> Split:
    """The rows that fit, their folds, and the rows that score.

    Args:
        X: feature rows, shape (n_samples, n_features).
        y: membership, shape (n_samples,).
        eval_fraction: share of the rows that scores, in (0, 1).
        seed: of the split.
        cv: folds.
        grids: by attack; their values must be possible in the folds.

    Raises:
        InputError: rows that no classifier can use, or too few of them.
    """
    check_arrays(X, y)
    fit, evaluated = split_rows(y, eval_fraction, seed)
    check_grids(y[fit], cv, grids)
    return Split(fit, fold_numbers(y[fit], cv), evaluated)
