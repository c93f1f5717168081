"""Files whole or not at all, opened only if they are files, their digests, and where our own ones lie."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from mia_batch.errors import InputError

MOST_BYTES = 1 << 26  # of a file that is read whole; what a run writes for itself has far less
LONGEST_LINE = 1 << 16  # characters, of a file of names or numbers
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

Between = Callable[[], None] | None  # what long reading calls between blocks; what it raises ends the reading


def shipped(name: str) -> Path:
    """Directory `jobs`, `slurm`, `configs` or `docs`: inside the installed package, else at the top of the checkout."""
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


def open_bytes(path: Path, mode: str = "rb", *, buffering: int = -1) -> BinaryIO:
    """Open a file, and nothing else: to open a FIFO waits for its writer, to open some devices does something.

    Raises:
        OSError: there is none, or something else is there; its `strerror` says what.
    """
    with _named(path):
        return cast(BinaryIO, open(path, mode, buffering, opener=_open_file))


def open_text(path: Path, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """`open_bytes` for reading text."""
    with _named(path):
        return open(path, encoding=encoding, newline=newline, opener=_open_file)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # a NUL in the name, or half a character of UTF-16
        raise OSError(errno.EINVAL, "a name that no file can have", ascii(str(path))) from error


def _open_file(path: str, flags: int) -> int:
    try:
        _refuse_no_file(os.stat(path), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    try:
        _refuse_no_file(os.fstat(descriptor), path)  # another may have taken its place
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def refuse_no_file(path: Path) -> None:
    """For what a library opens by its name: see `open_bytes`.

    Raises:
        OSError: there is none, or something else is there; its `strerror` says what.
    """
    with _named(path):
        _refuse_no_file(os.stat(path), str(path))


def _refuse_no_file(found: os.stat_result, path: str) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"{KINDS.get(kind, 'something')}, which is no regular file", path)


def no_folder(path: Path) -> str:
    """Why a path can be no folder: what it is, or goes through; "" of a folder, and of what could become one."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that no file can have
        return f"{ascii(str(path))[1:-1]}: {getattr(error, 'strerror', None) or error}"
    for each in (path, *path.parents):
        if each.is_dir():
            return ""
        if os.path.lexists(each):
            return str(path) if each == path else f"{path}, but {each} is none"
    return ""


def read_text(path: Path, most_bytes: int = MOST_BYTES, *, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read, is no file, or has more bytes than that.
        UnicodeDecodeError: it is text in no such encoding.
    """
    with open_bytes(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", str(path))
        return file.read(most_bytes).decode(encoding)


def holds(path: Path, text: str) -> bool:
    """Whether a file has exactly this text; no more of it is read.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    wanted = text.encode()
    with open_bytes(path) as file:
        return file.read(len(wanted) + 1) == wanted


def read_lines(path: Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8 without their ends, each with its number from 1.

    Raises:
        OSError: the file cannot be read, is no file, or has a line of more characters than that.
        UnicodeDecodeError: it is no text in UTF-8.
    """
    with open_text(path, encoding="utf-8-sig") as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            text = line.rstrip("\n")
            if len(text) > longest:
                raise OSError(errno.EFBIG, f"more than {longest} characters in line {number}", str(path))
            yield number, text


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced and renamed to `path`, else removed.

    Raises:
        InputError: the disk is full, the directory cannot be written, or no file is at `path` but something else.
    """
    refuse_replacing(path)
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
        with suppress(OSError):  # a name that the system refuses
            temporary.unlink()


def refuse_replacing(path: Path) -> None:
    """A rename would put a file in the place of a device, where its user may do so.

    Raises:
        InputError: something is there that is no file, or a link to what a process has open.
    """
    kind = "a directory" if not path.name else ""
    with suppress(OSError, ValueError):  # nothing is there; what no file can be named is said when it is opened
        kind = kind or KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "")
    with suppress(OSError, ValueError):
        kind = kind or ("a link to what a process has open" if os.readlink(path).startswith("/proc/") else "")
    if kind:
        raise InputError(f"{path}: must be a file that can be written, got {kind}")


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be other bytes


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
        with open_bytes(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                if between:
                    between()
    except OSError as error:
        raise InputError(f"{path}: must be a file that can be read, got: {error.strerror}") from error
    return digest.hexdigest()
