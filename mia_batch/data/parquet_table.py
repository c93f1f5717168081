"""Parquet files, by way of pyarrow, which is imported here alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.tables import (
    MOST_TEXT_BYTES,
    StoredColumn,
    block_rows,
    check_kind,
    printable,
    side_by_side,
    too_long,
)
from mia_batch.errors import InputError, one_line, repeated

BATCH = 1 << 10  # rows that are looked through for a list


class ParquetTable:
    """Columns of numbers and text; a column of lists of one length is a matrix."""

    def __init__(self, path: Path) -> None:
        """Read what the file says of itself.

        Raises:
            InputError: pyarrow is not installed, or the file is no Parquet.
        """
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as error:
            rule = "needs pyarrow, which is not installed: pip install 'mia_batch[parquet]'"
            raise InputError(f"{path}: {rule}") from error
        self.path, self.name, self._arrow = path, str(path), pyarrow
        with self._reading():
            with pyarrow.parquet.ParquetFile(path) as file:
                schema, self._n_rows = file.schema_arrow, file.metadata.num_rows
            if name := repeated(schema.names):
                raise InputError(f"{path}: must name each column once, got {printable(name)} twice")
            self.columns = {field.name: self._column(field) for field in schema}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (self._arrow.ArrowException, OSError, ValueError, NotImplementedError, KeyError) as error:
            raise InputError(f"{self.path}: must be a Parquet file that can be read, got {one_line(error)}") from error

    def _column(self, field: Any) -> StoredColumn:
        kind = field.type
        if (no_numbers := self._no_numbers(kind)) is not None:
            where = f"{self.path}: {printable(field.name)}"
            return StoredColumn.refused(InputError(f"{where}: must hold numbers or text, got Parquet's {no_numbers}"))
        if self._arrow.types.is_fixed_size_list(kind):
            return StoredColumn(self._dtype(kind.value_type), self._n_rows, kind.list_size)
        if self._arrow.types.is_list(kind) or self._arrow.types.is_large_list(kind):
            return StoredColumn(self._dtype(kind.value_type), self._n_rows, self._list_size(field.name))
        return StoredColumn(self._dtype(kind), self._n_rows)

    def _dtype(self, kind: Any) -> np.dtype[Any]:
        types = self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_string(kind) or types.is_large_string(kind):
            return np.dtype(np.str_)
        try:
            return np.asarray(self._arrow.array([], type=kind).to_numpy(zero_copy_only=False)).dtype
        except (NotImplementedError, self._arrow.ArrowException):
            return np.dtype(object)  # which `_no_numbers` names

    def _no_numbers(self, kind: Any) -> str | None:
        """What a type is called whose values numpy has as objects; None of the others."""
        types = self._arrow.types
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            inner = self._no_numbers(kind.value_type)
            return None if inner is None else f"list of {inner}"
        return printable(str(kind)) if self._dtype(kind).hasobject else None

    def _list_size(self, name: str) -> int:
        """Of a column's first list that is there; the others must be as long."""
        for (array,) in self._batches([name], BATCH):
            if len(there := array.drop_null()):
                return len(there[0])
        return 1  # reading says which row is missing

    def _batches(self, names: Sequence[str], n: int) -> Iterator[list[Any]]:
        with self._reading(), self._arrow.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=n, columns=list(names)):
                yield [batch.column(name) for name in names]

    def where(self, row: int) -> str:
        """Counted from 0."""
        return f"row {row}"

    def read(self, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
        """See `Table`."""
        for name in names:
            if (dtype := self.columns[name].dtype) is not None and dtype != np.str_:
                check_kind(f"{self.path}: {printable(name)}", dtype, 1)
        first = 0
        for arrays in self._batches(names, block_rows(self.columns, names)):
            yield [self._values(name, array, first) for name, array in zip(names, arrays, strict=True)]
            first += len(arrays[0])

    def numbers(self, names: Sequence[str], scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """See `Table`."""
        return side_by_side(self.read(names))

    def _values(self, name: str, array: Any, first: int) -> NDArray[Any]:
        """(rows,) or (rows, width) of an Arrow array whose first row this is."""
        where, width = f"{self.path}: {printable(name)}", self.columns[name].width
        if array.null_count:
            row = first + array.is_null().index(self._arrow.scalar(True)).as_py()
            raise InputError(f"{where}: row {row}: must be there, got a missing value")
        if width is None:
            if self.columns[name].dtype == np.str_:
                self._check_lengths(where, array, first)
            if self._arrow.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            found = array.to_numpy(zero_copy_only=False)
            return found.astype(np.str_) if found.dtype.hasobject else found
        flat = array.flatten()
        sizes = np.full(len(array), width) if self._arrow.types.is_fixed_size_list(array.type) else _sizes(array)
        if (wrong := np.flatnonzero(sizes != width)).size:
            raise InputError(f"{where}: row {first + wrong[0]}: must have {width} values, got {sizes[wrong[0]]}")
        if flat.null_count:
            row = first + flat.is_null().index(self._arrow.scalar(True)).as_py() // max(1, width)
            raise InputError(f"{where}: row {row}: must have {width} numbers, got a missing value")
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), width)

    def _check_lengths(self, where: str, texts: Any, first: int) -> None:
        """Refuse a text that is too long, before each is made as wide as the longest."""
        n_bytes = self._arrow.compute.binary_length
        coded = self._arrow.types.is_dictionary(texts.type)
        lengths = n_bytes(texts.dictionary).take(texts.indices) if coded else n_bytes(texts)
        if (wrong := np.flatnonzero(np.asarray(lengths) > MOST_TEXT_BYTES)).size:
            raise too_long(f"{where}: row {first + wrong[0]}", texts[int(wrong[0])].as_py())


def _sizes(array: Any) -> NDArray[np.int64]:
    offsets = array.offsets.to_numpy()
    return np.asarray(np.diff(offsets), dtype=np.int64)
