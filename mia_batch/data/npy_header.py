"""What the header of a .npy says, whatever bytes are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

VERSIONS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class NpyHeader:
    """Of one array.

    Attributes:
        dtype, shape: of the array.
        fortran: whether the first index runs fastest.
        size: bytes of the header, after which the values begin.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int


def read_header(file: IO[bytes]) -> NpyHeader:
    """Read the header that begins here; numpy takes at most 10,000 characters, and evaluates none.

    Raises:
        ValueError: no header, or one of another version; damaged bytes may raise other errors of numpy's.
    """
    version = npy.read_magic(file)
    if version not in VERSIONS:
        raise ValueError(f"version {version}")
    try:
        shape, fortran, dtype = VERSIONS[version](file)
    except MemoryError:  # of Python's parser, which has a limit of its own
        raise ValueError("a header that Python cannot read") from None
    return NpyHeader(dtype, tuple(map(int, shape)), fortran, file.tell())
