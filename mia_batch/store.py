"""HDF5 edge: what is in the files, and how a kill at any moment loses nothing that was acknowledged.

features.h5 has a fixed shape; every dataset is contiguous and allocated when the file is created, under a temporary
name. After that no metadata changes, so that a torn write can damage only rows that are not marked done.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.result import AttackResult
from mia_batch.errors import InputError
from mia_batch.paths import atomic_path, sync_directory
from mia_batch.shards import contiguous_runs

SCHEMA = 1
HDF5_OVERHEAD = 64 * 1024  # bytes, more than the headers of our files take
ATTRIBUTE_LIMIT = 60_000  # bytes; HDF5 holds attributes of up to 64 KiB in an object's header


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


def block_dtype(n_classes: int) -> np.dtype[Any]:
    """What a rank sends per row: row number, loss, logits."""
    return np.dtype([("row", "<i8"), ("loss", "<f8"), ("logits", "<f4", (n_classes,))])


class FeatureStore:
    """features.h5 open for writing by one process; HDF5's lock keeps every other one out."""

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            InputError: not a features file of this schema, or another process writes it.
        """
        self.path = path
        with _reading(path):
            if not h5py.is_hdf5(path):  # "r+" would make an empty file into one
                raise OSError("not an HDF5 file")
            self._file = h5py.File(path, "r+")
        _check_schema(self._file, path, "features")

    @classmethod
    def create(
        cls, path: Path, rows: Mapping[str, NDArray[Any]], n_classes: int, attrs: Mapping[str, Any]
    ) -> FeatureStore:
        """Make the file with no row done; `rows` holds sample_index, split, label and member, (n_rows,) each."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        text_bytes = np.asarray(rows["split"], dtype=str).nbytes + len(json.dumps(dict(attrs)))
        try:
            check_room(path.parent, len(rows["member"]) * (32 + 4 * n_classes) + text_bytes)
            with _as_input_error(path), h5py.File(temporary, "w") as file:
                _lay_out(file, rows, n_classes)
                _set_attrs(file, {"schema": SCHEMA, "kind": "features", **attrs})
                _sync(file)
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
        return _get_attrs(self._file)

    def done(self) -> NDArray[np.bool_]:
        """Shape (n_rows,): which rows are computed."""
        return self._file["done"][:].astype(bool)

    def write(self, block: NDArray[Any]) -> None:
        """Store rows (dtype of `block_dtype`); when it returns they are on disk and marked done."""
        block = block[np.argsort(block["row"], kind="stable")]
        with _as_input_error(self.path):
            for here, there in contiguous_runs(block["row"]):
                self._file["logits"][there] = block["logits"][here]
                self._file["loss"][there] = block["loss"][here]
            _sync(self._file)  # the rows before the marks that vouch for them
            for _, there in contiguous_runs(block["row"]):
                self._file["done"][there] = 1
            _sync(self._file)

    def close(self) -> None:
        """Release the file and its lock."""
        self._file.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lay_out(file: h5py.File, rows: Mapping[str, NDArray[Any]], n_classes: int) -> None:
    n_rows = len(rows["member"])
    for name, kind in (("sample_index", "<i8"), ("label", "<i4"), ("member", "i1")):
        file.create_dataset(name, data=np.asarray(rows[name], dtype=kind))
    file.create_dataset("split", data=np.char.encode(np.asarray(rows["split"], dtype=str), "utf-8"))
    _allocated(file, "logits", "<f4", (n_rows, n_classes))
    _allocated(file, "loss", "<f8", (n_rows,))
    _allocated(file, "done", "u1", (n_rows,))


def _allocated(file: h5py.File, name: str, kind: str, shape: tuple[int, ...]) -> None:
    """A contiguous dataset whose bytes are on disk from the start: a full disk shows now, not at the last row."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(kind)), space, layout)


def check_room(directory: Path, n_bytes: int) -> None:
    """See whether the disk has room for a file, HDF5's headers included.

    HDF5 cannot close its file cleanly once the disk is full, and NumPy's writing does not say what is wrong.

    Raises:
        InputError: it has not, or the directory cannot be written.
    """
    with _as_input_error(directory), tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes + HDF5_OVERHEAD)


def _sync(file: h5py.File) -> None:
    """HDF5's flush hands the bytes to the kernel; fsync puts them on the disk."""
    file.flush()
    os.fsync(file.id.get_vfd_handle())


