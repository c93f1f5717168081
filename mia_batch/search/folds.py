"""How rows that fit are folded for cross-validation, and whether a grid fits into the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from mia_batch.errors import InputError
from mia_batch.samples import Split

Indices = NDArray[np.int64]


def fold_rows(y_fit: NDArray[np.int8], cv: int) -> list[tuple[Indices, Indices]]:
    """GridSearchCV's folds for an integer `cv`: (train, validation) positions within the fit rows."""
    return list(StratifiedKFold(cv).split(np.zeros((len(y_fit), 1)), y_fit))


def fold_numbers(y_fit: NDArray[np.int8], cv: int) -> NDArray[np.int32]:
    """The fold in which each fit row validates, shape (n_fit,).

    Raises:
        InputError: more folds than rows of the rarer side.
    """
    smallest = int(np.bincount(y_fit, minlength=2).min())
    if smallest < cv:
        raise InputError(f"attack.cv: must be at most {smallest}, the rows of the rarer class that fit, got {cv}")
    numbers = np.empty(len(y_fit), dtype=np.int32)
    for number, (_, validation) in enumerate(fold_rows(y_fit, cv)):
        numbers[validation] = number
    return numbers


def check_grids(split: Split, grids: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Refuse what the number of rows makes impossible, before the first fit.

    Raises:
        InputError: with a line for every impossible value.
    """
    n_train = len(split.fit) - int(np.bincount(split.fold_of).max())
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
