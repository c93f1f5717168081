"""Run a stage as a process of its own, and pass requests to stop on to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil

from mia_batch.files import shipped
from mia_batch.process.bars import BARS
from mia_batch.process.exit_codes import INTERRUPTED, OK, RESUME
from mia_batch.process.progress import SENT
from mia_batch.process.stage_log import StageLog
from mia_batch.process.stop import STOP_SIGNALS, handled

WATCHED_EVERY_S = 0.1
LAST_WORDS_S = 5.0  # for what a stage has printed; a process that it has left behind may hold its output open for ever
PR_SET_PDEATHSIG = 1  # of prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def stage_command(stage: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs `jobs/<stage>.py` with this interpreter."""
    return [sys.executable, str(shipped("jobs") / f"{stage}.py"), *arguments]


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: an orphan would keep the next run out."""
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a process of limited time and memory has ended: its exit code, what it has printed, and `how` in words."""

    code: int
    stdout: str
    stderr: str
    how: str


def run_limited(command: Sequence[str], *, seconds: float, memory: int) -> Ended:
    """Run a command until it ends, takes longer than `seconds`, or holds more than `memory` bytes."""
    as_text: dict[str, Any] = {"mode": "w+", "encoding": "utf-8", "errors": "replace"}  # a user's code prints any bytes
    with tempfile.TemporaryFile(**as_text) as stdout, tempfile.TemporaryFile(**as_text) as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, preexec_fn=end_with_parent
        )
        try:
            how = _watch(process, time.monotonic() + seconds, memory)
        finally:
            process.kill()
            process.wait()
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read())
    return Ended(process.returncode, said[0], said[1], how or _ending(process.returncode))


def _watch(process: subprocess.Popen[bytes], deadline: float, memory: int) -> str:
    """Wait for the process; why it must be killed, or "" once it has ended."""
    while True:
        try:
            process.wait(WATCHED_EVERY_S)
            return ""
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                return "it takes longer"
        with contextlib.suppress(psutil.NoSuchProcess):
            held = psutil.Process(process.pid).memory_info().rss
            if held > memory:
                return f"it holds {held / 2**30:.1f} GiB"


def _ending(code: int) -> str:
    return f"it died of {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def run_stage(
    command: Sequence[str], environ: Mapping[str, str] | None = None, log: StageLog | None = None
) -> int:
    """Run a stage and return its exit code; requests to stop reach it as SIGUSR1, which every launcher forwards.

    Ctrl-C reaches it as SIGUSR1 too, and a second one kills it. A stage that the signal ends before it listens (its
    first second or two) has nothing to save: that is RESUME too. So is a stage that was done all the same, after which
    no other may begin. What it prints is printed, and kept in its log.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the stage has ended.
    """
    got: list[int] = []

    def forward(signum: int, _frame: FrameType | None) -> None:
        process.send_signal(signal.SIGKILL if signum == signal.SIGINT in got else signal.SIGUSR1)
        got.append(signum)

    if log and BARS.possible():  # else it would find no terminal at the pipe, and log lines
        environ = {**(os.environ if environ is None else environ), SENT: "1"}
    # The stage ignores SIGINT from birth: the terminal sends Ctrl-C to it as well, which would break off its imports.
    with handled(signal.SIG_IGN, signal.SIGINT):
        pipe = None if log is None else subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environ, preexec_fn=end_with_parent
        )
        with handled(forward, *STOP_SIGNALS, signal.SIGINT):
            _wait(process, log.begin() if log else None)
    code = 128 - process.returncode if process.returncode < 0 else process.returncode
    code = RESUME if got and code in (OK, 128 + signal.SIGUSR1) else code
    if log:
        log.end(INTERRUPTED if signal.SIGINT in got else code)
    if signal.SIGINT in got:
        raise KeyboardInterrupt
    return code


def _wait(process: subprocess.Popen[bytes], log: StageLog | None) -> None:
    """Until it has ended, while the log copies what it prints."""
    pairs = ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
    threads = [log.copy(source, screen) for source, screen in pairs if log and source]
    process.wait()
    for thread in threads:
        thread.join(LAST_WORDS_S)
