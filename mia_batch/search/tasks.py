"""The tasks of the attack stage, and what an executor of them must offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mia_batch.errors import one_line
from mia_batch.samples import Samples

# What a fit raises on numbers that it cannot work with: a failed fit, not a fault of the program.
FIT_ERRORS = (ValueError, ArithmeticError)


class CannotEvaluate(Exception):  # noqa: N818  (a finding about an attack, not a fault of the program)
    """An attack has no result; the message says why."""


class Work(Protocol):
    """What a task does. It is sent to another process."""

    def run(self, samples: Samples) -> Any:
        """Do it. The result is sent back; that of a task that is kept is plain JSON."""


class WorkToCome(Protocol):
    """Work that depends on the results of other tasks."""

    def given(self, results: Mapping[str, Any]) -> Work | None:
        """The work, or None where there is nothing to do.

        Args:
            results: of the tasks in `Task.after`, by key.

        Raises:
            CannotEvaluate: these results leave nothing to evaluate.
        """


@dataclass(frozen=True)
class Task:
    """One unit of work for one core."""

    key: str  # "attack/...": names it in the journal, its attack first
    cost: float  # estimated seconds
    work: Work | WorkToCome
    then: float = 0.0  # estimated seconds of the work that waits for it
    after: tuple[str, ...] = ()  # keys of the tasks that it waits for; their results are `given` to its work
    memory: int = 0  # estimated bytes beyond the samples
    kept: bool = True  # whether a restart finds its result in the journal
    preload: Callable[[], None] | None = None  # a worker calls it before its first task, to load what the work needs

    @property
    def attack(self) -> str:
        """The attack that it belongs to."""
        return self.key.partition("/")[0]

    @property
    def urgency(self) -> float:
        """Estimated seconds from its start to the end of the work that waits for it."""
        return self.cost + self.then

    def __lt__(self, other: Task) -> bool:
        """The longest chain first."""
        return (-self.urgency, self.key) < (-other.urgency, other.key)


@dataclass(frozen=True)
class Failed:
    """The result of a task that could not work with its numbers."""

    reason: str


@dataclass(frozen=True)
class Done:
    """A task that has ended."""

    key: str
    result: Any  # or Failed
    started: float  # seconds since the epoch, by the worker's clock
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Lost:
    """A task whose worker died, or that was in flight when a worker died."""

    key: str
    cause: str


class Executor(Protocol):
    """Does tasks, by processes of this machine or of a cluster."""

    n_workers: int

    def n_free(self) -> int:
        """How many more tasks may be submitted."""

    def submit(self, key: str, work: Work) -> None:
        """Have `work` done."""

    def wait(self, timeout: float) -> list[Done | Lost]:
        """Tasks that have ended; empty if none ends within `timeout` seconds. Raises what a task raised."""

    def close(self) -> None:
        """End the workers, whether they are busy or not."""


def execute(samples: Samples, key: str, work: Work) -> Done:
    """Do one task in this process, on one thread."""
    started, clock, cpu = time.time(), time.perf_counter(), time.process_time()
    try:
        with threadpool_limits(1):
            result = work.run(samples)
    except (*FIT_ERRORS, MemoryError) as error:
        result = Failed(one_line(error))
    return Done(key, result, started, time.perf_counter() - clock, time.process_time() - cpu)
