"""What an attack may know of the samples: arrays of rows, and which rows fit it and which it scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLE, ROW = ":table", ":row"  # behind the name of a `Lookup`, of the arrays that it is made of
OWN = ":own:"  # between the name of `OwnRows` and those of the arrays that they are made of
# What references, `reference_in`, let attacks be made of: some sample is IN one, or OUT of one, or both, or both twice,
# or one of them twice.
SOME_IN, SOME_OUT, IN_AND_OUT, TWO_IN_AND_OUT = "some_in", "some_out", "in_and_out", "two_in_and_out"
TWO_ON_A_SIDE = "two_on_a_side"


def known_of_references(reference_in: NDArray[np.integer]) -> frozenset[str]:
    """What attacks may need of references, from which of them were trained on each sample, (n_samples, n_references).

    In or out are meant of one sample: with one reference alone no sample has both.
    """
    n_in = (reference_in == 1).sum(axis=1)
    n_out = reference_in.shape[1] - n_in
    there = {
        SOME_IN: n_in.any(), SOME_OUT: n_out.any(),
        IN_AND_OUT: (np.minimum(n_in, n_out) >= 1).any(), TWO_IN_AND_OUT: (np.minimum(n_in, n_out) >= 2).any(),
        TWO_ON_A_SIDE: (np.maximum(n_in, n_out) >= 2).any(),
    }  # fmt: skip
    return frozenset(name for name, is_there in there.items() if is_there)


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


@dataclass(frozen=True)
class Part:
    """Which matrix of the samples a classifier is fitted on, by which of their splits, and for whom.

    Attributes:
        key: how the keys of its tasks begin.
        matrix: name of an array of shape (n_samples, n_columns), or of `OwnRows`.
        split: number of the split; `OwnRows` have one of their own.
    """

    key: str
    matrix: str = "features"
    split: int = 0


class Lookup:
    """A matrix of few different rows: those, and which of them each sample has."""

    def __init__(self, table: NDArray[np.float64], row: NDArray[np.int32]) -> None:
        """Take the different rows, (n_different, n_columns), and their numbers, (n_samples,)."""
        self.table, self.row = table, row
        self.shape = len(row), table.shape[1]

    def __getitem__(self, index: Any) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.table[self.row[index]]
        return found

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class OwnRows:
    """A matrix whose rows are not the samples, with their membership and split, as of references that play the target.

    Raises:
        ValueError: the arrays disagree.
    """

    X: NDArray[np.float64]  # (n_rows, n_columns)
    y: NDArray[np.int8]  # (n_rows,) 0 or 1; of rows that are only scored, whatever
    split: Split

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or self.y.shape != self.X.shape[:1]:
            raise ValueError(f"own rows: must have shapes (n, d) and (n,), got {self.X.shape} and {self.y.shape}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name."""
        return {"X": self.X, "y": self.y, **vars(self.split)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> OwnRows:
        """Again, from those."""
        return cls(arrays["X"], arrays["y"], Split(*(arrays[each.name] for each in fields(Split))))


class View:
    """A matrix and a split of the samples, as a classifier takes them."""

    def __init__(self, X: NDArray[np.float64] | Lookup, member: NDArray[np.int8], split: Split) -> None:
        """Take the arrays as they are, aligned: (n_samples, n_features) and (n_samples,)."""
        self.X, self.member, self.split = X, member, split
        self._fold: tuple[int, Fold] | None = None

    def rows(self, index: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Features and membership of some rows, copied: (n, n_features), (n,)."""
        return self.X[index], self.member[index]

    def scored(self) -> NDArray[np.float64]:
        """The different rows among those that are scored, of a `Lookup`; else all of them, (n_eval, n_features)."""
        return self.X.table if isinstance(self.X, Lookup) else self.X[self.split.evaluated]

    def of_evaluated(self, found: NDArray[Any]) -> NDArray[Any]:
        """Of each row that is scored what was found of the rows of `scored`, (n_eval, ...)."""
        return found[self.X.row[self.split.evaluated]] if isinstance(self.X, Lookup) else found

    def fold(self, number: int) -> Fold:
        """The rows of one fold, copied out; the last one is kept for the next task."""
        if self._fold is None or self._fold[0] != number:
            self._fold = None  # before the next one takes its place in memory
            validates = self.split.fold_of == number
            self._fold = number, Fold(*self.rows(self.split.fit[~validates]), *self.rows(self.split.fit[validates]))
        return self._fold[1]


class Samples:
    """The rows of features.h5 as arrays; the same object in every process that does tasks."""

    def __init__(
        self, member: NDArray[np.int8], splits: Sequence[Split], **columns: NDArray[Any] | Lookup | OwnRows | None
    ) -> None:
        """Take the arrays as they are, aligned.

        Args:
            member: membership, shape (n_samples,), 0 or 1.
            splits: one, or several that score different rows.
            columns: what else is known of each row, n_samples rows each, or `OwnRows`; None for what is not known.
        """
        self.member, self.splits = member, tuple(splits)
        # A network hands arrays over at any byte; numpy computes on such ones by other loops, to other last bits.
        self.columns: dict[str, Any] = {
            name: column if isinstance(column, Lookup | OwnRows) else np.require(column, requirements=("C", "A"))
            for name, column in columns.items() if column is not None
        }
        self._view: tuple[Part, View] | None = None

    def __len__(self) -> int:
        return len(self.member)

    @property
    def known(self) -> frozenset[str]:
        """What an attack may need: the names of the arrays that are there, and what `known_of_references` says."""
        names = frozenset(("member", *self.columns))
        return names | known_of_references(self.columns["reference_in"]) if "reference_in" in names else names

    def view(self, part: Part) -> View:
        """What `part` names; the last one is kept for the next task."""
        if self._view is None or self._view[0] != part:
            matrix = self.columns[part.matrix]
            own = isinstance(matrix, OwnRows)
            self._view = part, (
                View(matrix.X, matrix.y, matrix.split) if own else View(matrix, self.member, self.splits[part.split])
            )
        return self._view[1]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by name, as `of_arrays` takes them."""
        splits = {f"{name}/{i}": array for i, split in enumerate(self.splits) for name, array in vars(split).items()}
        columns: dict[str, Any] = {}
        for name, column in self.columns.items():
            if isinstance(column, Lookup):
                columns |= {f"{name}{TABLE}": column.table, f"{name}{ROW}": column.row}
            elif isinstance(column, OwnRows):
                columns |= {f"{name}{OWN}{part}": array for part, array in column.arrays().items()}
            else:
                columns[name] = column
        return {"member": self.member, **columns, **splits}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Samples:
        """The samples again, from arrays that may be mapped from a file."""
        names = [field.name for field in fields(Split)]
        n_splits = sum(name.startswith(f"{names[0]}/") for name in arrays)
        splits = [Split(*(arrays[f"{name}/{i}"] for name in names)) for i in range(n_splits)]
        columns: dict[str, Any] = {
            name: array for name, array in arrays.items() if name != "member" and "/" not in name and ":" not in name
        }
        columns |= {
            name.removesuffix(TABLE): Lookup(table, arrays[name.removesuffix(TABLE) + ROW])
            for name, table in arrays.items() if name.endswith(TABLE)
        }
        owners = dict.fromkeys(name.partition(OWN)[0] for name in arrays if OWN in name)
        columns |= {
            owner: OwnRows.of_arrays({
                name.removeprefix(f"{owner}{OWN}"): array
                for name, array in arrays.items() if name.startswith(f"{owner}{OWN}")
            })
            for owner in owners
        }  # fmt: skip
        return cls(arrays["member"], splits, **columns)
