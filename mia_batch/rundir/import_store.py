"""features.h5 of imported outputs: written under a temporary name, and put in place when it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.files import open_bytes, sync_directory
from mia_batch.locks import give_name, in_use, lock
from mia_batch.rundir.features import IMPORTED, RowsOnDisk
from mia_batch.rundir.hdf5 import as_input_error, check_room, close_sealed, create, set_attrs
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.row_store import allocated, contiguous_runs
from mia_batch.rundir.seal import block_bytes


class ImportStore:
    """A features.h5 that has no name yet; its rows are written in any order, each once."""

    def __init__(self, path: Path, file: h5py.File, temporary: Path) -> None:
        self.path, self._file, self._temporary = path, file, temporary
        self.n_done = 0

    @classmethod
    @contextmanager
    def create(
        cls, paths: RunPaths, n_rows: int, n_classes: int | None, *, columns: Collection[str]
    ) -> Iterator[ImportStore]:
        """An empty one in the run directory, which must be there; it is removed unless it is put in place.

        Args:
            paths: of the run.
            n_rows: samples.
            n_classes: columns of the logits; None for losses alone.
            columns: names of those that are added later.
        """
        path = paths.features
        remove_abandoned(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {"loss": ("<f8", (n_rows,))}
        shapes |= {"logits": ("<f4", (n_rows, n_classes))} if n_classes else {}
        check_room(path.parent, sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in shapes.values()))
        block = block_bytes([*shapes, *columns])
        try:
            with as_input_error(path), create(temporary, block) as file:
                for name, (kind, shape) in shapes.items():
                    allocated(file, name, np.dtype(kind), shape)
                with open_bytes(temporary, "r+b") as held:  # not HDF5's, which closes its file before it has its name
                    lock(path, held.fileno())
                    yield cls(path, file, temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, rows: NDArray[np.int64], **columns: NDArray[Any]) -> None:
        """Outputs of some rows, (n,) or (n, width) each."""
        order = np.argsort(rows, kind="stable")
        with as_input_error(self.path):
            for here, there in contiguous_runs(rows[order]):
                for name, values in columns.items():
                    self._file[name][there] = values[order[here]]
        self.n_done += len(rows)

    def logits(self) -> RowsOnDisk:
        """What has been written of them, mapped."""
        with as_input_error(self.path):
            self._file.flush()
            return RowsOnDisk.of(self._temporary, self._file["logits"])

    def complete(self, columns: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]) -> None:
        """Add columns of all rows and attributes, and seal the file.

        Raises:
            InputError: the disk is full.
        """
        check_room(self.path.parent, sum(column.nbytes for column in columns.values()) + len(json.dumps(dict(attrs))))
        with as_input_error(self.path):
            for name, column in columns.items():
                self._file.create_dataset(name, data=column)
            self._file.create_dataset("done", data=np.ones(self.n_done, dtype=np.uint8))
            set_attrs(self._file, {"schema": IMPORTED, "kind": "features", **attrs})
            close_sealed(self._file, "features")

    def put_in_place(self) -> None:
        """Give the file its name, once it is complete.

        Raises:
            InputError: another process has been faster.
        """
        try:
            give_name(self._temporary, self.path)
        except FileExistsError:
            raise InputError(f"{self.path}: is being written by another run") from None
        sync_directory(self.path.parent)


def remove_abandoned(path: Path) -> None:
    """Remove what killed imports have left beside `path`; who still writes holds a lock."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            if not in_use(left):
                left.unlink()
        except FileNotFoundError:  # another process has removed it
            continue
