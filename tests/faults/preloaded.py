"""The shim: what happens to this process when it changes files below a folder, and how it is built and preloaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
FAKETIME = sorted(Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketime.so.1"))  # Debian's package libfaketime
CLOCK_FILE = "FAKETIME_TIMESTAMP_FILE"  # its variable for the file that says by how much the clock is wrong
NOTHING, SIGNAL, FAIL, MOVE, JUMP = range(5)  # as in shim.c


@dataclass(frozen=True)
class Deed:
    """What happens.

    Attributes:
        action: one of the above.
        value: a signal's number, an error's, or seconds that the clock jumps by.
        lasting: whether every later call fails too.
        to: the folder's new name, or the clock's file.
    """

    action: int = NOTHING
    value: int = 0
    lasting: bool = False
    to: str = ""


NO_DEED = Deed()


def build(folder: Path) -> Path | None:
    """The shim, built there; None without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        return None
    built = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, SOURCE, "-ldl"], check=True)
    return built


def environment(shim: Path | None, clock: Path | None) -> dict[str, str]:
    """Of a process that has the shim, and a clock that the file `clock` moves."""
    loaded = [str(each) for each in (shim, *(FAKETIME if clock else ())) if each]
    found = {**os.environ, "LD_PRELOAD": " ".join(loaded)}
    if clock:  # monotonic clocks do not jump, nor do the times that a file server gives its files
        found |= {CLOCK_FILE: str(clock), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1"}
        found |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return found


def arm(folder: Path, at: int, deed: Deed) -> None:
    """Do it at the `at`-th change below the folder; with 0, only count. Without the shim only 0 may be."""
    loaded = ctypes.CDLL(None)
    if hasattr(loaded, "fault_arm"):
        name, to = os.fsencode(folder), os.fsencode(deed.to)
        loaded.fault_arm(name, ctypes.c_long(at), deed.action, deed.value, int(deed.lasting), to)
    elif at:
        raise AssertionError("the shim must be preloaded")


def changes_seen() -> int:
    """Changes below the folder since `arm`."""
    loaded = ctypes.CDLL(None)
    return int(loaded.fault_seen()) if hasattr(loaded, "fault_seen") else 0


def set_clock(file: Path | None = None) -> None:
    """Set the clock right again, that of this process unless another's file is named."""
    (file or Path(os.environ.get(CLOCK_FILE, os.devnull))).write_text("+0\n")
