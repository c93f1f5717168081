"""HDF5 edge: what is in the files, and how a kill at any moment loses nothing that was acknowledged.

features.h5 has a fixed shape; every dataset is contiguous and allocated when the file is created, under a temporary
name. After that no metadata changes, so that a torn write can damage only rows that are not marked done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.files import sync_directory
from mia_batch.inputs import INPUT_DTYPE
from mia_batch.rundir.hdf5 import (
    as_input_error,
    check_room,
    check_schema,
    get_attr,
    get_attrs,
    reading,
    set_attrs,
    sync,
)
from mia_batch.rundir.identity import Origin

SCHEMAS = (1, 2)  # that are read; 1 has none of group, content and statistics, and is continued so
PER_ROW = ("content", "statistics", "logits", "loss")  # what a rank sends


@dataclass(frozen=True)
class Features:
    """The complete rows of features.h5, one per sample: members first, then non-members."""

    sample_index: NDArray[np.int64]  # (n_samples,) position in its split
    split: NDArray[np.str_]  # (n_samples,)
    label: NDArray[np.int32]  # (n_samples,)
    member: NDArray[np.int8]  # (n_samples,) 1 member, 0 non-member
    logits: NDArray[np.float32]  # (n_samples, n_classes), mapped read-only from the file
    loss: NDArray[np.float64]  # (n_samples,) nats
    attrs: dict[str, Any]  # provenance
    # None in a file of schema 1:
    content: NDArray[np.uint8] | None = None  # (n_samples, 16) hash of the input
    group: NDArray[np.int64] | None = None  # (n_samples,) declared group, NO_GROUP without one
    statistics: NDArray[np.float32] | None = None  # (n_samples, len(STATISTICS)) of the input


def block_dtype(n_classes: int) -> np.dtype[Any]:
    """What a rank sends per row: row number, content, statistics, loss, logits."""
    return np.dtype([("row", "<i8"), *INPUT_DTYPE.descr, ("loss", "<f8"), ("logits", "<f4", (n_classes,))])


class FeatureStore:
    """features.h5 open for writing by one process; HDF5's lock keeps every other one out."""

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            InputError: not a features file of this schema, or another process writes it.
        """
        self.path = path
        with reading(path):
            if not h5py.is_hdf5(path):  # "r+" would make an empty file into one
                raise OSError("not an HDF5 file")
            self._file = h5py.File(path, "r+")
        check_schema(self._file, path, "features", SCHEMAS)

    @classmethod
    def create(
        cls, path: Path, rows: Mapping[str, NDArray[Any]], n_classes: int, attrs: Mapping[str, Any]
    ) -> FeatureStore:
        """Make the file with no row done; `rows` holds sample_index, split, label, member and group, (n_rows,) each."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        text_bytes = np.asarray(rows["split"], dtype=str).nbytes + len(json.dumps(dict(attrs)))
        try:
            check_room(path.parent, len(rows["member"]) * (block_dtype(n_classes).itemsize + 24) + text_bytes)
            with as_input_error(path), h5py.File(temporary, "w") as file:
                _lay_out(file, rows, n_classes)
                set_attrs(file, {"schema": SCHEMAS[-1], "kind": "features", **attrs})
                sync(file)
            os.link(temporary, path)  # unlike a rename it never replaces another run's file
            sync_directory(path.parent)
        except FileExistsError:
            raise InputError(f"{path}: is being written by another run") from None
        finally:
            temporary.unlink(missing_ok=True)
        return cls(path)

    @property
    def n_classes(self) -> int:
        """Columns of the logits."""
        return int(self._file["logits"].shape[1])

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
        """Store rows (dtype of `block_dtype`); when it returns they are on disk and marked done."""
        block = block[np.argsort(block["row"], kind="stable")]
        with as_input_error(self.path):
            for here, there in contiguous_runs(block["row"]):
                for name in PER_ROW:
                    if name in self._file:
                        self._file[name][there] = block[name][here]
            sync(self._file)  # the rows before the marks that vouch for them
            for _, there in contiguous_runs(block["row"]):
                self._file["done"][there] = 1
            sync(self._file)

    def close(self) -> None:
        """Release the file and its lock."""
        self._file.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def contiguous_runs(rows: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Cut `rows` into runs of consecutive numbers: (where the run stands in `rows`, the rows as a slice)."""
    if not len(rows):
        return
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield slice(start, end), slice(int(rows[start]), int(rows[end - 1]) + 1)


def _lay_out(file: h5py.File, rows: Mapping[str, NDArray[Any]], n_classes: int) -> None:
    n_rows = len(rows["member"])
    for name, kind in (("sample_index", "<i8"), ("label", "<i4"), ("member", "i1"), ("group", "<i8")):
        file.create_dataset(name, data=np.asarray(rows[name], dtype=kind))
    file.create_dataset("split", data=np.char.encode(np.asarray(rows["split"], dtype=str), "utf-8"))
    sent = block_dtype(n_classes)
    for name in PER_ROW:
        _allocated(file, name, sent[name].base, (n_rows, *sent[name].shape))
    _allocated(file, "done", np.dtype("u1"), (n_rows,))


def _allocated(file: h5py.File, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """A contiguous dataset whose bytes are on disk from the start: a full disk shows now, not at the last row."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(kind), space, layout)


def read_features(path: Path) -> Features:
    """The rows of a complete features.h5, logits mapped from the file so that they cost no memory.

    Raises:
        InputError: missing, of another schema, in use by a writer, or with rows still to be computed.
    """
    with reading(path), h5py.File(path, "r") as file:
        check_schema(file, path, "features", SCHEMAS)
        done = file["done"][:]
        if not done.all():
            raise InputError(f"{path}: rows: must all be done, got {int(done.sum())} of {len(done)}; run extract again")
        logits = file["logits"]
        mapped = np.memmap(path, "<f4", "r", offset=logits.id.get_offset(), shape=logits.shape)
        return Features(
            sample_index=file["sample_index"][:],
            split=np.char.decode(file["split"][:], "utf-8"),
            label=file["label"][:],
            member=file["member"][:],
            logits=mapped,
            loss=file["loss"][:],
            attrs=get_attrs(file),
            **{name: file[name][:] for name in ("content", "group", "statistics") if name in file},
        )


def features_progress(path: Path) -> tuple[int, int] | None:
    """(rows done, rows in all) of features.h5, also while it is being written; None without a file."""
    if not path.exists():
        return None
    # Rows and marks are written in place in a file of fixed layout, so that reading beside the writer is safe.
    with reading(path), h5py.File(path, "r", locking=False) as file:
        check_schema(file, path, "features", SCHEMAS)
        done = file["done"][:]
    return int(done.sum()), len(done)


def features_origin(path: Path) -> Origin | None:
    """What features.h5 was made from, also while it is being written; None without a file."""
    if not path.exists():
        return None
    with reading(path), h5py.File(path, "r", locking=False) as file:
        check_schema(file, path, "features", SCHEMAS)
        return Origin.of({name: get_attr(file, name) for name in ("config", "digests", "run")})
