"""Whether a file system does what the stages ask of it, tried with small files before the first stage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from mia_batch.errors import InputError
from mia_batch.files import is_full, not_written, sync_directory, write_text
from mia_batch.locks import give_name, in_use, lock
from mia_batch.rundir.hdf5 import check_room, lock_file

_tried: set[int] = set()  # devices


def nearest_folder(path: Path) -> Path:
    """`path`, or the first folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def try_once(folder: Path) -> None:
    """`try_out` in a folder that may not be there yet, once for each file system.

    Nothing is tried where this process may not write: a store of references that is complete is only read.

    Raises:
        InputError: as `try_out`.
    """
    there = nearest_folder(folder)
    device = there.stat().st_dev
    if device not in _tried and os.access(there, os.W_OK | os.X_OK):
        try_out(there)
        _tried.add(device)


def try_out(folder: Path) -> None:
    """Do in `folder` what the stages do with their files.

    Raises:
        InputError: naming what does not work there.
    """
    deeds: Mapping[str, Callable[[Path], None]] = {
        "write and replace files": _replace, "lock files": _lock, "give a name once": _name, "keep room": _keep_room,
        "write and map HDF5": _write_hdf5,
    }  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".mia-batch-try-") as made:
            for what, deed in deeds.items():
                _do(what, deed, Path(made))
    except OSError as error:
        raise not_written(folder, error) from error


def _do(what: str, deed: Callable[[Path], None], made: Path) -> None:
    try:
        deed(made)
    except OSError as error:
        if is_full(error):
            raise
        got = error.strerror or error
        raise InputError(f"{made.parent}: must be on a file system that can {what}, got: {got}") from error
    except InputError as error:
        raise InputError(str(error).replace(str(made), str(made.parent))) from error


def _replace(made: Path) -> None:
    for text in ("before", "after"):
        write_text(made / "text", text)
    if (made / "text").read_text(encoding="utf-8") != "after":
        raise OSError("a replaced file has its old content")
    sync_directory(made)


def _lock(made: Path) -> None:
    path = made / "locked"
    with open(path, "a+b") as file:
        lock(made, file.fileno())
        if not in_use(path):
            raise OSError("a lock that keeps nobody out")
    if in_use(path):
        raise OSError("a lock that outlives its holder")


def _name(made: Path) -> None:
    for name in ("first", "second"):
        write_text(made / name, name)
    give_name(made / "first", made / "name")
    try:
        give_name(made / "second", made / "name")
    except FileExistsError:
        return
    raise OSError("a name that was given twice")


def _keep_room(made: Path) -> None:
    check_room(made, 0)


def _write_hdf5(made: Path) -> None:
    path, values = made / "values.h5", np.arange(4, dtype="<f4")
    with h5py.File(path, "w", locking=False) as file:
        lock_file(path, file)
        offset = file.create_dataset("values", data=values).id.get_offset()
    if not np.array_equal(np.memmap(path, "<f4", "r", offset, values.shape), values):
        raise OSError("a map that differs from the file")
