"""What the crash of a rank makes of an extraction: memory may have been damaged before, so none of its rows count.

One file holds a digit for each row, 1 where it was done before the launch, with a digest of them, and below that what
is known of a crash. Where there is nothing, nobody crashed: a launch that was killed, or whose node was lost, keeps its
rows.
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import os
import signal

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.files import holds, open_bytes, read_text, write_text
from mia_batch.rundir.paths import ReferencePaths, RunPaths

log = logging.getLogger(__name__)
MOST_BYTES = 1 << 28  # a digit for each row, and what is known of crashes
# What a process dies of that has damaged its memory or computes what it cannot; all of them faulthandler's.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def begin_launch(paths: RunPaths | ReferencePaths, done: NDArray[np.bool_]) -> None:
    """Note which rows, (n_rows,), are done before the launch; what the one before has left is forgotten."""
    rows = "".join(np.where(done, "1", "0"))
    text = f"{rows} {_digest(rows)}\n"
    if not paths.launch.exists() or not holds(paths.launch, text):
        write_text(paths.launch, text)  # not for nothing: the ranks of a launch hold the file that they have opened


def crash_of(code: int) -> signal.Signals | None:
    """What a rank crashed of, by the exit code of what has started it: MPICH gives the signal, all others 128 more."""
    return next((signum for signum in CRASHES if code in (signum, 128 + signum)), None)


def report_own_crash(paths: RunPaths | ReferencePaths) -> None:
    """Have this process, when it crashes, write where it was; it may be of any rank and on any node."""
    try:
        descriptor = os.open(paths.launch, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        log.warning("%s: %s; a crash of this rank is known by its exit code alone", paths.launch, error.strerror)
    else:
        faulthandler.enable(descriptor, all_threads=False)


def note_crash(paths: RunPaths | ReferencePaths, said: str) -> None:
    """Write what somebody else has seen of a crash."""
    if paths.launch.exists():
        with open_bytes(paths.launch, "ab") as file:
            file.write(f"{said}\n".encode())


def rows_before_crash(paths: RunPaths | ReferencePaths, n_rows: int) -> NDArray[np.bool_] | None:
    """Shape (n_rows,): the rows that were done before the last launch, if that has crashed; None if it has not.

    Raises:
        InputError: what is known of it cannot be read.
    """
    try:
        line, ended, said = read_text(paths.launch, MOST_BYTES, encoding="latin-1").partition("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{paths.launch}: must be a file that can be read, got: {error.strerror}") from error
    rows, _, digest = line.partition(" ")
    whole = bool(ended) and digest in (_digest(rows), "")  # of a version before it has none
    if whole and not said:
        return None
    before = np.frombuffer(rows.encode("latin-1"), np.uint8) == ord("1")
    return before if whole and len(before) == n_rows else np.zeros(n_rows, dtype=bool)


def _digest(rows: str) -> str:
    return hashlib.sha256(rows.encode("latin-1")).hexdigest()


def refuse_crashed(paths: RunPaths) -> None:
    """Refuse features of which some were computed by a launch that has crashed.

    Raises:
        InputError: there are such rows.
    """
    if rows_before_crash(paths, 0) is not None:
        rule = "must be of an extraction whose ranks did not crash"
        raise InputError(f"{paths.features}: rows: {rule}, got a crash, see {paths.launch}; run extract again")
