"""THE list of formats that outputs may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mia_batch.data.csv_table import CsvTable
from mia_batch.data.npy_table import NpyTable
from mia_batch.data.parquet_table import ParquetTable
from mia_batch.data.tables import Table, check_file
from mia_batch.errors import InputError


def _hdf5(path: Path) -> Table:
    from mia_batch.data.hdf5_table import Hdf5Table  # h5py takes a while

    return Hdf5Table(path)


FORMATS: dict[str, Callable[[Path], Table]] = {
    ".npz": NpyTable.of_npz, ".npy": NpyTable.of_file, ".csv": CsvTable, ".tsv": CsvTable, ".parquet": ParquetTable,
    ".h5": _hdf5, ".hdf5": _hdf5,
}  # fmt: skip


def open_table(parts: Mapping[str, Path]) -> Table:
    """The table in a file (under ""), or in .npy files by what they hold.

    Raises:
        InputError: a file that cannot be read, or whose name does not say what it is.
    """
    if "" not in parts:
        return NpyTable.of_files(parts)
    path = parts[""]
    check_file(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: must be a file of outputs whose name ends in {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()](path)


