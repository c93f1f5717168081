"""What an attack may know of the samples: rows of arrays, and which of them fit it and which it scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fold:
    """One part of the rows that fit to train on and the rest to validate on."""

    X_fit: NDArray[np.floating]  # (n_fit, n_features)
    y_fit: NDArray[np.int8]  # (n_fit,) 0 or 1
    X_val: NDArray[np.floating]  # (n_val, n_features)
    y_val: NDArray[np.int8]  # (n_val,)


@dataclass(frozen=True)
class Split:
    """Rows that fit an attack, how they fold for cross-validation, and rows that it scores.

    Raises:
        ValueError: a row that fits is scored too.
    """

    fit: NDArray[np.int64]  # (n_fit,) row numbers, in the order of the folds
    fold_of: NDArray[np.int32]  # (n_fit,) the fold in which each of them validates
    evaluated: NDArray[np.int64]  # (n_eval,) row numbers, ascending

    def __post_init__(self) -> None:
        if np.intersect1d(self.fit, self.evaluated).size:
            raise ValueError("split: a row that fits must not be scored")

    @property
    def n_folds(self) -> int:
        """Folds of the rows that fit."""
        return int(self.fold_of.max()) + 1


class Samples:
    """The rows of features.h5 as arrays; the same object in every process that does tasks."""

    def __init__(self, member: NDArray[np.int8], split: Split, *, features: NDArray[np.float64] | None = None) -> None:
        """Take the arrays as they are, aligned.

        Args:
            member: membership, shape (n_samples,), 0 or 1.
            split: which rows fit, and which are scored.
            features: what classifiers are fitted on, shape (n_samples, n_features), or None.
        """
        self.member, self.split = member, split
        # A network hands arrays over at any byte; numpy computes on such ones by other loops, to other last bits.
        self.features = None if features is None else np.require(features, requirements=("C", "A"))
        self._fold: tuple[int, Fold] | None = None

    def __len__(self) -> int:
        return len(self.member)

    @property
    def known(self) -> frozenset[str]:
        """What an attack may need: the names of the arrays that are there."""
        return frozenset(name for name in ("member", "features") if getattr(self, name) is not None)

    def rows(self, index: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Features and membership of some rows, copied: (n, n_features), (n,)."""
        assert self.features is not None
        return self.features[index], self.member[index]

    def fold(self, number: int) -> Fold:
        """The rows of one fold, copied out; the last one is kept for the next task."""
        if self._fold is None or self._fold[0] != number:
            self._fold = None  # before the next one takes its place in memory
            validates = self.split.fold_of == number
            self._fold = number, Fold(*self.rows(self.split.fit[~validates]), *self.rows(self.split.fit[validates]))
        return self._fold[1]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by name, as `of_arrays` takes them."""
        held = {"member": self.member, "features": self.features}
        return {name: array for name, array in (held | vars(self.split)).items() if array is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Samples:
        """The samples again, from arrays that may be mapped from a file."""
        split = Split(*(arrays[name] for name in ("fit", "fold_of", "evaluated")))  # type: ignore[arg-type]
        return cls(arrays["member"], split, features=arrays.get("features"))  # type: ignore[arg-type]
