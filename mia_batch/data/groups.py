"""Declared groups: samples that belong together, such as views of one image, twins, or pictures of one person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mia_batch.data.sources import Source
from mia_batch.data.user_source import ObjectSource
from mia_batch.errors import InputError, one_line
from mia_batch.files import read_lines
from mia_batch.inputs import NO_GROUP
from mia_batch.npy_files import DAMAGED, map_npy
from mia_batch.settings.schema import DataConfig

MOST_NAMES = 10**7
LONGEST_NAME = 255  # characters: numpy keeps each name as wide as the longest

def declared_groups(
    data: DataConfig, parts: Sequence[tuple[str, np.ndarray]], source: Source
) -> tuple[np.ndarray, np.ndarray]:
    """Each sample's group by `data.group`: its number, int64 (n,), from 0 in order of first appearance, and its name.

    Args:
        data: the configuration.
        parts: (split, indices) of the samples, in their order. A name means one group in all splits.
        source: of `data`.

    Returns:
        `NO_GROUP` and an empty name for samples named -1, and for all without `data.group`.

    Raises:
        InputError: a file that is not one name per sample of its split, a source that has no such column or attribute.
    """
    if data.group is None:
        n = sum(len(index) for _, index in parts)
        return np.full(n, NO_GROUP, dtype=np.int64), np.full(n, "")
    codes: dict[str, int] = {str(NO_GROUP): NO_GROUP}
    names = [name for split, index in parts for name in _names(data.group, split, index, source)]
    numbers = np.array([codes.setdefault(name, len(codes) - 1) for name in names], dtype=np.int64)
    return numbers, np.where(numbers == NO_GROUP, "", np.array(names, dtype=np.str_))


def _names(group: str | dict[str, Path], split: str, index: np.ndarray, source: Source) -> Sequence[str]:
    if isinstance(group, dict):
        return read_group_file(group[split], source.size(split), split)[index].tolist()
    assert isinstance(source, ObjectSource)  # of records the schema takes files alone
    return source.groups(split, index, group)


def read_group_file(path: Path, size: int, split: str) -> np.ndarray:
    """The name of each sample's group: of `read_names`.

    Args:
        path: the file.
        size: samples of the split, one name for each.
        split: for messages.

    Raises:
        InputError: unreadable, of another length or kind, or a line that is not one word.
    """
    names = read_names(path, "groups")
    if len(names) != size:
        rule = f"must hold one group for each of the {size} samples of split {split!r}"
        raise InputError(f"{path}: {rule}, got {len(names)}")
    return names


def read_names(path: Path, what: str) -> np.ndarray:
    """A name for each sample of a split, text (n,): a `.npy` of integers or text, or text with one name a line.

    Args:
        path: the file.
        what: they are names of, for messages.

    Raises:
        InputError: unreadable, of another kind, too many, or a line that is not one word.
    """
    try:
        return _read_npy(path) if path.suffix == ".npy" else _read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be a readable file of {what}, got {one_line(error)}") from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        names = map_npy(path)
    except DAMAGED as error:
        raise InputError(f"{path}: must be a .npy file of integers or text, got {one_line(error)}") from error
    if names.ndim != 1 or names.dtype.kind not in "iuU":
        shown = f"{names.dtype} of shape {names.shape}"
        raise InputError(f"{path}: must be a 1-D array of integers or text, got {shown}")
    if names.dtype.kind == "U" and names.dtype.itemsize > LONGEST_NAME * np.dtype("U1").itemsize:
        raise InputError(f"{path}: must have names of at most {LONGEST_NAME} characters, got {names.dtype}")
    _refuse_more(path, len(names))
    return names.astype(np.str_)


def _read_text(path: Path) -> np.ndarray:
    names: list[str] = []
    for number, line in read_lines(path):
        if len(line.split()) != 1:
            raise InputError(f"{path}: line {number}: must be one integer or word, got {line[:40]!r}")
        if len(line) > LONGEST_NAME:
            raise InputError(f"{path}: line {number}: must have at most {LONGEST_NAME} characters, got {line[:40]!r}")
        names.append(line.strip())
        _refuse_more(path, number)
    return np.array(names, dtype=np.str_)


def _refuse_more(path: Path, n_names: int) -> None:
    if n_names > MOST_NAMES:
        raise InputError(f"{path}: must hold at most {MOST_NAMES} names, got more")
