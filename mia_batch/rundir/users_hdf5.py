"""Datasets of a user's HDF5 file, read in blocks. Nothing is followed out of the file, and no attribute is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.locks import try_lock

MOST_OBJECTS = 100_000  # that are looked at for datasets
CHUNK_BYTES = 1 << 28  # to read one value of a dataset takes its whole chunk


class UsersHdf5:
    """Datasets by their path in the file, such as outputs/logits.

    Soft and external links are not followed, so that they lead to nothing. A dataset is read only if its values are in
    this file: neither virtual nor in raw files beside it.
    """

    def __init__(self, path: Path) -> None:
        """List the datasets.

        Raises:
            InputError: no HDF5 file, or one with too many objects.
        """
        self.path = path
        self.shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        n_objects = 0

        def note(name: str, found: Any) -> None:
            nonlocal n_objects
            n_objects += 1
            if n_objects > MOST_OBJECTS:
                raise InputError(f"{path}: must have at most {MOST_OBJECTS} groups and datasets")
            if isinstance(found, h5py.Dataset):
                self.shapes[name] = _dtype(found.dtype), found.shape or ()

        with self._open() as file:
            file.visititems(note)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                try_lock(file.id.get_vfd_handle(), shared=True)  # who writes it keeps us out, where there are locks
                yield file
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
        with self._open() as file:
            datasets = [self._dataset(file, name) for name in names]
            for first in range(0, len(datasets[0]), n):
                yield [dataset[first : first + n] for dataset in datasets]

    def _dataset(self, file: h5py.File, name: str) -> Any:
        dataset = file[name]
        where = f"{self.path}: {name}"
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{where}: must have its values in this file, got a virtual or external dataset")
        chunk = int(np.prod(dataset.chunks, dtype=np.int64)) * dataset.dtype.itemsize if dataset.chunks else 0
        if chunk > CHUNK_BYTES:
            raise InputError(f"{where}: must have chunks of at most {CHUNK_BYTES >> 20} MiB, got {chunk >> 20}")
        return dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset


def _dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type; of text numpy's, of no width where each value has its own."""
    text = h5py.check_string_dtype(stored)
    return np.dtype(f"U{min(text.length or 0, CHUNK_BYTES)}") if text else stored
