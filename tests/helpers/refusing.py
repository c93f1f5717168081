"""Start a command for which the kernel refuses some system calls, as file systems without locks or links do.

``refusing.py flock=ENOSYS link=EPERM -- COMMAND...``: a seccomp filter, which every process below inherits. ``range``
is fcntl's lock of a range, of a process (F_SETLK) or of an open file (F_OFD_SETLK), ``mmap_shared`` a map of a file
that is no private copy.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from running import REPO

T = TypeVar("T")
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06  # of BPF
NUMBER, ARGUMENTS = 0, 16  # bytes into seccomp_data; an argument has 8
CALLS = {
    "x86_64": {"flock": (73,), "link": (86, 265), "range": (72,), "fsync": (74,), "mmap_shared": (9,)},
    "aarch64": {"flock": (32,), "link": (37,), "range": (25,), "fsync": (82,), "mmap_shared": (222,)},
}
LOCK_COMMANDS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
ONLY_IF = {"range": (1, JUMP_IF_EQUAL, LOCK_COMMANDS), "mmap_shared": (3, JUMP_IF_SET, (1,))}  # argument, test, values
ENOTSUPP = 524  # which is in no header of user space, and comes from kernels all the same


def number(name: str) -> int:
    """Of an error; 0 is none: the call claims to be done, and is not."""
    others = {"ENOTSUPP": ENOTSUPP, "0": 0}
    return others[name] if name in others else int(getattr(errno, name))


def program(errors: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """BPF: for each call its number, for some also an argument, else allow."""
    lines: list[tuple[int, int, int, int]] = []
    for name, error in errors.items():
        answer = (RETURN, 0, 0, RET_ERRNO | error)
        body = [answer]
        if name in ONLY_IF:
            argument, test, values = ONLY_IF[name]
            body = [(LOAD_WORD, 0, 0, ARGUMENTS + 8 * argument)]
            for value in values:
                body += [(test, 0, 1, value), answer]
        for call in CALLS[platform.machine()][name]:
            lines += [(LOAD_WORD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 0, len(body), call), *body]
    return [*lines, (RETURN, 0, 0, RET_ALLOW)]


def refuse(errors: dict[str, int]) -> None:
    """Have the kernel answer these calls with these errors, in this process and all that it starts."""
    lines = b"".join(struct.pack("HBBI", *line) for line in program(errors))
    code = ctypes.create_string_buffer(lines, len(lines))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def refused(calls: str, *command: Any) -> list[str]:
    """The words that start a command so; `calls` such as "flock=ENOSYS link=EPERM"."""
    return [sys.executable, str(REPO / "tests" / "helpers" / "refusing.py"), *calls.split(), "--", *map(str, command)]


def parse(calls: str) -> dict[str, int]:
    """The errors by call, of "flock=ENOSYS link=EPERM"."""
    return {name: number(error) for name, _, error in (word.partition("=") for word in calls.split())}


def answer(calls: str, work: Callable[..., T], *arguments: object) -> T:
    """What `work` gives, or raises, in a process for which the kernel refuses `calls`."""
    with Refused(calls, work, *arguments) as child:
        return child.result()


class Refused:
    """Such a process, a fork of this one, which is killed at the end."""

    def __init__(self, calls: str, work: Callable[..., Any], *arguments: object) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self.process = context.Process(target=self._run, args=(there, calls, work, arguments))
        self.process.start()
        there.close()

    @staticmethod
    def _run(there: Connection, calls: str, work: Callable[..., Any], arguments: Sequence[object]) -> None:
        refuse(parse(calls))
        try:
            there.send((work(*arguments), None))
        except Exception as error:
            there.send((None, error))

    def result(self) -> Any:
        """What its work has given or raised."""
        value, error = self._here.recv()
        if error:
            raise error
        return value

    def __enter__(self) -> Refused:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()


def wait_for(mark: Path) -> None:
    """Wait until a child has made this file."""
    until = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


if __name__ == "__main__":
    end = sys.argv.index("--")
    refuse(parse(" ".join(sys.argv[1:end])))
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
