"""Tasks for tests of the pools, in a module that workers import quickly."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mia_batch.search.tasks import FINAL, Task
from mia_batch.workers.pool import Data


@dataclass(frozen=True)
class Work:
    """Raises, dies, dies the first time, sleeps, or else sums the features."""

    deed: str

    def run(self, data: Data, piece: Any) -> Any:
        if self.deed == "die":
            os._exit(7)
        if self.deed == "raise":
            raise KeyError("of no use")
        if self.deed == "sleep":
            time.sleep(1000)
        if self.deed == "die once" and not Path(piece).exists():
            Path(piece).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(data.X_fit.sum()), type(data.X_fit).__name__


def task(deed: str, piece: Any = None) -> Task:
    return Task(f"test/{deed}", 1.0, "test", FINAL, Work(deed), piece)


def not_to_be_loaded() -> None:
    """What no fork server can preload."""
    raise OSError("of no use")


def loads_forever() -> None:
    time.sleep(1000)


def _refuse() -> int:
    raise BlockingIOError(errno.EAGAIN, "as a limit on processes does")


def allow_no_process() -> None:
    os.fork = _refuse


def echo(pipe: Connection, _: None) -> None:
    """A worker that fails at "fail" and sends anything else back."""
    while (word := pipe.recv()) != "fail":
        pipe.send(word)
    raise OSError(word)
