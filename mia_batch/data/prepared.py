"""Samples of a user's source that are read, augmented and resized once, for every audit of an array to map.

CIFAR records need none of this: their files are mapped as they are. Images are appended to one file of equal rows, and
what is kept of each input to another, so that their lengths say how far a stopped process came.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.files import atomic_path, is_full, not_written, sync_directory, write_text
from mia_batch.inputs import INPUT_DTYPE
from mia_batch.settings.schema import SOURCES, DataConfig

COLUMNS = ("sample_index", "split", "label", "member", "group")
SCHEMA = 2  # 1 has no inputs: it is prepared anew


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
    def inputs(self) -> Path:
        """What is kept of each image as its source gives it, (n,) of `INPUT_DTYPE`."""
        return self.folder / "inputs"

    @property
    def _meta(self) -> Path:
        return self.folder / "meta.json"

    @property
    def _selection(self) -> Path:
        return self.folder / "selection.npz"

    def is_complete(self) -> bool:
        """Whether every image is there."""
        try:
            return bool(self._read_meta()["schema"] == SCHEMA)
        except (OSError, ValueError, KeyError):
            return False

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_meta(self) -> dict[str, Any]:
        return dict(json.loads(self._meta.read_text(encoding="utf-8")))

    def open(self, identity: str) -> tuple[Selection, np.ndarray, np.ndarray]:
        """The samples, and their images and inputs mapped from the files.

        Args:
            identity: of the data that is wanted, as `rundir.identity.data_digest` gives it.

        Raises:
            InputError: not complete, removed, or of other data.
        """
        try:
            meta = self._read_meta()
            with np.load(self._selection, allow_pickle=False) as columns:
                selection = Selection(**{name: columns[name] for name in COLUMNS})
            images = np.memmap(self.images, meta["dtype"], "r", shape=tuple(meta["shape"]))
            inputs = np.memmap(self.inputs, INPUT_DTYPE, "r", shape=tuple(meta["shape"][:1]))
        except (OSError, ValueError, KeyError) as error:
            rule = "--prepared: must hold an array's prepared data, which goes once the array has ended"
            raise InputError(f"{self.folder}: {rule}, got: {error}") from error
        if meta["identity"] != identity:
            raise InputError(f"{self.folder}: --prepared: must be of the data of this config, got other data")
        return selection, images, inputs

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def appending(self, row_bytes: int) -> Iterator[tuple[Callable[[np.ndarray, np.ndarray], None], int]]:
        """What appends images and inputs to their files, which are locked, and how many whole rows are there already.

        Raises:
            InputError: another process prepares this, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.images, "ab") as images, open(self.inputs, "ab") as inputs:
                fcntl.flock(images, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files = {images: row_bytes, inputs: INPUT_DTYPE.itemsize}
                done = min(file.tell() // size for file, size in files.items())
                for file, size in files.items():
                    file.truncate(done * size)  # a kill may have torn the last

                def append(*blocks: np.ndarray) -> None:
                    for file, block in zip(files, blocks, strict=True):
                        file.write(block.tobytes())

                yield append, done
                for file in files:
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
        meta = {"schema": SCHEMA, "identity": identity, "shape": list(shape), "dtype": dtype.str}
        write_text(self._meta, json.dumps(meta) + "\n")
        sync_directory(self.folder)
