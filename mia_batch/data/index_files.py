"""Files of sample indices."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mia_batch.errors import InputError, one_line
from mia_batch.files import read_lines
from mia_batch.npy_files import DAMAGED, map_npy

MOST_INDICES = 10**8  # which take a gigabyte
INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # \d would take the digits of all scripts


def read_indices(path: Path) -> np.ndarray:
    """Read sample indices, int64 (n,): a `.npy` of 1-D integers, or text with one integer a line (`#` comments).

    Raises:
        InputError: unreadable, empty, not integers, negative, or one given twice; with the position.
    """
    try:
        index, positions = _read_npy(path) if path.suffix == ".npy" else _read_text(path)
    except IsADirectoryError:
        raise InputError(f"{path}: must be a file of indices, got a folder") from None
    except OSError as error:
        raise InputError(f"{path}: must be a readable file of indices, got {error.strerror or error}") from error
    if len(index) == 0:
        raise InputError(f"{path}: must hold at least one index, got none")
    if index.min() < 0:
        bad = int(np.argmax(index < 0))
        raise InputError(f"{path}: {positions(bad)}: index must be >= 0, got {index[bad]}")
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(len(index)))
    if len(repeated):
        bad = int(repeated[0])
        count = f"{len(repeated)} repeated" if len(repeated) > 1 else f"first at {positions(int(first[inverse[bad]]))}"
        raise InputError(f"{path}: {positions(bad)}: each index must be given once, got {index[bad]} again ({count})")
    return index


_Positions = Callable[[int], str]


def _read_npy(path: Path) -> tuple[np.ndarray, _Positions]:
    try:
        index = map_npy(path)
    except DAMAGED as error:
        raise InputError(f"{path}: must be a .npy file of integers, got {one_line(error)}") from error
    if index.ndim != 1 or index.dtype.kind not in "iu":
        shown = f"{index.dtype} of shape {index.shape}"
        hint = "; numpy.flatnonzero turns a mask into indices" if shown.startswith("bool") else ""
        raise InputError(f"{path}: must be a 1-D array of integers, got {shown}{hint}")
    _refuse_more(path, len(index))
    if len(index) and int(index.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{path}: indices must be below 2**63, got {index.max()}")
    return index.astype(np.int64), lambda position: f"entry {position}"


def _read_text(path: Path) -> tuple[np.ndarray, _Positions]:
    values, lines = array("q"), array("q")
    try:
        for number, line in read_lines(path):
            word = line.split("#", 1)[0].strip()
            if not word:
                continue
            if not INTEGER.fullmatch(word):
                raise InputError(f"{path}: line {number}: must be one integer, got {word[:40]!r}")
            values.append(int(word))
            lines.append(number)
            _refuse_more(path, len(values))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be text with one integer a line, or .npy, got other bytes") from error
    return np.array(values, dtype=np.int64), lambda position: f"line {lines[position]}"


def _refuse_more(path: Path, n_indices: int) -> None:
    if n_indices > MOST_INDICES:
        raise InputError(f"{path}: must hold at most {MOST_INDICES} indices, got more")
