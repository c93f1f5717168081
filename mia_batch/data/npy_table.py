"""Arrays in .npy and .npz files, read in blocks from beginning to end; pickles are never loaded."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.tables import StoredColumn, block_rows, check_file, check_kind, printable, side_by_side
from mia_batch.errors import InputError, one_line
from mia_batch.files import open_bytes
from mia_batch.npy_files import DAMAGED, archive, read_header

NO_SUCH_PLACE = (None, errno.EINVAL)  # what a jump to a place that damaged bytes name is answered with
UNREAD = np.dtype("f4")


@dataclass(frozen=True)
class StoredArray:
    """One array.

    Attributes:
        where: its file, and its name there, for messages.
        open: opens the bytes of its .npy file.
        size: of them.
        dtype, shape, fortran, begin: as its header says; where the values begin.
    """

    where: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    size: int
    dtype: np.dtype[Any] = UNREAD
    shape: tuple[int, ...] = ()
    fortran: bool = False
    begin: int = 0

    @property
    def column(self) -> StoredColumn:
        """For `Table.columns`."""
        return StoredColumn(self.dtype, self.shape[0], self.shape[1] if len(self.shape) == 2 else None)

    def with_header(self) -> StoredArray:
        """The array with what its header says.

        Raises:
            InputError: no .npy, objects, no numbers or text, too many dimensions, or other bytes than it promises.
        """
        with _readable(self.where), self.open() as file:
            header = read_header(file)
        shape, dtype = header.shape, header.dtype
        check_kind(self.where, dtype, len(shape))
        promised = header.size + math.prod(shape) * dtype.itemsize
        if min(shape) < 0 or promised != self.size:
            raise InputError(f"{self.where}: must have {promised} bytes, as its header says, got {self.size}")
        fortran = header.fortran and len(shape) == 2 and shape[1] > 1
        return replace(self, dtype=dtype, shape=shape, fortran=fortran, begin=header.size)

    def blocks(self, n: int, scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """Its rows, `n` at a time. For `scratch` see `Table.numbers`."""
        with _readable(self.where), self._rewindable(scratch) as file:
            for first in range(0, self.shape[0], n):
                rows = min(n, self.shape[0] - first)
                yield self._by_columns(file, first, rows) if self.fortran else self._by_rows(file, rows)

    @contextmanager
    def _rewindable(self, scratch: Path | None) -> Iterator[IO[bytes]]:
        """The open file, at the first value; of columns in a .npz a copy, as to go back there is slow."""
        with self.open() as file:
            if self.fortran and isinstance(file, zipfile.ZipExtFile):
                from mia_batch.rundir.hdf5 import check_room  # h5py takes a while

                check_room(scratch or Path(tempfile.gettempdir()), self.size)
                with tempfile.TemporaryFile(dir=scratch) as copy:
                    shutil.copyfileobj(file, copy, 1 << 20)
                    yield copy
            else:
                file.seek(self.begin)
                yield file

    def _by_rows(self, file: IO[bytes], rows: int) -> NDArray[Any]:
        width = self.shape[1:]
        return self._values(file, rows * math.prod(width)).reshape(rows, *width)

    def _by_columns(self, file: IO[bytes], first: int, rows: int) -> NDArray[Any]:
        found = np.empty((rows, self.shape[1]), self.dtype)
        for column in range(self.shape[1]):
            file.seek(self.begin + (column * self.shape[0] + first) * self.dtype.itemsize)
            found[:, column] = self._values(file, rows)
        return found

    def _values(self, file: IO[bytes], count: int) -> NDArray[Any]:
        wanted = count * self.dtype.itemsize
        content = file.read(wanted)
        if len(content) != wanted:
            raise EOFError("fewer bytes than its header promises")
        return np.frombuffer(content, self.dtype)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{where}: must be a readable array of numpy (.npy), got {one_line(error)}") from error
    except OSError as error:
        damaged = error.errno in NO_SUCH_PLACE
        rule = "must be a readable array of numpy (.npy)" if damaged else "must be in a file that can be read"
        raise InputError(f"{where}: {rule}, got: {error.strerror or one_line(error)}") from error


class NpyTable:
    """Arrays by name."""

    def __init__(
        self, name: str, arrays: Mapping[str, StoredArray], refused: Mapping[str, InputError] | None = None
    ) -> None:
        """Take arrays whose headers have been read, and why others can be no column."""
        self.name, self._arrays = name, arrays
        self.columns = {name: array.column for name, array in arrays.items()}
        self.columns |= {name: StoredColumn.refused(error) for name, error in (refused or {}).items()}

    @classmethod
    def of_file(cls, path: Path) -> NpyTable:
        """One .npy: its one array has the name "", which stands for whatever is asked for."""
        return cls(str(path), {"": _npy(path)})

    @classmethod
    def of_files(cls, parts: Mapping[str, Path]) -> NpyTable:
        """Several .npy, by what they hold."""
        return cls(", ".join(map(str, parts.values())), {name: _npy(path) for name, path in parts.items()})

    @classmethod
    def of_npz(cls, path: Path) -> NpyTable:
        """The arrays of a .npz, of which only those that are asked for must be outputs or the like."""
        try:
            with open_bytes(path) as file, archive(file) as opened:
                infos = opened.infolist()
        except (*DAMAGED, OSError) as error:
            raise InputError(f"{path}: must be a .npz file of numpy, got {one_line(error)}") from error
        arrays: dict[str, StoredArray] = {}
        refused: dict[str, InputError] = {}
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                continue
            where = f"{path}: {printable(name)}"
            try:
                arrays[name] = _member(path, info, where)
            except InputError as error:
                refused[name] = error
        return cls(str(path), arrays, refused)

    def where(self, row: int) -> str:
        """Counted from 0, as numpy does."""
        return f"row {row}"

    def read(self, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
        """See `Table`."""
        return self._blocks(names, None)

    def numbers(self, names: Sequence[str], scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """See `Table`."""
        return side_by_side(self._blocks(names, scratch))

    def _blocks(self, names: Sequence[str], scratch: Path | None) -> Iterator[list[NDArray[Any]]]:
        n = block_rows(self.columns, names)
        for block in zip(*(self._arrays[name].with_header().blocks(n, scratch) for name in names), strict=True):
            yield list(block)


def _npy(path: Path) -> StoredArray:
    check_file(path)
    return StoredArray(str(path), lambda: open_bytes(path), path.stat().st_size).with_header()


def _member(path: Path, info: zipfile.ZipInfo, where: str) -> StoredArray:
    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with open_bytes(path) as file, archive(file) as archived, archived.open(info) as member:
            yield member

    return StoredArray(where, opened, info.file_size).with_header()