def _set_attrs(file: h5py.File, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        text = json.dumps(value, allow_nan=False)
        if len(text) < ATTRIBUTE_LIMIT:
            file.attrs[name] = text
        else:  # too long for an attribute (a grid of thousands of values): a dataset of that name
            file.create_dataset(f"attrs/{name}", data=text)


def _get_attrs(file: h5py.File) -> dict[str, Any]:
    attrs = {name: json.loads(text) for name, text in file.attrs.items()}
    for name, dataset in file.get("attrs", {}).items():
        attrs[name] = json.loads(dataset.asstr()[()])
    return attrs


def _check_schema(file: h5py.File, path: Path, kind: str) -> None:
    found = file.attrs.get("kind"), file.attrs.get("schema")
    if found != (json.dumps(kind), json.dumps(SCHEMA)):
        file.close()
        raise InputError(f"{path}: must be a {kind} file of schema {SCHEMA}, got kind {found[0]}, schema {found[1]}")


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Say in one line what the file system or HDF5 objects to."""
    try:
        yield
    except BlockingIOError as error:
        raise InputError(f"{path}: is in use by another process") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist") from error
    except (OSError, KeyError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
        if full:
            raise InputError(f"{path}: the disk is full") from error
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: must be a file that can be read and written") from error
        raise _unreadable(path, error) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The same, where what is found in a damaged file may also be of a wrong kind; when writing that is our mistake."""
    try:
        with _as_input_error(path):
            yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: must be a readable HDF5 file of this product, got: {error}")


def read_features(path: Path) -> Features:
    """The rows of a complete features.h5, logits mapped from the file so that they cost no memory.

    Raises:
        InputError: missing, of another schema, in use by a writer, or with rows still to be computed.
    """
    with _reading(path), h5py.File(path, "r") as file:
        _check_schema(file, path, "features")
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
            attrs=_get_attrs(file),
        )


def features_progress(path: Path) -> tuple[int, int] | None:
    """(rows done, rows in all) of features.h5, also while it is being written; None without a file."""
    if not path.exists():
        return None
    # Rows and marks are written in place in a file of fixed layout, so that reading beside the writer is safe.
    with _reading(path), h5py.File(path, "r", locking=False) as file:
        _check_schema(file, path, "features")
        done = file["done"][:]
    return int(done.sum()), len(done)


def write_attack(path: Path, result: AttackResult) -> None:
    """Write attacks/<name>.h5, whole or not at all."""
    with atomic_path(path) as temporary, _as_input_error(path), _new_file(temporary, result) as file:
        for name in ("scores", "predicted", "evaluated", "member"):
            file.create_dataset(name, data=getattr(result, name))
        table = file.create_group("cv_results", track_order=True)
        for name, column in result.cv_results.items():
            table.create_dataset(name, data=column, dtype=h5py.string_dtype() if _is_text(column) else None)
        _set_attrs(file, {
            "schema": SCHEMA, "kind": "attack", "method": result.method, "best_params": result.best_params,
            "best_score": result.best_score, "provenance": result.provenance,
        })


def _new_file(temporary: Path, result: AttackResult) -> h5py.File:
    check_room(temporary.parent, 32 * len(result.member) + 512 * len(result.cv_results.get("params", ())))
    return h5py.File(temporary, "w")


def _is_text(column: Any) -> bool:
    return len(column) > 0 and isinstance(column[0], str)


def read_attack(path: Path) -> AttackResult:
    """Read attacks/<name>.h5.

    Raises:
        InputError: missing, damaged or of another schema.
    """
    with _reading(path), h5py.File(path, "r") as file:
        _check_schema(file, path, "attack")
        attrs = _get_attrs(file)
        table = {
            name: (column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]).tolist()
            for name, column in file["cv_results"].items()
        }
        predicted = file["predicted"][:]
        if not np.isin(predicted, (-1, 0, 1)).all():
            raise ValueError("predicted must be 0 or 1, or -1 where a row was fitted")
        return AttackResult(
            method=attrs["method"],
            scores=file["scores"][:],
            predicted=predicted,
            evaluated=file["evaluated"][:].astype(bool),
            member=file["member"][:],
            best_params=attrs["best_params"],
            best_score=attrs["best_score"],
            cv_results=table,
            provenance=attrs["provenance"],
        )


def in_use(path: Path) -> bool:
    """Whether a writer holds features.h5, or an attack's journal, at this moment."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
