"""An executor on a clock of its own, for the order of work with any number of cores."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from mia_batch.search.tasks import Done, Lost, Work


class SimulatedExecutor:
    """Workers that take as long as `seconds` says; the results are those of `run`, both by key."""

    def __init__(self, n_workers: int, run: Callable[[str, Work], Any], seconds: Callable[[str], float]) -> None:
        self.n_workers, self._run, self._seconds = n_workers, run, seconds
        self.now = 0.0
        self.started: list[tuple[float, str]] = []
        self._running: list[tuple[float, int, str, Work]] = []

    def n_free(self) -> int:
        return self.n_workers - len(self._running)

    def submit(self, key: str, work: Work) -> None:
        assert self.n_free() > 0
        heapq.heappush(self._running, (self.now + self._seconds(key), len(self.started), key, work))
        self.started.append((self.now, key))

    def wait(self, timeout: float) -> list[Done | Lost]:
        """The next task that ends; the clock goes there."""
        end, _, key, work = heapq.heappop(self._running)
        took, self.now = self._seconds(key), end
        return [Done(key, self._run(key, work), end - took, took, took)]

    def close(self) -> None:
        self._running.clear()
