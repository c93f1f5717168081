"""Datasets of a user's HDF5 file, read in blocks. Nothing is followed out of the file, and no attribute is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.files import open_bytes
from mia_batch.locks import try_lock
from mia_batch.rundir.first_look import USERS, look_first
from mia_batch.rundir.structure import shown

MOST_OBJECTS = 100_000  # that are looked at for datasets
CHUNK_BYTES = 1 << 28  # to read one value of a dataset takes its whole chunk
TEXT_ROWS = 1024  # that are looked at at a time
SMALL_BYTES = 1 << 30  # of a dataset that may be compressed as far as it can be
MOST_COMPRESSED = 200  # times, that larger ones are: zeros alone are a thousand times smaller


class UsersHdf5:
    """Datasets by their path in the file, such as outputs/logits.

    Soft and external links are not followed, so that they lead to nothing. A dataset is read only if its values are in
    this file: neither virtual nor in raw files beside it, nor made up by HDF5 where nothing is stored.
    """

    def __init__(self, path: Path) -> None:
        """List the datasets.

        Raises:
            InputError: no HDF5 file, a damaged one, or one with too many objects.
        """
        self.path = path
        with self._readable(), open_bytes(path) as file:  # HDF5 opens a FIFO too, and waits
            try_lock(file.fileno(), shared=True)  # who writes it keeps us out, where there are locks
            look_first(path, USERS, ())
            self.shapes = list_datasets(path)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except BlockingIOError as error:
            raise InputError(f"{self.path}: is in use by another process") from error
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}: must be an HDF5 file that can be read, got {one_line(error)}") from error

    def read(self, names: Sequence[str], n: int) -> Iterator[list[NDArray[Any]]]:
        """Rows of some datasets of one length, `n` at a time; text as Python's.

        Raises:
            InputError: the file is damaged, or a dataset's values are not in it.
        """
        with self._readable(), h5py.File(self.path, "r", locking=False) as file:
            try_lock(file.id.get_vfd_handle(), shared=True)
            datasets = [self._dataset(file, name) for name in names]
            for first in range(0, len(datasets[0]), n):
                yield [dataset[first : first + n] for dataset in datasets]

    def _dataset(self, file: h5py.File, name: str) -> Any:
        dataset = file[name]
        where = f"{self.path}: {shown(name)}"
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{where}: must have its values in this file, got a virtual or external dataset")
        width = dataset.id.get_type().get_size()
        read = math.prod(dataset.chunks or dataset.shape[1:]) * width  # at least, to have a row
        if read > CHUNK_BYTES:
            raise InputError(f"{where}: must have chunks of at most {CHUNK_BYTES >> 20} MiB, got {read >> 20}")
        declared, stored = math.prod(dataset.shape) * width, dataset.id.get_storage_size()
        if declared > stored and (dataset.chunks is None or declared > max(SMALL_BYTES, MOST_COMPRESSED * stored)):
            rule = f"must have its values in this file, compressed at most {MOST_COMPRESSED} times"
            raise InputError(f"{where}: {rule}, got {stored} bytes of {declared}")
        return dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset


def list_datasets(path: Path) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of each dataset of a file, by its path in it.

    Raises:
        InputError: too many objects.
        Exception: as HDF5 raises them.
    """
    found: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    n_objects = 0

    def note(name: str, each: Any) -> None:
        nonlocal n_objects
        n_objects += 1
        if n_objects > MOST_OBJECTS:
            raise InputError(f"{path}: must have at most {MOST_OBJECTS} groups and datasets")
        if isinstance(each, h5py.Dataset):
            found[name] = _dtype(each.dtype), each.shape or ()

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(note)
    return found


def look_at_users(path: Path) -> None:
    """Go through all that HDF5 keeps in structures of its own, where damage may lead it round: chunks and text.

    Raises:
        InputError: too many objects.
        Exception: as HDF5 raises them.
    """
    with h5py.File(path, "r", locking=False) as file:
        for name, (dtype, shape) in list_datasets(path).items():
            dataset = file[name]
            if dataset.chunks:
                dataset.id.get_num_chunks()
            if shape and dtype.kind == "U" and dataset.id.get_storage_size():
                _look_at_text(dataset, f"{path}: {shown(name)}", path.stat().st_size)


def _look_at_text(dataset: h5py.Dataset, where: str, size: int) -> None:
    """Read all text of a dataset in a file of `size` bytes. Of no width, it lies there once for each row, as it is.

    Raises:
        InputError: many rows name the same text, which would take memory without end.
    """
    n_bytes = 0
    for first in range(0, len(dataset), TEXT_ROWS):
        values = dataset[first : first + TEXT_ROWS]
        if dataset.dtype.hasobject:
            n_bytes += sum(len(text) for text in values.flat)
        if n_bytes > size:
            rule = "must have its text once for each row"
            raise InputError(f"{where}: {rule}, got more text than the file's {size} bytes")


def _dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type; of text numpy's, of no width where each value has its own."""
    text = h5py.check_string_dtype(stored)
    return np.dtype(f"U{min(text.length or 0, CHUNK_BYTES)}") if text else stored
