"""features.h5: what is in it, as it is filled and once it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.inputs import INPUT_DTYPE
from mia_batch.rundir.hdf5 import get_attr, get_attrs, own_file, reading
from mia_batch.rundir.identity import Origin
from mia_batch.rundir.reference_store import StoredSamples
from mia_batch.rundir.row_store import RowStore, as_bytes, rows_as_written
from mia_batch.rundir.seal import read_seal
from mia_batch.rundir.structure import check_values

SCHEMA = 2
IMPORTED = 3  # of imported outputs: without statistics, of losses without logits, without content if no rows are one
SCHEMAS = (1, SCHEMA, IMPORTED)  # that are read; 1 has none of group, content and statistics, and is continued so
SPLIT = "outputs"  # of all imported rows
OUTPUTS = "outputs"  # what `content` is of, where nothing is known of the inputs
TEXT = ("split", "group_name")  # names, in UTF-8
KNOWN = {"sample_index": "<i8", "label": "<i4", "member": "i1", "group": "<i8"}  # from the start, beside the split


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
    sample_id: NDArray[np.bytes_] | None = None  # (n_samples,) names in UTF-8; None but of imported outputs
    group_name: NDArray[np.bytes_] | None = None  # (n_samples,) likewise, of the declared groups; None without any
    # Of imported outputs, by column: number of each sample's value, (n_samples,), and the values.
    slices: Mapping[str, tuple[NDArray[np.int32], tuple[str, ...]]] = field(default_factory=dict)

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


class FeatureStore(RowStore):
    """features.h5 open for writing."""

    kind, schema, schemas = "features", SCHEMA, SCHEMAS

    @classmethod
    def create(
        cls, path: Path, rows: Mapping[str, NDArray[Any]], n_classes: int, attrs: Mapping[str, Any]
    ) -> FeatureStore:
        """Make the file with no row done.

        Args:
            path: its name.
            rows: sample_index, split, label, member, group and, where groups are declared, group_name, (n_rows,) each.
            n_classes: columns of the logits.
            attrs: provenance.
        """
        known = {name: as_stored(name, rows[name]) for name in (*KNOWN, *TEXT) if name in rows}
        return cls.make(path, known, block_dtype(n_classes), attrs)


def as_stored(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """A column of `KNOWN` or `TEXT`, (n_rows,), in the type of the file."""
    return as_bytes(column) if name in TEXT else np.asarray(column, dtype=KNOWN[name])


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


def slice_dataset(column: str) -> str:
    """Where the values of a column are that names slices: HDF5 has `/` and `.` for its groups."""
    name = column.replace("%", "%25").replace("/", "%2F") if "/" in column else column
    return f"slices/{'%2E' if name == '.' else name}"


def read_features(path: Path) -> Features:
    """The rows of a complete features.h5, logits mapped from the file so that they cost no memory.

    Raises:
        InputError: missing, of another schema, in use by a writer, or with rows still to be computed.
    """
    with own_file(path, "features", SCHEMAS) as own:
        file, done = own.file, own.file["done"][:] == 1
        if not done.all() or not own.whole:
            raise InputError(f"{path}: rows: must all be done, got {int(done.sum())} of {len(done)}; run extract again")
        own.check_parts()
        _check_rows(file, path)
        n_rows = len(done)
        imported = file.attrs["schema"] == json.dumps(IMPORTED)  # of which there may be very many rows
        load = partial(_mapped, path) if imported else (lambda dataset: dataset[:])
        attrs = get_attrs(file)
        return Features(
            sample_index=load(file["sample_index"]),
            # One name for all rows takes no memory.
            split=np.char.decode(file["split"][:], "utf-8") if "split" in file else np.broadcast_to(SPLIT, n_rows),
            label=load(file["label"]) if "label" in file else None,
            member=load(file["member"]),
            logits=RowsOnDisk.of(path, file["logits"]) if "logits" in file else None,
            loss=load(file["loss"]),
            attrs=attrs,
            slices={n: (load(file[slice_dataset(n)]), tuple(names)) for n, names in attrs.get("slices", {}).items()},
            **{name: load(file[name]) for name in ("sample_id", "group_name") if name in file},
            **{name: file[name][:] for name in ("content", "group", "statistics") if name in file},
        )


def _check_rows(file: h5py.File, path: Path) -> None:
    """Refuse membership and labels that no run writes: of a file without digests, or with those of somebody else."""
    check_values(file["member"][:], f"{path}: member", (0, 1))
    if "logits" in file:
        check_values(file["label"][:], f"{path}: label", range(file["logits"].shape[1]))


def features_progress(path: Path) -> tuple[int, int] | None:
    """(rows done, rows in all) of features.h5, also while it is being written; None without a file."""
    if not path.exists():
        return None
    # Rows and marks are written in place in a file of fixed layout, so that reading beside the writer is safe.
    with own_file(path, "features", SCHEMAS, beside_writer=True) as own:
        done = own.file["done"][:] == 1
    return int(done.sum()), len(done)


def rows_written(path: Path) -> tuple[int, int, int]:
    """(rows done, those of them that are what was written, rows in all) of a features.h5 that is not sealed yet."""
    with own_file(path, "features", SCHEMAS) as own:
        own.check_parts()
        done = own.file["done"][:] == 1
        good = rows_as_written(own.file) if own.seal else done
    return int(done.sum()), int(good.sum()), len(done)


def is_sealed(path: Path) -> bool:
    """Whether the writer of features.h5 has finished it; of versions before all that were filled are.

    Raises:
        InputError: the seal is damaged.
    """
    with reading(path):
        seal = read_seal(path)
    return seal is None or seal.whole


def features_samples(path: Path) -> StoredSamples | None:
    """Which samples the rows of features.h5 are, also while it is being written; None without a file."""
    if not path.exists():
        return None
    with own_file(path, "features", SCHEMAS, beside_writer=True) as own:
        own.check_parts("split", "sample_index", "label")
        split = np.char.decode(own.file["split"][:], "utf-8")
        return StoredSamples(split, own.file["sample_index"][:], own.file["label"][:])


def features_origin(path: Path) -> Origin | None:
    """What features.h5 was made from, also while it is being written; None without a file."""
    if not path.exists():
        return None
    with own_file(path, "features", SCHEMAS, beside_writer=True) as own:
        return Origin.of({name: get_attr(own.file, name) for name in ("config", "digests", "run")})
