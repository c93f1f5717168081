"""Which reference model was trained on which sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.npy_files import DAMAGED, is_archive, map_npy, read_npz

NAMED = ("included", "split", "sample_index")  # the arrays of a .npz file


def read_inclusion(
    path: Path, n_references: int, split: NDArray[np.str_], sample_index: NDArray[np.int64], *, first: bool = False
) -> NDArray[np.int8]:
    """Read it for the samples of an audit.

    Args:
        path: a `.npy` file of bools (K, n_samples), columns in the audit's order; or a `.npz` file that names its M
            samples: `included` (K, M), `split` (M,) and `sample_index` (M,).
        n_references: K.
        split: of each sample of the audit, (n_samples,).
        sample_index: position in its split, (n_samples,).
        first: whether the file may have more references, of which the first K are wanted.

    Returns:
        1 where the sample was in the reference's training data, else 0, (n_samples, K).

    Raises:
        InputError: unreadable, of another shape or type, or without a sample of the audit.
    """
    where = f"{path}: references.inclusion"
    found = _load(path, where)
    if isinstance(found, Mapping):
        missing = [name for name in NAMED if name not in found]
        if missing:
            raise InputError(f"{where}: must have the arrays {', '.join(NAMED)}, got none of {', '.join(missing)}")
        rows = found["included"][:n_references] if first else found["included"]
        included = _checked(rows, f"{where}: included", n_references, len(found["split"]))
        return included[:, _columns(found, where, split, sample_index)].T
    return _checked(found, where, n_references, len(sample_index)).T


def _load(path: Path, where: str) -> Any:
    try:
        return read_npz(path, NAMED) if is_archive(path) else map_npy(path)
    except OSError as error:
        raise InputError(f"{where}: must be a file that can be read, got {error.strerror or error}") from error
    except DAMAGED as error:
        raise InputError(f"{where}: must be a .npy or .npz file of arrays, got {one_line(error)}") from error


def _checked(included: NDArray[Any], where: str, n_references: int, n_samples: int) -> NDArray[np.int8]:
    if included.dtype.kind not in "biu":
        raise InputError(f"{where}: must be bools, or 0 and 1, got {included.dtype}")
    wanted = n_references, n_samples
    if included.shape != wanted:
        rule = f"must have a row for each checkpoint and a column for each sample, shape {wanted}"
        raise InputError(f"{where}: {rule}, got {included.shape}")
    if included.size and (included.max() > 1 or included.min() < 0):
        row, column = np.argwhere((included > 1) | (included < 0))[0]
        raise InputError(f"{where}: must be bools, or 0 and 1, got {included[row, column]} at [{row}, {column}]")
    return included.astype(np.int8)


def _columns(
    found: Mapping[str, NDArray[Any]], where: str, split: NDArray[np.str_], sample_index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where the audit's samples stand in a file that names its own, (n_samples,)."""
    names, index = found["split"], found["sample_index"]
    names = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{where}: split: must be names of splits, (M,), got {names.dtype} of shape {names.shape}")
    if index.shape != names.shape or index.dtype.kind not in "iu":
        rule = f"must be integers of shape {names.shape}"
        raise InputError(f"{where}: sample_index: {rule}, got {index.dtype} of shape {index.shape}")
    columns = np.empty(len(split), dtype=np.int64)
    for name in np.unique(split):
        wanted, there = np.flatnonzero(split == name), np.flatnonzero(names == name)
        there = there[np.argsort(index[there], kind="stable")]
        twice = np.flatnonzero(np.diff(index[there]) == 0)
        if len(twice):
            raise InputError(f"{where}: must name each sample once, got {name} sample {index[there[twice[0]]]} again")
        place = np.searchsorted(index[there], sample_index[wanted])
        known = place < len(there)
        known[known] = index[there[place[known]]] == sample_index[wanted[known]]
        if not known.all():
            lost = f"{name} sample {sample_index[wanted[np.argmin(known)]]}"
            raise InputError(f"{where}: must name every sample of the audit, got none of {(~known).sum()}, as {lost}")
        columns[wanted] = there[place]
    return columns
