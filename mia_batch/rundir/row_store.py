"""A file of rows that many processes fill and any of them may leave: nothing that was acknowledged is lost.

It has a fixed shape; every dataset is contiguous and allocated when the file is created, under a temporary name. After
that no metadata changes, so that a torn write can damage only rows that are not marked done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InUseError
from mia_batch.files import sync_directory
from mia_batch.locks import give_name
from mia_batch.rundir.hdf5 import (
    as_input_error,
    check_room,
    check_schema,
    get_attrs,
    lock_file,
    reading,
    set_attrs,
    sync,
)

Store = TypeVar("Store", bound="RowStore")


class RowStore:
    """Such a file, open for writing by one process; its lock keeps every other one out."""

    kind: ClassVar[str]
    schemas: ClassVar[Sequence[int]]  # that are continued; new files are of `schema`
    schema: ClassVar[int]

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            InputError: not a file of this kind and schema, or another process writes it.
        """
        self.path = path
        with reading(path):
            if not h5py.is_hdf5(path):  # "r+" would make an empty file into one
                raise OSError("not an HDF5 file")
            self._file = h5py.File(path, "r+", locking=False)
            lock_file(path, self._file)
        check_schema(self._file, path, self.kind, self.schemas)

    @classmethod
    def make(
        cls: type[Store], path: Path, known: Mapping[str, NDArray[Any]], sent: np.dtype[Any], attrs: Mapping[str, Any]
    ) -> Store:
        """Make the file with no row done.

        Args:
            path: its name.
            known: what is known of each row, (n_rows,) each.
            sent: what comes later, a field for each dataset and `row`.
            attrs: provenance.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        n_rows = len(next(iter(known.values())))
        known_bytes = sum(column.nbytes for column in known.values()) + len(json.dumps(dict(attrs)))
        try:
            check_room(path.parent, n_rows * sent.itemsize + known_bytes)
            with as_input_error(path), h5py.File(temporary, "w", locking=False) as file:
                for name, column in known.items():
                    file.create_dataset(name, data=column)
                for name in _datasets(sent):
                    allocated(file, name, sent[name].base, (n_rows, *sent[name].shape))
                allocated(file, "done", np.dtype("u1"), (n_rows,))
                set_attrs(file, {"schema": cls.schema, "kind": cls.kind, **attrs})
                sync(file)
            with as_input_error(path):
                give_name(temporary, path)
                sync_directory(path.parent)
        except FileExistsError:
            raise InUseError(f"{path}: is being written by another run") from None
        finally:
            temporary.unlink(missing_ok=True)
        return cls(path)

    @property
    def n_classes(self) -> int:
        """Columns of the logits."""
        return int(self._file["logits"].shape[-1])

    @property
    def attrs(self) -> dict[str, Any]:
        """Provenance."""
        return get_attrs(self._file)

    def labels(self) -> NDArray[np.int32]:
        """Shape (n_rows,): true classes."""
        return np.asarray(self._file["label"][:])

    def done(self) -> NDArray[np.bool_]:
        """Shape (n_rows,): which rows are computed."""
        return self._file["done"][:].astype(bool)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Take all rows but these, (n_rows,), for not computed."""
        with as_input_error(self.path):
            self._file["done"][:] = self.done() & rows
            sync(self._file)

    def write(self, block: NDArray[Any]) -> None:
        """Store rows (of the type `sent`); when it returns they are on disk and marked done."""
        block = block[np.argsort(block["row"], kind="stable")]
        with as_input_error(self.path):
            for here, there in contiguous_runs(block["row"]):
                for name in _datasets(block.dtype):
                    if name in self._file:
                        self._file[name][there] = block[name][here]
            sync(self._file)  # the rows before the marks that vouch for them
            for _, there in contiguous_runs(block["row"]):
                self._file["done"][there] = 1
            sync(self._file)

    def close(self) -> None:
        """Release the file and its lock."""
        with as_input_error(self.path):
            self._file.close()

    def __enter__(self: Store) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _datasets(sent: np.dtype[Any]) -> list[str]:
    return [name for name in sent.names or () if name != "row"]


def contiguous_runs(rows: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Cut `rows` into runs of consecutive numbers: (where the run stands in `rows`, the rows as a slice)."""
    if not len(rows):
        return
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield slice(start, end), slice(int(rows[start]), int(rows[end - 1]) + 1)


def as_bytes(names: NDArray[Any]) -> NDArray[np.bytes_]:
    """Text as HDF5 keeps it, (n,)."""
    return np.char.encode(np.asarray(names, dtype=str), "utf-8")


def allocated(file: h5py.File, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """A contiguous dataset whose bytes are on disk from the start: a full disk shows now, not at the last row."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(kind), space, layout)
