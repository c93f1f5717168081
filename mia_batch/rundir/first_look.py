"""A first look at HDF5 files that no digest vouches for, by a process whose time and memory are limited.

Damaged bytes can make HDF5 loop, take memory without end, or crash; then that is said of the file. One process looks at
all files of a command: to start it takes longer than to look.
"""

from __future__ import annotations

import atexit
import json
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mia_batch.errors import InputError
from mia_batch.process.child import end_with_parent

SECONDS = 2  # of a core, for one file, and one more for so many bytes:
BYTES_PER_SECOND = 4 << 20
WAIT_SECONDS = 600.0  # of the clock, for a file system that is slow or a machine that is busy
READY = "ready"  # what it says first
USERS = "users"  # kind of a file that is none of ours


class Looker:
    """The process, started when it is first asked, and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._seen: set[tuple[object, ...]] = set()

    def look(self, path: Path, kind: str, schemas: Sequence[int]) -> None:
        """Look at a file, unless it is one that was seen and is unchanged.

        Raises:
            InputError: what is wrong with it.
        """
        status = path.stat()
        mark = (str(path), kind, status.st_ino, status.st_size, status.st_mtime_ns)
        if mark in self._seen:
            return
        seconds = SECONDS + status.st_size // BYTES_PER_SECOND
        stdin, stdout = _pipes(self.running())
        stdin.write(json.dumps([str(path.absolute()), kind, list(schemas), seconds]) + "\n")
        stdin.flush()
        answer = _answer(stdout)
        if not answer:
            code = self.end()
            looped = answer is None or code == -signal.SIGXCPU
            how = "HDF5 found no end of it" if looped else "HDF5 crashed over it"
            raise InputError(f"{path}: must be an HDF5 file that can be read, got one that is damaged: {how}")
        problems = json.loads(answer)
        if problems:
            raise InputError([problem.replace(str(path.absolute()), str(path)) for problem in problems])
        self._seen.add(mark)

    def running(self) -> subprocess.Popen[str]:
        """The process, started where none runs."""
        if self._process and self._process.poll() is not None:
            self.end()
        if self._process is None:
            command = [sys.executable, "-m", "mia_batch.rundir.first_looker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent
            )
            atexit.register(self.end)
            if _answer(_pipes(self._process)[1]) != f"{READY}\n":
                self.end()
                raise RuntimeError(f"{' '.join(command)}: must start, and says why it does not")
        return self._process

    def end(self) -> int | None:
        """End the process; what it ended with, negative by a signal."""
        process, self._process = self._process, None
        if process is None:
            return None
        atexit.unregister(self.end)
        for pipe in _pipes(process):
            pipe.close()  # which ends it where it waits
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _answer(stdout: IO[str]) -> str | None:
    """The next line, "" of a process that has ended, or None after too long."""
    ready, _, _ = select.select([stdout], [], [], WAIT_SECONDS)
    return stdout.readline() if ready else None


_looker = Looker()
look_first, ready = _looker.look, _looker.running
