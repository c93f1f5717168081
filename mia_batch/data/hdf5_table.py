"""HDF5 files: datasets by their path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.tables import StoredColumn, as_text, block_rows, check_dimensions, printable, side_by_side
from mia_batch.errors import InputError
from mia_batch.rundir.users_hdf5 import UsersHdf5


class Hdf5Table:
    """Datasets of one or two dimensions; others are refused where they are asked for."""

    def __init__(self, path: Path) -> None:
        """List the datasets. Raises: see `UsersHdf5`."""
        self.name, self._file = str(path), UsersHdf5(path)
        self.columns = {name: self._column(name, *kind) for name, kind in self._file.shapes.items()}

    def _column(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> StoredColumn:
        try:
            check_dimensions(f"{self.name}: {printable(name)}", len(shape))
        except InputError as error:
            return StoredColumn.refused(error)
        return StoredColumn(dtype, shape[0], shape[1] if len(shape) == 2 else None)

    def where(self, row: int) -> str:
        """Counted from 0."""
        return f"row {row}"

    def read(self, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
        """See `Table`."""
        first = 0
        for block in self._file.read(names, block_rows(self.columns, names)):
            yield [self._values(name, values, first) for name, values in zip(names, block, strict=True)]
            first += len(block[0])

    def numbers(self, names: Sequence[str], scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """See `Table`."""
        return side_by_side(self.read(names))

    def _values(self, name: str, values: NDArray[Any], first: int) -> NDArray[Any]:
        def at(row: int) -> str:
            return f"{self.name}: {printable(name)}: row {first + row}"

        return as_text(values.tolist(), at) if values.dtype.hasobject else values
