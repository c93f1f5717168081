"""One writer at a time, on any file system that has locks of either kind, and names that are given once.

Some parallel file systems know no flock, some no hard links. A lock of either kind belongs to an open file: it dies
with its holder, and another descriptor of the same process does not release it, as it would with POSIX's own locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mia_batch.errors import InputError
from mia_batch.files import not_written, open_bytes

ENOTSUPP = 524  # Linux's own, which network file systems let through
NO_SUCH_CALL = frozenset((errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP))
NO_LOCK = NO_SUCH_CALL | {errno.ENOLCK}
NO_LINK = NO_SUCH_CALL | {errno.EPERM, errno.EMLINK}
RULE = "must be on a file system that locks files, by flock or by fcntl"


def try_lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file, for as long as it is open; False where its file system has no locks.

    Args:
        descriptor: of a file that is open for writing, or for reading if `shared`.
        shared: with others that only read.
        wait: until no other open file has it.

    Raises:
        BlockingIOError: another open file has it.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    for take in (lambda: fcntl.flock(descriptor, how), lambda: _lock_range(descriptor, shared, wait)):
        try:
            take()
            return True
        except OSError as error:
            if error.errno not in NO_LOCK:
                raise
    return False


def _lock_range(descriptor: int, shared: bool, wait: bool) -> None:
    """Lock all bytes for the open file: Linux's F_OFD_SETLK, which asks a file system as `lockf` does."""
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)  # struct flock: type, whence, start, length, pid
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, wanted)
    except PermissionError as error:  # EACCES, which POSIX allows instead of EAGAIN
        raise BlockingIOError(errno.EAGAIN, error.strerror) from error


def lock(path: Path, descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock the open file `path`; arguments as of `try_lock`.

    Raises:
        BlockingIOError: another open file has it.
        InputError: its file system has no locks.
    """
    if not try_lock(descriptor, shared=shared, wait=wait):
        raise InputError(f"{path}: {RULE}, got one that refuses both")


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of this lock file, which is made.

    Raises:
        InputError: the folder cannot be written, or its file system has no locks.
    """
    try:
        file = open_bytes(path, "ab")
    except OSError as error:
        raise not_written(path, error, "must be a file that can be locked") from error
    with file:
        lock(path, file.fileno(), wait=True)
        yield


def in_use(path: Path) -> bool:
    """Whether a writer holds features.h5, or an attack's journal, at this moment.

    Raises:
        InputError: its file system has no locks, so that this cannot be known.
    """
    with open_bytes(path) as file:
        try:
            lock(path, file.fileno(), shared=True)
        except BlockingIOError:
            return True
    return False


def open_locked(path: Path) -> BinaryIO:
    """Open a file for appending, make it where it is not there, and lock it.

    Raises:
        BlockingIOError: another process has it, or has removed it between the opening and the lock.
        InputError: its file system has no locks.
    """
    file = open_bytes(path, "a+b")
    try:
        lock(path, file.fileno())
        if not os.fstat(file.fileno()).st_nlink:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    except BaseException:
        file.close()
        raise
    return file


def give_name(temporary: Path, path: Path) -> None:
    """Give a finished file its name, which unlike a rename never replaces another process's file.

    `temporary` may be there afterwards.

    Raises:
        FileExistsError: the name is taken, or another process is about to take it.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        with _alone(path):
            os.replace(temporary, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep out every other process that would make `path`, by a lock on a file beside it."""
    beside = path.with_name(f".{path.name}.lock")
    try:
        file = open_locked(beside)
    except BlockingIOError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    with file:
        try:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            yield
        finally:
            beside.unlink()  # while it is locked: who has opened it meanwhile sees that it has gone
