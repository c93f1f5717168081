"""Open the executor that a configuration asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mia_batch.errors import InputError
from mia_batch.samples import Samples
from mia_batch.search.tasks import Executor, Task
from mia_batch.settings.schema import AttackConfig
from mia_batch.workers.processes import ProcessExecutor
from mia_batch.workers.serial import SerialExecutor

log = logging.getLogger(__name__)

WORKER_BYTES = 300 << 20  # a process that has loaded everything, before it has any rows


def open_executor(
    attack: AttackConfig, samples: Samples, tasks: Iterable[Task], *, n_jobs: int, directory: str | None = None
) -> Executor:
    """Processes of this machine within the memory budget, a Dask scheduler's workers, or this process alone.

    Args:
        attack: backend, scheduler and memory_gib.
        samples: what tasks read.
        tasks: all that will be done.
        n_jobs: cores of this machine.
        directory: where the samples' unlinked file takes its space.

    Raises:
        InputError: the memory budget does not hold one worker.
    """
    if attack.backend == "dask":
        from mia_batch.workers.dask_cluster import DaskExecutor

        return DaskExecutor(samples, str(attack.scheduler))
    if attack.backend == "serial":
        return SerialExecutor(samples)
    everything = list(tasks)
    n_workers = workers_within(attack.memory_gib, n_jobs, samples, everything)
    preload = dict.fromkeys(task.preload for task in everything if task.preload)
    return ProcessExecutor(samples, n_workers, directory, list(preload))


def memory_of(samples: Samples, tasks: Iterable[Task]) -> tuple[int, int]:
    """Bytes that a search takes whatever its workers, and bytes of each worker."""
    held = sum(array.nbytes for array in samples.arrays().values())
    each = WORKER_BYTES + held + max((task.memory for task in tasks), default=0)  # with its copy of a fold
    return WORKER_BYTES + 2 * held, each


def workers_within(memory_gib: float, n_jobs: int, samples: Samples, tasks: Iterable[Task]) -> int:
    """As many workers as cores and memory allow.

    Raises:
        InputError: the budget does not hold one.
    """
    shared, each = memory_of(samples, tasks)
    fitting = int((memory_gib * 2**30 - shared) // each)
    if fitting < 1:
        raise InputError(
            f"attack.memory_gib: must be at least {(shared + each) / 2**30:.2f} for these features and grids, "
            f"got {memory_gib}"
        )
    if fitting < n_jobs:
        log.warning("memory_gib %.2f holds %d workers, fewer than the %d cores", memory_gib, fitting, n_jobs)
    return min(n_jobs, fitting)
