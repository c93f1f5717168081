"""The order of work: one list for all methods' searches and final fits, the longest chain first.

A final fit needs its search, so that with many cores the longest search and the final fit after it decide when all is
done. Where cores would be idle they therefore begin final fits before the search has chosen: of the candidates that are
ahead so far, or, where there are cores for that, of all from the start. What is chosen does not depend on it, nor does
what a fit gives.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from mia_batch.attacks.method_run import MethodRun
from mia_batch.attacks.pool import Done, Pool
from mia_batch.attacks.tasks import FINAL, Task

POLL_SECONDS = 0.5  # how soon a request to stop is seen


class Journal(Protocol):
    """Remembers finished tasks of a search across restarts."""

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`, or None."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Remember `value`, plain JSON; when it returns a kill cannot lose it."""


class Schedule:
    """What is ready, what runs, and which methods are not finished."""

    def __init__(
        self, runs: Sequence[MethodRun], pool: Pool, *, finish: Callable[[MethodRun], None], journal: Journal | None
    ) -> None:
        """`finish` is called with each method as soon as its final fit is there."""
        self._pool, self._finish, self._journal = pool, finish, journal
        self._unfinished = {run.method: run for run in runs}
        self._ready: list[Task] = []
        self._n_running = 0
        for run in runs:
            self._push(task for task in run.search_tasks if not self._restore(run, task))
        for run in runs:
            self._close_if_searched(run)
        self._begin_all_finals()

    def step(self) -> bool:
        """Start what can be started and take what has ended; returns whether all methods are finished."""
        while self._pool.idle() > 0 and (self._ready or self._guess()):
            self._pool.start(heapq.heappop(self._ready))
            self._n_running += 1
        for done in self._pool.wait(POLL_SECONDS):
            self._n_running -= 1
            if done.task.method in self._unfinished:  # else a guess that was wrong
                self._take(self._unfinished[done.task.method], done)
        return not self._unfinished

    def _push(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            heapq.heappush(self._ready, task)

    def _restore(self, run: MethodRun, task: Task) -> bool:
        found = self._journal.get(task.key) if self._journal is not None else None
        if found is not None:
            run.take(task.key, found)
        return found is not None

    def _take(self, run: MethodRun, done: Done) -> None:
        run.record(done)
        if self._journal is not None and done.task.fold != FINAL:
            self._journal.put(done.task.key, done.result)
        run.take(done.task.key, done.result)
        self._close_if_searched(run)
        if run.finished:
            del self._unfinished[run.method]
            self._finish(run)

    def _close_if_searched(self, run: MethodRun) -> None:
        if run.searched and run.chosen is None:
            chosen = run.close_search()
            wanted = {task.key for task in run.tasks_of_final(chosen)}
            self._ready = [task for task in self._ready if task.method != run.method or task.key in wanted]
            heapq.heapify(self._ready)
            self._push(run.begin_final(chosen))

    def _guess(self) -> bool:
        """A core would be idle: make the longest final fit ready that may be wanted; returns whether there is one."""
        if self._n_running >= self._pool.n_workers:
            return False
        guesses = [(run.final_seconds, run, run.promising()) for run in self._unfinished.values() if run.chosen is None]
        for _, run, index in sorted(guesses, key=lambda guess: guess[0], reverse=True):
            if index is not None:
                self._push(run.begin_final(index))
                return True
        return False

    def _begin_all_finals(self) -> None:
        """Of methods whose final fits, all together, are sooner done than the wait for their search would be."""
        for run in self._unfinished.values():
            tasks = run.search_tasks if run.chosen is None else []
            chain = max((task.urgency for task in tasks), default=0.0)
            finals = [task for index in range(len(run.candidates)) for task in run.tasks_of_final(index)]
            total = sum(task.cost for task in (*self._ready, *finals))
            if total / self._pool.n_workers <= chain:
                for index in range(len(run.candidates)):
                    self._push(run.begin_final(index))
