"""What a case takes for itself: the peak of a forked process's memory begins with all that its parent holds then."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

_libc = ctypes.CDLL(None)


def release_memory() -> None:
    """Give freed memory back before a fork: a child would take it again, and its peak would not show that."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def inherited() -> int:
    """Bytes of this process's peak; called first of all in a forked one they are its parent's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def begin_peak(pid: int) -> int:
    """Have another process's peak of memory begin anew; returns the bytes that it holds."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def peak(pid: int) -> int:
    """Bytes of another process's peak of memory; 0 of one that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
