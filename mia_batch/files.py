"""Files whole or not at all, their digests and locks, and where the product's own files lie."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mia_batch.errors import InputError

Between = Callable[[], None] | None  # what long reading calls between blocks; what it raises ends the reading


def shipped(name: str) -> Path:
    """Directory `jobs`, `slurm` or `configs`: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: on the disk, in a quota, under a limit on a file's size."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or "No space left" in str(error)  # HDF5 has the number in its text


def not_written(path: Path, error: Exception, rule: str = "must be writable") -> InputError:
    """The file system's objection as one line."""
    said = "the disk is full" if is_full(error) else f"{rule}, got: {getattr(error, 'strerror', None) or error}"
    return InputError(f"{path}: {said}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced and renamed to `path`, else removed.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path, between: Between = None) -> str:
    """Hex digest of a file, read in blocks.

    Args:
        path: of the file.
        between: called after each block.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                if between:
                    between()
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, got: {error.strerror}") from error
    return digest.hexdigest()


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of this lock file, which is made.

    Raises:
        InputError: the folder cannot be written, or its file system has no locks.
    """
    try:
        file = open(path, "ab")  # noqa: SIM115  (closed below)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise not_written(path, error, "must be a file that can be locked") from error
    with file:
        yield


def in_use(path: Path) -> bool:
    """Whether a writer holds features.h5, or an attack's journal, at this moment."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
