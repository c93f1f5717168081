"""A file of rows that many processes fill and any of them may leave: nothing that was acknowledged is lost.

It has a fixed shape; every dataset is contiguous and allocated when the file is created, under a temporary name. After
that no metadata changes, so that a torn write can damage only rows that are not marked done. Each row has a checksum of
its own; once the last row is done the file is sealed.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
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
from mia_batch.rundir.hdf5 import as_input_error, check_room, get_attrs, new_file, open_own, reading, set_attrs, sync
from mia_batch.rundir.seal import block_bytes

log = logging.getLogger(__name__)
KNOWN = frozenset({"sample_index", "split", "label", "member", "group", "group_name"})  # from the start
CHECK = "check"  # the column of the rows' checksums
BLOCK_BYTES = 1 << 24  # of rows that are checked at a time

Store = TypeVar("Store", bound="RowStore")


class RowStore:
    """Such a file, open for writing by one process; its lock keeps every other one out."""

    kind: ClassVar[str]
    schemas: ClassVar[Sequence[int]]  # that are continued; new files are of `schema`
    schema: ClassVar[int]

    def __init__(self, path: Path) -> None:
        """Open an existing file. Rows that are not what was written are taken for not computed.

        Raises:
            InputError: not a file of this kind and schema, damaged, or another process writes it.
        """
        self.path = path
        with reading(path):
            opened = open_own(path, self.kind, self.schemas, mode="r+")
            self._file, self._seal = opened.file, opened.seal
            opened.check_parts(*KNOWN)
        self._left = int((~self.done()).sum())
        if self._seal and not self._seal.whole:
            good = self.done() & rows_as_written(self._file)
            if lost := int((self.done() & ~good).sum()):
                log.warning("%s: %d rows are not what was written; they are computed again", path, lost)
                self.keep(good)

    @classmethod
    def make(
        cls: type[Store], path: Path, known: Mapping[str, NDArray[Any]], sent: np.dtype[Any], attrs: Mapping[str, Any]
    ) -> Store:
        """Make the file with no row done.

        Args:
            path: its name.
            known: what is known of each row, (n_rows,) each; of `KNOWN`.
            sent: what comes later, a field for each dataset and `row`.
            attrs: provenance.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        n_rows = len(next(iter(known.values())))
        known_bytes = sum(column.nbytes for column in known.values()) + len(json.dumps(dict(attrs)))
        later = {name: (sent[name].base, sent[name].shape) for name in _datasets(sent)}
        later |= {CHECK: (np.dtype("<u4"), ()), "done": (np.dtype("u1"), ())}
        block = block_bytes([*known, *later])
        try:
            check_room(path.parent, n_rows * (sent.itemsize + 5) + known_bytes + block)
            with as_input_error(path), new_file(temporary, cls.kind, block, unfilled=later) as file:
                for name, column in known.items():
                    file.create_dataset(name, data=column)
                for name, (kind, shape) in later.items():
                    allocated(file, name, kind, (n_rows, *shape))
                set_attrs(file, {"schema": cls.schema, "kind": cls.kind, **attrs})
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

    def column(self, name: str) -> NDArray[Any] | None:
        """One of `KNOWN` as it is in the file, (n_rows,); None where the file has none."""
        return np.asarray(self._file[name][:]) if name in self._file else None

    def done(self) -> NDArray[np.bool_]:
        """Shape (n_rows,): which rows are computed."""
        return np.asarray(self._file["done"][:] == 1)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Take all rows but these, (n_rows,), for not computed."""
        with as_input_error(self.path):
            if self._seal and self._seal.whole:
                self._seal = self._seal.opened(self._seal.parts.keys() - KNOWN)
                self._seal.write()
            kept = self.done() & rows
            self._file["done"][:] = kept
            sync(self._file)
            self._left = int((~kept).sum())

    def write(self, block: NDArray[Any]) -> None:
        """Store rows (of the type `sent`); when it returns they are on disk and marked done."""
        block = block[np.argsort(block["row"], kind="stable")]
        with as_input_error(self.path):
            columns = {name: block[name] for name in _datasets(block.dtype) if name in self._file}
            if CHECK in self._file:
                columns[CHECK] = checksums(self._file, block["row"], columns)
            for here, there in contiguous_runs(block["row"]):
                for name, values in columns.items():
                    self._file[name][there] = values[here]
            sync(self._file)  # the rows before the marks that vouch for them
            for _, there in contiguous_runs(block["row"]):
                self._left -= int((self._file["done"][there] != 1).sum())
                self._file["done"][there] = 1
            sync(self._file)
            self.seal()

    def seal(self) -> None:
        """Vouch for all bytes of the file, if all rows are done and nobody does yet."""
        if self._left == 0 and self._seal and not self._seal.whole:
            self._seal = self._seal.filled(self._seal.parts.keys() - KNOWN)
            self._seal.write()

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


def checksums(
    file: h5py.File, rows: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]
) -> NDArray[np.uint32]:
    """A checksum of each row's number and its values in `columns`, (n,), in the types of the file."""
    names = sorted(columns)
    fields = [(name, file[name].dtype, file[name].shape[1:]) for name in names]
    records = np.zeros(len(rows), np.dtype([("row", "<i8"), *fields]))
    records["row"] = rows
    for name in names:
        records[name] = columns[name]
    return np.array([zlib.crc32(each) for each in records.view(np.uint8).reshape(len(rows), -1)], np.uint32)


def rows_as_written(file: h5py.File) -> NDArray[np.bool_]:
    """Which rows of a file of rows, (n_rows,), are marked done and have the checksum of what they hold."""
    good = np.asarray(file["done"][:] == 1)
    names = [name for name in file if name not in KNOWN | {"done", CHECK} and isinstance(file[name], h5py.Dataset)]
    step = max(1, BLOCK_BYTES // max(1, sum(file[name].nbytes for name in names) // max(1, len(good))))
    for first in range(0, len(good), step):
        rows = first + np.flatnonzero(good[first : first + step])
        if len(rows):
            there = slice(rows[0], rows[-1] + 1)
            found = {name: file[name][there][rows - rows[0]] for name in (*names, CHECK)}
            wanted = found.pop(CHECK)
            good[rows] = checksums(file, rows, found) == wanted
    return good


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
