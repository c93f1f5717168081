"""Arrays that processes of this machine share: in a file that has no name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = 4096

Places = list[tuple[str, str, tuple[int, ...], int]]  # name, dtype, shape and first byte of each array


def store_arrays(arrays: Mapping[str, NDArray[Any]], directory: str | None) -> tuple[Any, Places]:
    """Put arrays into an unlinked file; returns it, to be kept open, and where each array lies in it."""
    file: Any = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  (lives as long as the workers)
    places: Places = []
    for name, array in arrays.items():
        start = -(-file.tell() // PAGE) * PAGE
        file.seek(start)
        np.ascontiguousarray(array).tofile(file)
        places.append((name, array.dtype.str, array.shape, start))
    file.flush()
    return file, places


def map_arrays(owner: int, descriptor: int, places: Places) -> dict[str, NDArray[Any]]:
    """The arrays of a file that the process `owner` holds open, mapped read-only."""
    path = f"/proc/{owner}/fd/{descriptor}"
    return {
        name: np.memmap(path, dtype, "r", offset=start, shape=shape) if all(shape) else np.empty(shape, dtype)
        for name, dtype, shape, start in places
    }
