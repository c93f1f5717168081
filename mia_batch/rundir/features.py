"""HDF5 edge: what is in the files, and how a kill at any moment loses nothing that was acknowledged.

features.h5 has a fixed shape; every dataset is contiguous and allocated when the file is created, under a temporary
name. After that no metadata changes, so that a torn write can damage only rows that are not marked done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

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

SCHEMA = 2
IMPORTED = 3  # of imported outputs: without statistics, of losses without logits, without content if no rows are one
SCHEMAS = (1, SCHEMA, IMPORTED)  # that are read; 1 has none of group, content and statistics, and is continued so
SPLIT = "outputs"  # of all imported rows
OUTPUTS = "outputs"  # what `content` is of, where nothing is known of the inputs
PER_ROW = ("content", "statistics", "logits", "loss")  # what a rank sends


@dataclass(frozen=True)
class Features:
    """The complete rows of features.h5, one per sample: members first, then non-members."""

    sample_index: NDArray[np.int64]  # (n_samples,) position in its split
    split: NDArray[np.str_]  # (n_samples,)
    label: NDArray[np.int32] | None  # (n_samples,); None of imported losses without labels
    member: NDArray[np.int8]  # (n_samples,) 1 member, 0 non-member
    logits: NDArray[np.float32] | None  # (n_samples, n_classes), mapped read-only; None of imported losses
    loss: NDArray[np.float64]  # (n_samples,) nats
    attrs: dict[str, Any]  # provenance
    # None in a file of schema 1; of imported outputs no more is known than groups, and which rows are one sample:
    content: NDArray[np.uint8] | None = None  # (n_samples, 16) hash of the input; see `by_outputs`
    group: NDArray[np.int64] | None = None  # (n_samples,) declared group, NO_GROUP without one
    statistics: NDArray[np.float32] | None = None  # (n_samples, len(STATISTICS)) of the input

    @property
    def imported(self) -> bool:
        """Whether outputs were imported, so that nothing is known of the inputs."""
        return self.attrs.get("schema") == IMPORTED

    @property
    def by_outputs(self) -> bool:
        """Whether `content`, (n_samples, 8), is of the outputs: of `attacks.equal_outputs.same_samples`."""
        return self.attrs.get("content") == OUTPUTS


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
                set_attrs(file, {"schema": SCHEMA, "kind": "features", **attrs})
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
        allocated(file, name, sent[name].base, (n_rows, *sent[name].shape))
    allocated(file, "done", np.dtype("u1"), (n_rows,))


def allocated(file: h5py.File, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """A contiguous dataset whose bytes are on disk from the start: a full disk shows now, not at the last row."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(kind), space, layout)


class RowsOnDisk(np.memmap):
    """A contiguous dataset, mapped. A slice of rows has a map of its own: what was read goes when the slice goes."""

    whole: tuple[Path, int] | None = None  # its file and first byte; of a part none

    @classmethod
    def of(cls, path: Path, dataset: h5py.Dataset) -> RowsOnDisk:
        """Map it, read-only."""
        found: Any = cls(path, "<f4", "r", dataset.id.get_offset(), dataset.shape)
        found.whole = path, dataset.id.get_offset()
        return cast(RowsOnDisk, found)

    def __getitem__(self, key: Any) -> Any:
        if self.whole is None or not isinstance(key, slice) or key.step not in (None, 1):
            return super().__getitem__(key)
        first, end, _ = key.indices(len(self))
        if first >= end:
            return super().__getitem__(key)
        path, offset = self.whole
        rows = self.shape[1:]
        return np.memmap(path, self.dtype, "r", offset + first * self.strides[0], (end - first, *rows))


def _mapped(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    """A contiguous dataset, read-only: what nobody looks at takes no memory."""
    return np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape).view(np.ndarray)


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
        n_rows = len(done)
        imported = file.attrs["schema"] == json.dumps(IMPORTED)  # of which there may be very many rows
        load = partial(_mapped, path) if imported else (lambda dataset: dataset[:])
        return Features(
            sample_index=load(file["sample_index"]),
            # One name for all rows takes no memory.
            split=np.char.decode(file["split"][:], "utf-8") if "split" in file else np.broadcast_to(SPLIT, n_rows),
            label=load(file["label"]) if "label" in file else None,
            member=load(file["member"]),
            logits=RowsOnDisk.of(path, file["logits"]) if "logits" in file else None,
            loss=load(file["loss"]),
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
