"""Progress as lines of the log: how much is done, how fast, how long it will take."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


def seconds_between_lines(environ: Mapping[str, str] = os.environ) -> float:
    """60 in a scheduler's log, 5 for somebody who watches."""
    return 60.0 if "SLURM_JOB_ID" in environ else 5.0


class Progress:
    """Counts samples, and logs a line now and then and when the last one is done."""

    def __init__(self, total: int, *, done: int = 0, every: float | None = None) -> None:
        self.total, self.done = total, done
        self._every = seconds_between_lines() if every is None else every
        self._started = self._last = time.monotonic()
        self._at_start = done

    def add(self, count: int) -> None:
        """Count `count` more samples as done."""
        self.done += count
        now = time.monotonic()
        if now - self._last >= self._every or self.done >= self.total:
            self._last = now
            log.info("%s", self.line(now - self._started))

    def line(self, elapsed: float) -> str:
        """The line after `elapsed` seconds."""
        rate = (self.done - self._at_start) / elapsed if elapsed > 0 else 0.0
        left = (self.total - self.done) / rate if rate else float("nan")
        share = 100 * self.done / self.total if self.total else 100.0
        ahead = f", {left:.0f} s left" if self.done < self.total and rate else ""
        return f"{self.done}/{self.total} samples ({share:.0f} %), {rate:.1f} samples/s{ahead}"
