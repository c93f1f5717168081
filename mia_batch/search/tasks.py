"""The tasks of the attack stage, and what is needed of whoever does them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mia_batch.errors import one_line
from mia_batch.samples import Samples

# What a fit raises on numbers that it cannot work with: the fit's failure, not the program's.
FIT_ERRORS = (ValueError, ArithmeticError)


class CannotEvaluate(Exception):  # noqa: N818  (a finding about an attack, not a fault of the program)
    """An attack has no result, with the reason."""


class Work(Protocol):
    """What a task does. It travels to another process."""

    def run(self, samples: Samples) -> Any:
        """Do it. The result travels back; of a task that is kept it is plain JSON."""


class WorkToCome(Protocol):
    """Work that other tasks' results decide."""

    def given(self, results: Mapping[str, Any]) -> Work | None:
        """The work, or None if it turns out that there is nothing to do.

        Args:
            results: by key, of the tasks that were waited for.

        Raises:
            CannotEvaluate: the results leave nothing that could be done.
        """


@dataclass(frozen=True)
class Task:
    """One unit of work for one core."""

    key: str  # "attack/...": names it in the journal, its attack first
    cost: float  # estimated seconds
    work: Work | WorkToCome
    then: float = 0.0  # estimated seconds of what cannot begin before it has ended
    after: tuple[str, ...] = ()  # keys of the tasks of its attack whose results its work is `given`
    memory: int = 0  # estimated bytes beyond the samples
    kept: bool = True  # whether a restart finds its result in the journal
    preload: Callable[[], None] | None = None  # loads what its work needs, in a worker before its first task

    @property
    def attack(self) -> str:
        """Whose task it is."""
        return self.key.partition("/")[0]

    @property
    def urgency(self) -> float:
        """Estimated seconds from its start to the end of what waits for it."""
        return self.cost + self.then

    def __lt__(self, other: Task) -> bool:
        """The longest chain first."""
        return (-self.urgency, self.key) < (-other.urgency, other.key)


@dataclass(frozen=True)
class Failed:
    """A task that has ended without a result, because its numbers could not be worked with."""

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
    """A task whose worker has died, or one that was in flight when another one's worker did."""

    key: str
    cause: str


class Executor(Protocol):
    """Whoever does tasks: processes of this machine, or of a cluster."""

    n_workers: int

    def n_free(self) -> int:
        """How many more tasks may be submitted."""

    def submit(self, key: str, work: Work) -> None:
        """Have `work` done."""

    def wait(self, timeout: float) -> list[Done | Lost]:
        """Tasks that have ended; empty if none does within `timeout` seconds. Raises what a task raised."""

    def close(self) -> None:
        """End the workers, whatever they are at."""


def execute(samples: Samples, key: str, work: Work) -> Done:
    """Do one task in this process, on one thread."""
    started, clock, cpu = time.time(), time.perf_counter(), time.process_time()
    try:
        with threadpool_limits(1):
            result = work.run(samples)
    except (*FIT_ERRORS, MemoryError) as error:
        result = Failed(one_line(error))
    return Done(key, result, started, time.perf_counter() - clock, time.process_time() - cpu)
