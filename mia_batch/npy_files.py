"""NumPy's files, whatever bytes are there: headers are read before any array is made, and no pickle is loaded."""

from __future__ import annotations

import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mia_batch.errors import repeated
from mia_batch.files import open_bytes

VERSIONS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
ENDING = ".npy"
MOST_MEMBERS = 100_000
DIRECTORY_BYTES = 1 << 25  # of an archive's list of members
UNPACKED_BYTES, UNPACKED_TIMES = 1 << 28, 16  # what may come of an archive read whole: so much, or so many times itself
# What numpy, its parser of headers and zipfile raise on bytes that are none of theirs.
DAMAGED = (
    ValueError, EOFError, KeyError, SyntaxError, TypeError, OverflowError, RuntimeError, RecursionError, IndexError,
    NotImplementedError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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

    @property
    def n_bytes(self) -> int:
        """Of header and values."""
        return self.size + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> NpyHeader:
    """Read the header that begins here; numpy takes at most 10,000 characters, and evaluates none.

    Raises:
        ValueError: no header, or one of another version; damaged bytes may raise other errors of `DAMAGED`.
    """
    version = npy.read_magic(file)
    if version not in VERSIONS:
        raise ValueError(f"version {version}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of headers that Python 2 wrote, and of escapes in a damaged one
            shape, fortran, dtype = VERSIONS[version](file)
    except MemoryError:  # of Python's parser, which has a limit of its own
        raise ValueError("a header that Python cannot read") from None
    except Warning as warning:
        raise ValueError(f"a header of which is said: {warning}") from None
    return NpyHeader(dtype, tuple(map(int, shape)), fortran, file.tell())


def whole_header(file: IO[bytes], n_bytes: int) -> NpyHeader:
    """`read_header` of an array of so many bytes, header and all, whose values are no Python objects.

    Raises:
        ValueError: it is another one; or as `read_header`.
    """
    header = read_header(file)
    if header.dtype.hasobject:
        raise ValueError("Python objects (a pickle), which are not loaded")
    if min(header.shape, default=0) < 0 or header.n_bytes != n_bytes:
        raise ValueError(f"{n_bytes} bytes, where its header says {header.n_bytes}")
    return header


def map_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy, mapped.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no array, or not all of one; or as `read_header`.
    """
    with open_bytes(path) as file:
        header = whole_header(file, os.fstat(file.fileno()).st_size)
        if not math.prod(header.shape):
            return np.empty(header.shape, header.dtype)
        return np.memmap(file, header.dtype, "r", header.size, header.shape, "F" if header.fortran else "C")


def is_archive(path: Path) -> bool:
    """Whether a file begins as a .npz does, whatever its name.

    Raises:
        OSError: it cannot be read.
    """
    with open_bytes(path) as file:
        return file.read(2) == b"PK"


@contextmanager
def archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """The members of the .npz in an open file, which are read while the block lasts.

    Raises:
        ValueError: its list of members is too long or has a name twice; of what is none, others of `DAMAGED`.
    """
    bounded = _Bounded(file)
    opened = zipfile.ZipFile(cast(BinaryIO, bounded))
    bounded.most_bytes = None
    with opened:
        names = opened.namelist()
        if len(names) > MOST_MEMBERS:
            raise ValueError(f"more than {MOST_MEMBERS} arrays")
        if len(set(names)) < len(names):
            name = repeated(names).removesuffix(ENDING)[:80]
            raise ValueError(f"{name}: must be there once, got it twice")
        yield opened


class _Bounded:
    """A file of which no read may be longer than the list of members: zipfile takes any length at its word."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.most_bytes: int | None = DIRECTORY_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, n: int = -1) -> bytes:
        if self.most_bytes is not None and n > self.most_bytes:
            raise ValueError(f"a list of arrays of {n} bytes")
        return self._file.read(n)


def read_npz(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Those arrays of a .npz that have one of these names, in memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: an array is not what its header says, or they are too many bytes for the file; of what is no
            archive, others of `DAMAGED`.
    """
    with open_bytes(path) as file, archive(file) as opened:
        n_bytes = os.fstat(file.fileno()).st_size
        members = {name: info for name in names if (info := opened.NameToInfo.get(name + ENDING))}
        unpacked, most = sum(info.file_size for info in members.values()), max(UNPACKED_BYTES, UNPACKED_TIMES * n_bytes)
        if unpacked > most:
            raise ValueError(f"{unpacked} bytes unpacked, of at most {most}; numpy.savez does not pack")
        return {name: read_member(opened, info) for name, info in members.items()}


def read_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array of an archive; its checksum is compared.

    Raises:
        ValueError: it is not what its header says; of damaged bytes, others of `DAMAGED`.
    """
    with opened.open(member) as stream:
        whole_header(stream, member.file_size)
    with opened.open(member) as stream:
        return cast("NDArray[Any]", npy.read_array(stream, allow_pickle=False))
