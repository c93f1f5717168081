"""Works for tests of the executors, in a module that workers import quickly."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_batch.samples import Samples


@dataclass(frozen=True)
class Deed:
    """Raises, dies, dies the first time, sleeps, or else sums the features."""

    deed: str
    chunk: Any = None

    def run(self, samples: Samples) -> Any:
        if self.deed == "die":
            os._exit(7)
        if self.deed == "raise":
            raise KeyError("of no use")
        if self.deed == "fail":
            raise ValueError("numbers of no use")
        if self.deed == "sleep":
            time.sleep(1000)
        if self.deed == "die once" and not Path(self.chunk).exists():
            Path(self.chunk).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(samples.columns["features"].sum()), type(samples.columns["features"].base).__name__, os.getpid()


def not_to_be_loaded() -> None:
    """What no worker can load."""
    raise OSError("of no use")


def refuse_processes(*_: Any, **__: Any) -> None:
    """As a limit on processes does."""
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
