"""Samples of a user's source that are read, augmented and resized once, for every audit of an array to map.

CIFAR records need none of this: their files are mapped as they are. Images are appended to one file of equal rows, so
that its length says how far a stopped process came.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.files import atomic_path, is_full, not_written, sync_directory, write_text
from mia_batch.settings.schema import SOURCES, DataConfig

COLUMNS = ("sample_index", "split", "label", "member")


def is_worth_it(data: DataConfig) -> bool:
    """Whether reading these samples is more than mapping a file of records."""
    return data.source not in SOURCES


@dataclass(frozen=True)
class Prepared:
    """The folder of one array's data. It is complete when `meta.json` is there.

    Attributes:
        folder: absolute.
    """

    folder: Path

    @property
    def images(self) -> Path:
        """All images, (n, height, width, 3), one after the other."""
        return self.folder / "images"

    @property
    def _meta(self) -> Path:
        return self.folder / "meta.json"

    @property
    def _selection(self) -> Path:
        return self.folder / "selection.npz"

    def is_complete(self) -> bool:
        """Whether every image is there."""
        return self._meta.exists()

    # -- reading ------------------------------------------------------------------------------------------------------

    def open(self, identity: str) -> tuple[Selection, np.ndarray]:
        """The samples, and their images mapped from the file.

        Args:
            identity: of the data that is wanted, as `rundir.identity.data_digest` gives it.

        Raises:
            InputError: not complete, removed, or of other data.
        """
        try:
            meta = json.loads(self._meta.read_text(encoding="utf-8"))
            with np.load(self._selection, allow_pickle=False) as columns:
                selection = Selection(**{name: columns[name] for name in COLUMNS})
            images = np.memmap(self.images, meta["dtype"], "r", shape=tuple(meta["shape"]))
        except (OSError, ValueError, KeyError) as error:
            rule = "--prepared: must hold an array's prepared data, which goes once the array has ended"
            raise InputError(f"{self.folder}: {rule}, got: {error}") from error
        if meta["identity"] != identity:
            raise InputError(f"{self.folder}: --prepared: must be of the data of this config, got other data")
        return selection, images

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def appending(self, row_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
        """The images' file, locked and open at its end, and how many whole rows of it are there already.

        Raises:
            InputError: another process prepares this, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.images, "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                done = file.tell() // row_bytes
                file.truncate(done * row_bytes)  # a kill may have torn the last
                yield file, done
                file.flush()
                os.fsync(file.fileno())
        except BlockingIOError:
            raise InputError(f"{self.folder}: another process is preparing this data") from None
        except OSError as error:
            if is_full(error):
                raise not_written(self.images, error) from error
            raise

    def finish(self, selection: Selection, identity: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Say that all images are there."""
        with atomic_path(self._selection) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(selection, name) for name in COLUMNS})
        meta = {"schema": 1, "identity": identity, "shape": list(shape), "dtype": dtype.str}
        write_text(self._meta, json.dumps(meta) + "\n")
        sync_directory(self.folder)
