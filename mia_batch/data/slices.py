"""Named subsets of the samples: by files of indices, and by files of a name for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.csv_table import CsvTable
from mia_batch.data.groups import read_names
from mia_batch.data.index_files import read_indices
from mia_batch.data.outputs import MOST_SLICES
from mia_batch.data.tables import listed_names
from mia_batch.errors import InputError

Files = Mapping[str, Mapping[str, Path]]  # by name and split
Column = tuple[NDArray[np.int32], tuple[str, ...]]  # number of each sample's value, (n_samples,), and the values


def named_slices(
    files: Files, split: NDArray[np.str_], sample_index: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Which samples `report.slices` names, (n_samples,) each, by name. An index that is no sample of the audit is not.

    Args:
        files: of indices, by name and split.
        split: of each sample, (n_samples,).
        sample_index: position in its split, (n_samples,).

    Raises:
        InputError: a bad index file, a split that no sample is of, or a file that names no sample.
    """
    found = {}
    for name, by_split in files.items():
        found[name] = np.zeros(len(split), dtype=bool)
        for of, file in by_split.items():
            field = f"report.slices.{name}.{of}"
            there = _of_split(split, of, field)
            named = there & np.isin(sample_index, read_indices(file))
            if not named.any():
                raise InputError(f"{field}: must name a sample of split {of!r}, got none in {file}")
            found[name] |= named
    return found


def slice_columns(
    files: Files, split: NDArray[np.str_], sample_index: NDArray[np.int64], sizes: Mapping[str, int] | None = None
) -> dict[str, Column]:
    """The value of each sample by the files of `report.slices_by`, by name.

    Args:
        files: of a value for each sample of a split, by name and split.
        split: of each sample, (n_samples,).
        sample_index: position in its split, (n_samples,).
        sizes: samples of each split; None where that is not known any more.

    Raises:
        InputError: a file that cannot be read or has too few or too many values, a split that has no file or no sample,
            or too many different values.
    """
    found = {}
    for name, by_split in files.items():
        text = np.full(len(split), "", dtype=object)
        for of, file in by_split.items():
            field = f"report.slices_by.{name}.{of}"
            there, values = _of_split(split, of, field), _values(file, name)
            _check_length(values, sample_index[there], f"{file}: {field}", None if sizes is None else sizes[of])
            text[there] = values[sample_index[there]]
        lacking = [str(of) for of in np.unique(split) if of not in by_split]
        if lacking:
            raise InputError(f"report.slices_by.{name}: must have a file for each split, got none for {lacking[0]}")
        known, numbers = np.unique(text.astype(np.str_), return_inverse=True)
        if len(known) > MOST_SLICES:
            rule = f"must have at most {MOST_SLICES} different values"
            raise InputError(f"report.slices_by.{name}: {rule}, got {len(known)}")
        found[name] = numbers.astype(np.int32), tuple(known.tolist())
    return found


def _of_split(split: NDArray[np.str_], of: str, field: str) -> NDArray[np.bool_]:
    there = np.asarray(split == of)
    if not there.any():
        known = ", ".join(np.unique(split).tolist())
        raise InputError(f"{field}: must be a split that samples are of: {known}, got {of}")
    return there


def _values(file: Path, name: str) -> NDArray[np.str_]:
    """Text, (n,): the column of that name of a `.csv`, else what `groups.read_names` reads."""
    if file.suffix != ".csv":
        return np.asarray(read_names(file, "names"))
    table = CsvTable(file)
    if name not in table.columns:
        raise InputError(f"{file}: must have a column {name}, got {listed_names(table.columns)}")
    parts = [np.asarray(column, dtype=np.str_) for (column,) in table.read([name])]
    found = np.concatenate(parts) if parts else np.empty(0, dtype=np.str_)
    if (found == "").any():
        row = int(np.argmax(found == ""))
        raise InputError(f"{file}: {name}: {table.where(row)}: must be there, got nothing")
    return found


def _check_length(values: NDArray[np.str_], index: NDArray[np.int64], where: str, size: int | None) -> None:
    """A value for each sample of the split, which has `size`, if that is known, or more than the largest index."""
    least = int(index.max()) + 1 if size is None else size
    if len(values) < least or (size is not None and len(values) > size):
        rule = f"must have a value for each sample of the split, {'at least ' if size is None else ''}{least}"
        raise InputError(f"{where}: {rule}, got {len(values)}")
