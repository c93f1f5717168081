"""The order of work: one list of tasks for all attacks, the longest chain first.

A task may wait for others of its attack, as a refit waits for its search. With many cores the longest search task and
the refit after it decide when all is done, so a task counts with what waits for it.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from mia_batch.search.tasks import CannotEvaluate, Done, Executor, Failed, Lost, Task, Work, WorkToCome

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # how soon a request to stop is seen
MAX_DEATHS = 3  # of workers at one task


class Journal(Protocol):
    """Keeps the results of finished tasks across restarts."""

    def get(self, key: str) -> Any:
        """The result that was put under `key`, or None."""

    def put(self, key: str, value: Any) -> None:
        """Keep `value`, plain JSON; once this returns no kill loses it."""


class Stopped(Exception):  # noqa: N818  (not an error: the caller asked for it)
    """`stop` became true before all tasks were done; the journal keeps the finished ones."""


# Called when an attack has ended, with its name, its tasks' results by key, the tasks that this process did, and the
# reason why the attack cannot be evaluated ("" if it can).
Finish = Callable[[str, Mapping[str, Any], Sequence[Done], str], None]


class _Group:
    """The tasks of one attack that has not ended, and their results."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.missing = {task.key for task in tasks}
        self.waiting = [task for task in tasks if task.after]
        self.results: dict[str, Any] = {}
        self.trace: list[Done] = []

    def take(self, key: str, result: Any) -> None:
        """Keep a task's result."""
        self.results[key] = result
        self.missing.discard(key)

    def released(self) -> list[Task]:
        """Take out the waiting tasks whose `after` has ended."""
        free = [task for task in self.waiting if all(key in self.results for key in task.after)]
        self.waiting = [task for task in self.waiting if task not in free]
        return free


class OrderOfWork:
    """Holds the tasks that are ready, the tasks that run and the attacks that have not ended."""

    def __init__(
        self, tasks: Mapping[str, Sequence[Task]], executor: Executor, *, finish: Finish,
        journal: Journal | None = None,
    ) -> None:
        """Take what the journal has, and make the rest ready.

        Args:
            tasks: by attack.
            executor: does the tasks.
            finish: called once for each attack, when its last task has ended or when it cannot be evaluated.
            journal: of an earlier process with the same tasks.
        """
        self._executor, self._finish, self._journal = executor, finish, journal
        self._groups = {attack: _Group(its) for attack, its in tasks.items()}
        self._totals = {attack: len(its) for attack, its in tasks.items()}
        self._ready: list[Task] = []
        self._running: dict[str, Task] = {}
        self._suspects: deque[Task] = deque()  # in flight when a worker died: done again one at a time
        self._deaths: Counter[str] = Counter()
        for its in tasks.values():
            self._begin(task for task in its if not task.after)
        for attack in list(tasks):
            self._go_on(attack)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Of each attack how many tasks are done and how many there are; of one that has ended, as many as there are.
        """
        left = {attack: len(group.missing) for attack, group in self._groups.items()}
        return {attack: (total - left.get(attack, 0), total) for attack, total in self._totals.items()}

    def step(self) -> bool:
        """Start the tasks that can start and take those that have ended; returns whether all attacks have ended."""
        self._start()
        ended = self._executor.wait(POLL_SECONDS) if self._running else []
        lost = [end for end in ended if isinstance(end, Lost)]
        for end in ended:
            if isinstance(end, Done):
                self._take(self._running.pop(end.key), end)
        self._suspect([(self._running.pop(end.key), end.cause) for end in lost])
        return not self._groups

    def _start(self) -> None:
        if self._suspects:
            if not self._running:
                self._submit(self._suspects.popleft())
            return
        while self._ready and self._executor.n_free() > 0:
            self._submit(heapq.heappop(self._ready))

    def _submit(self, task: Task) -> None:
        self._running[task.key] = task
        self._executor.submit(task.key, cast(Work, task.work))  # what was to come has been given

    def _begin(self, tasks: Iterable[Task]) -> None:
        """Take tasks' results from the journal; make the other tasks ready."""
        for task in tasks:
            found = self._journal.get(task.key) if self._journal is not None and task.kept else None
            if found is not None:
                self._groups[task.attack].take(task.key, found)
            else:
                heapq.heappush(self._ready, task)

    def _take(self, task: Task, done: Done) -> None:
        if self._journal is not None and task.kept and not isinstance(done.result, Failed):
            self._journal.put(task.key, done.result)
        group = self._groups.get(task.attack)
        if group is None:  # another of its tasks has ended the attack
            return
        group.trace.append(done)
        if isinstance(done.result, Failed):
            self._give_up(task.attack, f"{task.key}: {done.result.reason}")
            return
        group.take(task.key, done.result)
        self._go_on(task.attack)

    def _go_on(self, attack: str) -> None:
        """Begin the tasks that waited for the results that are there now; end the attack after its last task."""
        group = self._groups[attack]
        try:
            while released := group.released():
                for task in released:
                    self._release(group, task)
        except CannotEvaluate as error:
            self._give_up(attack, str(error))
            return
        if not group.missing:
            del self._groups[attack]
            self._finish(attack, group.results, group.trace, "")

    def _release(self, group: _Group, task: Task) -> None:
        work = cast(WorkToCome, task.work).given({key: group.results[key] for key in task.after})
        if work is None:
            group.take(task.key, None)
        else:
            self._begin([replace(task, work=work, after=())])

    def _give_up(self, attack: str, reason: str) -> None:
        group = self._groups.pop(attack)
        self._ready = [task for task in self._ready if task.attack != attack]
        heapq.heapify(self._ready)
        self._suspects = deque(task for task in self._suspects if task.attack != attack)
        self._finish(attack, group.results, group.trace, reason)

    def _suspect(self, lost: Sequence[tuple[Task, str]]) -> None:
        """Do lost tasks again, each alone: any of them may be why a worker died."""
        for task, cause in lost:
            self._deaths[task.key] += 1
            if task.attack not in self._groups:
                continue
            if self._deaths[task.key] < MAX_DEATHS:
                log.warning("%s was lost (%s) and starts again", task.key, cause)
                self._suspects.append(task)
            else:
                self._give_up(task.attack, f"{task.key}: {MAX_DEATHS} workers ended at it ({cause})")


def do_all(
    work: OrderOfWork, stop: Callable[[], bool], watch: Callable[[Mapping[str, tuple[int, int]]], None] | None = None
) -> None:
    """Do all tasks.

    Args:
        work: what is to be done.
        stop: asked a few times a second.
        watch: told what `OrderOfWork.counts` says, as often.

    Raises:
        Stopped: `stop` became true.
    """
    ended = False
    while not ended:
        ended = work.step()
        if watch:
            watch(work.counts())
        if not ended and stop():
            raise Stopped
