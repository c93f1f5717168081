"""A pool on a clock of its own, for the engine's order of work with any number of cores."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from mia_batch.search.tasks import Task
from mia_batch.workers.pool import Done


class SimulatedPool:
    """Workers that take as long as `seconds` says; the results are those of `run`."""

    def __init__(self, n_workers: int, run: Callable[[Task], Any], seconds: Callable[[Task], float]) -> None:
        self.n_workers, self._run, self._seconds = n_workers, run, seconds
        self.now = 0.0
        self.started: list[tuple[float, Task]] = []
        self.given_up: list[Task] = []
        self._running: list[tuple[float, int, Task]] = []

    def idle(self) -> int:
        return self.n_workers - len(self._running)

    def start(self, task: Task) -> None:
        assert self.idle() > 0
        heapq.heappush(self._running, (self.now + self._seconds(task), len(self.started), task))
        self.started.append((self.now, task))

    def wait(self, timeout: float) -> list[Done]:
        """The next task that ends; the clock goes there."""
        end, _, task = heapq.heappop(self._running)
        took, self.now = self._seconds(task), end
        return [Done(task, self._run(task), end - took, took, took)]

    def give_up(self, task: Task) -> None:
        self.given_up.append(task)
        self._running = [entry for entry in self._running if entry[2] is not task]
        heapq.heapify(self._running)

    def close(self) -> None:
        self._running.clear()
