"""Which rows fit an attack, which score it, and how fit rows fold for cross-validation; checked before any fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from mia_batch.errors import InputError

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]


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


def split_rows(y: NDArray[np.int8], eval_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Stratified split into rows that fit and select, in shuffled order, and rows that score, ascending.

    Raises:
        InputError: a side would lack members or non-members.
    """
    n_eval = int(np.ceil(eval_fraction * len(y)))
    if min(n_eval, len(y) - n_eval, np.bincount(y).min()) < 2:
        counts = f"{int(y.sum())} members and {int((1 - y).sum())} non-members"
        raise InputError(
            f"attack.eval_fraction: must leave members and non-members on both sides of {counts}, got {eval_fraction}"
        )
    fit, evaluated = train_test_split(np.arange(len(y)), test_size=eval_fraction, stratify=y, random_state=seed)
    return fit, np.sort(evaluated)


def fold_rows(y_fit: NDArray[np.int8], cv: int) -> list[tuple[Indices, Indices]]:
    """GridSearchCV's folds for an integer `cv`: (train, validation) positions within the fit rows."""
    return list(StratifiedKFold(cv).split(np.zeros((len(y_fit), 1)), y_fit))


def fold_numbers(y_fit: NDArray[np.int8], cv: int) -> NDArray[np.int32]:
    """The fold in which each fit row validates, shape (n_fit,)."""
    numbers = np.empty(len(y_fit), dtype=np.int32)
    for number, (_, validation) in enumerate(fold_rows(y_fit, cv)):
        numbers[validation] = number
    return numbers


def check_grids(y_fit: NDArray[np.int8], cv: int, grids: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Refuse what the number of rows makes impossible, before the first fit.

    Raises:
        InputError: with a line for every impossible value.
    """
    smallest = int(np.bincount(y_fit, minlength=2).min())
    if smallest < cv:
        raise InputError(f"attack.cv: must be at most {smallest}, the rows of the rarer class that fit, got {cv}")
    n_train = min(len(train) for train, _ in fold_rows(y_fit, cv))
    most = {"n_neighbors": n_train, "max_samples": n_train}
    problems = [
        f"attack.methods: {method}: params.{name} must be at most {most[name]}, the rows of a fold, got {value}"
        for method, grid in grids.items() for name in most for value in grid.get(name, ())
        if isinstance(value, int) and value > most[name]
    ]
    if "knn" in grids and "n_neighbors" not in grids["knn"] and n_train < 5:
        problems.append(f"attack.methods: knn: must have at least 5 rows in a fold, got {n_train}")
    if problems:
        raise InputError(problems)
