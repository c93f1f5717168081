"""CSV files: a header of names, and a line for each sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from mia_batch.data import tables
from mia_batch.data.tables import StoredColumn, block_rows, is_too_long, printable, too_long
from mia_batch.errors import InputError, one_line, repeated
from mia_batch.files import open_text

T = TypeVar("T")

DELIMITERS = ",;\t"
LONGEST_LINE = 1 << 25  # characters
CELL_BYTES = 1 << 17  # a quote that is never closed must not take the whole file


class CsvTable:
    """Text in UTF-8, its values separated by commas, semicolons or tabs, whichever the header has most of."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            InputError: another encoding, no header, or a name that is empty or there twice.
        """
        self.path, self.name = path, str(path)
        self.columns: dict[str, StoredColumn] = {}
        with self._reading(), self._open() as file:
            first = next(_whole_lines(file), "")
        self._delimiter = max(DELIMITERS, key=first.count)
        with self._reading():
            names = [name.strip() for name in next(self._lines(), (0, []))[1]]
        self._check_header(names)
        self.columns = {name: StoredColumn(None, None) for name in names}

    def _check_header(self, names: list[str]) -> None:
        numbers = [name for name in names if _is_number(name)]
        if names and len(numbers) * 2 > len(names):
            got = printable(names[0])
            raise InputError(f"{self.path}: line 1: must be a header with the columns' names, got {got!r}")
        if "" in names:
            raise InputError(f"{self.path}: line 1: must name every column, got none at {names.index('') + 1}")
        if name := repeated(names):
            raise InputError(f"{self.path}: line 1: must name each column once, got {printable(name)} twice")

    def _open(self) -> TextIO:
        return open_text(self.path, encoding="utf-8-sig", newline="")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: must be text in UTF-8, got {one_line(error)}") from error
        except csv.Error as error:
            raise InputError(f"{self.path}: must be CSV that can be read, got {one_line(error)}") from error
        except OSError as error:
            raise InputError(f"{self.path}: must be a file that can be read, got: {error.strerror}") from error

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """The cells of each line that has any, and its number in the file.

        Raises:
            InputError: a line that is no CSV; or, of one column, an empty one between others: its value is missing.
        """
        csv.field_size_limit(CELL_BYTES)  # of the whole process, in which others may have raised it
        with self._open() as file:
            reader = csv.reader(_whole_lines(file), delimiter=self._delimiter, strict=True)
            empty, ended = 0, 0
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise self._no_csv(ended + 1, error) from error
                if cells is None:
                    return
                ended = reader.line_num
                if not cells:
                    empty = empty or ended
                    continue
                if empty and len(self.columns) == 1:
                    raise InputError(f"{self.path}: line {empty}: must have a value, got an empty line")
                yield ended, cells

    def _no_csv(self, line: int, error: csv.Error) -> InputError:
        """What is said of a row that begins on this line, with the column whose value is too long or never ends."""
        with self._open() as file:
            for _ in islice(file, line - 1):
                pass
            text = file.read(4 * CELL_BYTES)
        csv.field_size_limit(len(text) + 1)
        try:
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter), [])
        except csv.Error:
            cells = []
        finally:
            csv.field_size_limit(CELL_BYTES)
        place = next((number for number, cell in enumerate(cells) if len(cell) > CELL_BYTES), len(cells) - 1)
        names = list(self.columns)
        column = f": {printable(names[place])}" if 0 <= place < len(names) else ""
        got = "a quote that is never closed" if "unexpected end" in str(error) else one_line(error)
        if "field larger" in got:
            asked = ": is a quote never closed?" if '"' in text else ""
            got = f"a value of more than {CELL_BYTES} characters{asked}"
        return InputError(f"{self.path}: line {line}{column}: must be CSV that can be read, got {got}")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The lines below the header."""
        width = len(self.columns)
        for line, cells in islice(self._lines(), 1, None):
            if len(cells) != width:
                raise InputError(f"{self.path}: line {line}: must have {width} values, as the header, got {len(cells)}")
            yield line, cells

    def where(self, row: int) -> str:
        """The line in the file."""
        with self._reading():
            line = next((line for line, _ in islice(self._lines(), row + 1, None)), row + 2)
        return f"line {line}"

    def read(self, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
        """See `Table`: text, without spaces around it."""
        with self._reading():
            for block in _blocks(self._texts(names), block_rows(self.columns, names)):
                yield [np.array(column, dtype=np.str_) for column in zip(*block, strict=True)]

    def numbers(self, names: Sequence[str], scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """See `Table`.

        Raises:
            InputError: a value that is no number; with its line and column.
        """
        rows = (self._row(line, texts, names) for line, texts in self._chosen(names))
        with self._reading():
            for block in _blocks(rows, max(1, tables.BLOCK_VALUES // len(names))):
                yield np.array(block, dtype=np.float64)

    def _texts(self, names: Sequence[str]) -> Iterator[list[str]]:
        for line, cells in self._chosen(names):
            texts = [cell.strip() for cell in cells]
            for name, text in zip(names, texts, strict=True):
                if is_too_long(text):
                    raise too_long(f"{self.path}: {printable(name)}: line {line}", text)
            yield texts

    def _chosen(self, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """The cells of some columns, so that those of the others are not held until a block is full."""
        order = {name: place for place, name in enumerate(self.columns)}
        places = [order[name] for name in names]
        for line, cells in self._rows():
            yield line, [cells[place] for place in places]

    def _row(self, line: int, texts: list[str], names: Sequence[str]) -> list[float]:
        together = "".join(texts)
        try:
            if together.isascii() and "_" not in together:  # Python would read 1_000
                return list(map(float, texts))
        except ValueError:
            pass
        name, text = next((name, text) for name, text in zip(names, texts, strict=True) if not _is_number(text))
        raise InputError(f"{self.path}: line {line}: {printable(name)}: must be a number, got {text[:40]!r}")


def _whole_lines(file: TextIO) -> Iterator[str]:
    """What `csv` reads: it takes a piece of a line for a line."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise csv.Error(f"a line of more than {LONGEST_LINE} characters")
        yield line


def _blocks(rows: Iterator[T], n: int) -> Iterator[list[T]]:
    while block := list(islice(rows, n)):
        yield block


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text
