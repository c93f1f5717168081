"""Files of named columns, of whatever format: what is in them, and their rows, in blocks that fill no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError

BLOCK_VALUES = 1 << 20  # read at a time, of 8 bytes each
MOST_TEXT_BYTES = 255  # of a name or a word: numpy keeps each text of a block as wide as the longest
SHOWN = 20  # names of columns in a message
NUMBERS, TEXT = "biuf", "US"  # kinds of numpy's types


@dataclass(frozen=True)
class StoredColumn:
    """A column, array or dataset.

    Attributes:
        dtype: as it is stored; None for text that may mean numbers.
        n_rows: None where only reading tells.
        width: numbers of each row; None for a column of one value.
        problem: why it can be no column: for whoever asks for it.
    """

    dtype: np.dtype[Any] | None
    n_rows: int | None
    width: int | None = None
    problem: InputError | None = None

    @staticmethod
    def refused(problem: InputError) -> StoredColumn:
        """What is in a file, but can be no column."""
        return StoredColumn(None, None, problem=problem)


class Table(Protocol):
    """One file, or some .npy files side by side."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def columns(self) -> Mapping[str, StoredColumn]:
        """What there is, by name."""

    def where(self, row: int) -> str:
        """How a message names a row, counted from 0."""

    def read(self, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
        """Some columns, block by block: an array of (rows,) or (rows, width) for each name.

        Raises:
            InputError: the file is damaged, or changes while it is read, or a text is too long.
        """

    def numbers(self, names: Sequence[str], scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """Some columns as one matrix (rows, all widths together), block by block.

        Args:
            names: of the columns.
            scratch: the folder for a copy of what cannot be read row by row; None for the system's.

        Raises:
            InputError: see `read`; or there is no room for the copy.
        """


def side_by_side(blocks: Iterator[list[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """What `Table.read` gives, as one matrix."""
    for block in blocks:
        columns = [column[:, np.newaxis] if column.ndim == 1 else column for column in block]
        yield columns[0] if len(columns) == 1 else np.hstack(columns)


def block_rows(columns: Mapping[str, StoredColumn], names: Sequence[str]) -> int:
    """How many rows of these columns are read at a time."""
    return max(1, BLOCK_VALUES // sum(_values(columns[name]) for name in names))


def _values(column: StoredColumn) -> int:
    """As how many values of `BLOCK_VALUES` a row counts; text whose width is not stored as the longest that may be."""
    stored = column.dtype.itemsize if column.dtype is not None else 0
    return (column.width or 1) * -(-(stored or MOST_TEXT_BYTES * np.dtype("U1").itemsize) // 8)


def as_text(texts: Sequence[str], at: Callable[[int], str]) -> NDArray[np.str_]:
    """Python's strings as an array of numpy's.

    Args:
        texts: of one column.
        at: says the file, the column and the row of one of them.

    Raises:
        InputError: one is too long.
    """
    for row, text in enumerate(texts):
        if is_too_long(text):
            raise too_long(at(row), text)
    return np.array(texts, dtype=np.str_)


def is_too_long(text: str) -> bool:
    """Whether a text has more bytes than a name may have."""
    return 4 * len(text) > MOST_TEXT_BYTES and len(text.encode("utf-8", "surrogatepass")) > MOST_TEXT_BYTES


def too_long(where: str, text: str) -> InputError:
    """What is said of such a text."""
    return InputError(f"{where}: must have at most {MOST_TEXT_BYTES} bytes, got {text[:40]!r}...")


def check_kind(where: str, dtype: np.dtype[Any], n_dim: int) -> None:
    """Refuse what is neither numbers nor text, or has more than two dimensions.

    Raises:
        InputError: naming `where`.
    """
    if dtype.hasobject:
        raise InputError(f"{where}: must hold numbers or text, got Python objects (a pickle), which are not loaded")
    if dtype.kind not in NUMBERS + TEXT or not dtype.itemsize:
        raise InputError(f"{where}: must hold numbers or text, got {dtype}")
    check_dimensions(where, n_dim)


def check_dimensions(where: str, n_dim: int) -> None:
    """Refuse what has no rows, or rows that are no vectors.

    Raises:
        InputError: naming `where`.
    """
    if n_dim not in (1, 2):
        raise InputError(f"{where}: must have one or two dimensions, samples first, got {n_dim}")


def listed_names(columns: Mapping[str, StoredColumn]) -> str:
    """The names for a message, the first ones of many."""
    names = [printable(name) for name in columns]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def printable(name: str) -> str:
    """A name without what would disturb a terminal, and not too long."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_file(path: Path) -> None:
    """Refuse what would keep a reader waiting, or has nothing in it.

    Raises:
        InputError: no regular file, or an empty one.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: must be a file" + ("" if path.exists() else ", which does not exist"))
        if not path.stat().st_size:
            raise InputError(f"{path}: must hold outputs, got an empty file")
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, got: {error.strerror}") from error
