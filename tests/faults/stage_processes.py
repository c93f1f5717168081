"""A stage as a forked process: what jobs/NAME.py does, without the seconds that its imports take."""

from __future__ import annotations

import os
import runpy
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from running import REPO
from tiny_audits import Stage

SECONDS = 120.0  # of a stage that takes less than one; the machine may be busy
POLL_S = 0.003


def pause(seconds: float = POLL_S) -> None:
    """Sleep; libfaketime makes time.sleep fail where the clock has gone back."""
    select.select([], [], [], seconds)


@dataclass(frozen=True)
class Ended:
    """Exit code (less than 0: of a signal), what was said, whether it had to be killed."""

    code: int
    said: str
    hung: bool = False

    def __str__(self) -> str:
        return f"exit code {self.code}{', killed' * self.hung}; it said\n{self.said[-1500:]}"

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said


class StageProcess:
    """A stage that runs."""

    def __init__(self, stage: Stage, folder: Path, said: Path, before: Callable[[], None], after: Callable[[], None]):
        """Start it.

        Args:
            stage: to do.
            folder: of the audit, where it works.
            said: takes what it prints.
            before, after: called in the process, before the stage and when it is at its end.
        """
        self.said = said
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._be(stage, folder, before, after)
        self._code: int | None = None

    def _be(self, stage: Stage, folder: Path, before: Callable[[], None], after: Callable[[], None]) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            descriptor = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
            job = REPO / "jobs" / f"{stage.job}.py"
            sys.argv = [str(job), *stage.words]
            before()
            code = _code_of(lambda: runpy.run_path(str(job), run_name="__main__"))
            after()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def cpu_seconds(self) -> float:
        """Of all its threads so far."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)  # the process's clock, see clock_getcpuclockid(3)
        except OSError:
            return 0.0

    def is_stopped(self) -> bool:
        """Whether a signal holds it now."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def listens_to(self, signum: int) -> bool:
        """Whether it has a handler of this signal."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (signum - 1) & 1)

    def ended(self) -> bool:
        """Whether it has."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is not None

    def send(self, signum: int) -> None:
        """A signal to it, unless it has ended."""
        if not self.ended():
            os.kill(self.pid, signum)

    def wait(self) -> Ended:
        """Until it ends, or has taken far too long."""
        deadline = time.monotonic() + SECONDS
        while not self.ended() and time.monotonic() < deadline:
            pause()
        hung = not self.ended()
        if hung:
            os.killpg(self.pid, signal.SIGKILL)
            while not self.ended():
                pause()
        assert self._code is not None
        return Ended(self._code, self.said.read_text(encoding="utf-8", errors="replace"), hung)


def _code_of(main: Callable[[], object]) -> int:
    """As the interpreter makes an exit code of SystemExit or an exception."""
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
