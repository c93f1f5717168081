"""What says that an HDF5 file of ours is whole: digests of all its bytes, in the block that HDF5 leaves to its user.

They are checked without HDF5, which loops or takes memory without end on damaged bytes. The file is cut into parts, one
for the values of each contiguous dataset, and the rest: HDF5's metadata with our attributes. Where rows are still to
come, their parts have no digest yet; all else has one from the start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mia_batch.errors import InputError
from mia_batch.files import open_bytes

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5: a file that begins with it has no user's block
LEAD = re.compile(rb"mia-batch (features|reference|attack) (\d{4,8})\n")
SHORTEST = 4096  # bytes of the block: of one page, so that a kill never tears it
LONGEST = 1 << 22
WRITER_MARK = 20, 4  # first byte and bytes of HDF5's mark, in its own part, that a process has the file open to write
DIGITS = 64  # of a digest in hexadecimal
OF_PART = 2 * DIGITS  # bytes, more than those of a part in the block without its name
READ_BYTES = 1 << 20  # at a time
TRIES, PAUSE_S = 3, 0.02  # to read a block that may just be written


class Part(NamedTuple):
    """Values of a dataset: first byte, bytes, and their digest; None while they are still written."""

    first: int
    n_bytes: int
    digest: str | None


class DamagedError(InputError):
    """A file of ours does not have the bytes that were written."""


@dataclass(frozen=True)
class Seal:
    """The block of one file.

    Attributes:
        path: of the file.
        kind: "features", "reference" or "attack".
        n_bytes: of the block, where HDF5's part of the file begins.
        size: of the file in bytes.
        rest: digest of what is in no part.
        parts: by name of the dataset.
    """

    path: Path
    kind: str
    n_bytes: int
    size: int
    rest: str
    parts: Mapping[str, Part]

    @property
    def whole(self) -> bool:
        """Whether there is a digest of everything."""
        return all(part.digest is not None for part in self.parts.values())

    def check_rest(self) -> None:
        """Check the file's length and what is in no part; HDF5 may open it then.

        Raises:
            DamagedError: it is not what was written.
        """
        with open_bytes(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != self.size:
                raise DamagedError(f"{self.path}: must have {self.size} bytes as written, got {size}; remove it")
            if _digest(file, _between(self.parts.values(), self.n_bytes, self.size)) != self.rest:
                raise self.damaged("metadata")

    def check_parts(self, names: Collection[str] | None = None) -> None:
        """Check the values of some datasets, of all by default, as far as there is a digest of them.

        Raises:
            DamagedError: they are not what was written.
        """
        with open_bytes(self.path) as file:
            for name, part in self.parts.items():
                wanted = names is None or name in names
                if wanted and part.digest is not None and _digest(file, [part[:2]]) != part.digest:
                    raise self.damaged(name)

    def damaged(self, what: str) -> DamagedError:
        """The error that says so."""
        return DamagedError(f"{self.path}: {what}: must have the bytes that were written, got others; remove it")

    def filled(self, names: Iterable[str]) -> Seal:
        """With the digests of those parts."""
        with open_bytes(self.path) as file:
            found = {n: self.parts[n]._replace(digest=_digest(file, [self.parts[n][:2]])) for n in names}
        return replace(self, parts={**self.parts, **found})

    def opened(self, names: Collection[str]) -> Seal:
        """Without the digests of those parts, which are to be written."""
        parts = {n: part._replace(digest=None) if n in names else part for n, part in self.parts.items()}
        return replace(self, parts=parts)

    def write(self) -> None:
        """Put the block into the file and onto the disk."""
        lead = f"mia-batch {self.kind} {self.n_bytes}\n".encode()
        body = json.dumps({"size": self.size, "rest": self.rest, "parts": self.parts}).encode() + b"\n"
        text = lead + body
        text += hashlib.sha256(text).hexdigest().encode() + b"\n"
        if len(text) > self.n_bytes:
            raise ValueError(f"{self.path}: the seal must have at most {self.n_bytes} bytes, got {len(text)}")
        with open_bytes(self.path, "r+b") as file:
            os.pwrite(file.fileno(), text.ljust(self.n_bytes, b"\0"), 0)
            os.fsync(file.fileno())


def block_bytes(names: Iterable[str]) -> int:
    """Bytes of a block for the parts of those names: a power of two, as HDF5 asks for."""
    wanted = 512 + sum(OF_PART + len(json.dumps(name)) for name in names)
    return max(SHORTEST, 1 << (wanted - 1).bit_length())


def make_seal(path: Path, kind: str, n_bytes: int, places: Mapping[str, tuple[int, int]]) -> Seal:
    """The seal of a file, with no digest of a part; it is written by `write`.

    Args:
        path: of the file, which HDF5 has closed.
        kind: as of `Seal`.
        n_bytes: of its user's block.
        places: first byte and bytes of each part.
    """
    parts = {name: Part(*place, None) for name, place in places.items()}
    with open_bytes(path) as file:
        size = os.fstat(file.fileno()).st_size
        rest = _digest(file, _between(parts.values(), n_bytes, size))
    return Seal(path, kind, n_bytes, size, rest, parts)


def read_seal(path: Path) -> Seal | None:
    """The seal of a file; None of a file of a version that wrote none.

    Raises:
        DamagedError: neither of ours nor HDF5's, or the block is not what was written.
        OSError: it cannot be read, or is no file.
    """
    for left in reversed(range(TRIES)):
        try:
            return _read(path)
        except DamagedError:
            if not left:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError


def _read(path: Path) -> Seal | None:
    with open_bytes(path) as file:
        first = file.read(SHORTEST)
        if first.startswith(SIGNATURE):
            return None
        lead = LEAD.match(first)
        n_bytes = int(lead[2]) if lead else 0
        if lead is None or not SHORTEST <= n_bytes <= LONGEST or n_bytes & (n_bytes - 1):
            raise DamagedError(f"{path}: must be a readable HDF5 file of this product, got {first[:16]!r}")
        block = first + file.read(n_bytes - len(first))
    text, _, padding = block.rstrip(b"\0").rpartition(b"\n")
    body, _, digest = text.rpartition(b"\n")
    if padding or len(block) != n_bytes or hashlib.sha256(body + b"\n").hexdigest().encode() != digest:
        raise DamagedError(f"{path}: seal: must have the bytes that were written, got others; remove it")
    found: dict[str, Any] = json.loads(body[lead.end() :])
    parts = {name: Part(*part) for name, part in found["parts"].items()}
    return Seal(path, lead[1].decode(), n_bytes, found["size"], found["rest"], parts)


def _between(parts: Iterable[Part], n_bytes: int, end: int) -> Iterator[tuple[int, int]]:
    """The places from the end of the block, of `n_bytes`, to `end` that are in no part, and are not HDF5's mark."""
    mark, first = Part(n_bytes + WRITER_MARK[0], WRITER_MARK[1], ""), n_bytes
    for part in sorted([mark, *parts], key=lambda each: each.first):
        if part.first < first:
            raise ValueError("parts must not overlap")
        yield first, part.first - first
        first = part.first + part.n_bytes
    if first > end:
        raise ValueError("parts must be in the file")
    yield first, end - first


def _digest(file: BinaryIO, places: Iterable[tuple[int, int]]) -> str:
    """Hex digest of the bytes in those places, one after the other; a place that the file lacks counts as short."""
    found = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    for first, n_bytes in places:
        file.seek(first)
        while n_bytes and (n := file.readinto(buffer[: min(n_bytes, READ_BYTES)])):  # type: ignore[attr-defined]
            found.update(buffer[:n])
            n_bytes -= n
    return found.hexdigest()
