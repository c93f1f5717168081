"""The order of work: one list for all methods' searches and final fits, the longest chain first.

A final fit needs its search, so that with many cores the longest search and the final fit after it decide when all is
done. Final fits therefore begin before the search has chosen where that delays nothing: where the other cores can do
all the rest meanwhile, and where a core would be idle. They are those of the candidates that are ahead in the folds
that are there, or, where there are cores for that, of all candidates from the start; when the search has chosen, those
of the others are given up. What is chosen does not depend on it, nor does what a fit gives.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from mia_batch.search.method_run import MethodRun
from mia_batch.search.tasks import FINAL, Task
from mia_batch.workers.pool import Done, Pool

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
        self._running: dict[str, Task] = {}
        for run in runs:
            self._push(task for task in run.search_tasks if not self._restore(run, task))
        for run in runs:
            self._close_if_searched(run)

    def step(self) -> bool:
        """Start what can be started and take what has ended; returns whether all methods are finished."""
        self._begin_what_fits()
        while self._pool.idle() > 0 and (self._ready or self._guess()):
            task = heapq.heappop(self._ready)
            self._pool.start(task)
            self._running[task.key] = task
        for done in self._pool.wait(POLL_SECONDS):
            if self._running.pop(done.task.key, None):  # else it was given up, and ended at that moment
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
            for task in [task for task in self._running.values() if task.method == run.method]:
                if task.key not in wanted:
                    self._pool.give_up(task)
                    del self._running[task.key]

    def _undecided(self) -> list[MethodRun]:
        """Methods whose search has not chosen, the longest final fit first."""
        undecided = [run for run in self._unfinished.values() if run.chosen is None]
        return sorted(undecided, key=lambda run: run.final_seconds, reverse=True)

    def _begin_what_fits(self) -> None:
        """Begin final fits as long as the other cores can do all the rest while they run."""
        for run in self._undecided():
            while (index := run.promising(at_once=self._room(run))) is not None:
                self._push(run.begin_final(index))

    def _room(self, run: MethodRun) -> int:
        """How many more final fits of a method may run while its search goes on beside them, and then all the rest."""
        tasks = [*self._ready, *self._running.values()]
        search = sum(task.cost for task in tasks if task.method == run.method and task.fold != FINAL)
        rest = sum(task.cost for task in tasks if task.method != run.method)
        rest += sum(other.final_work for other in self._undecided() if other is not run and not other.n_begun)
        n_searching = search / max(run.final_seconds - rest / max(self._pool.n_workers - 1, 1), 1e-9)
        return self._pool.n_workers - math.ceil(n_searching) - run.n_begun * run.n_pieces

    def _guess(self) -> bool:
        """A core would be idle: make the longest final fit ready that may be wanted; returns whether there is one."""
        if len(self._running) >= self._pool.n_workers:
            return False
        for run in self._undecided():
            if (index := run.promising()) is not None:
                self._push(run.begin_final(index))
                return True
        return False
