"""Tasks on joblib's process executor: one process per core, futures, features through a file without name.

The executor is an instance of our own: loky's shared one breaks a later joblib.Parallel in the same process.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from mia_batch.errors import InputError, one_line
from mia_batch.process.child import end_with_parent
from mia_batch.process.stop import STOP_SIGNALS
from mia_batch.samples import Samples
from mia_batch.search.tasks import Done, Lost, Work, execute
from mia_batch.workers.shared_memory import Places, map_arrays, store_arrays

log = logging.getLogger(__name__)

# The numerical libraries read these when they are loaded: one thread each, as there is a process per core.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
SCHEDULER_SIGNALS = {signal.SIGINT, *STOP_SIGNALS}  # sent to all processes; the parent decides
TAKEN_OVER_S = 5.0  # usually milliseconds

_samples: list[Samples] = []  # of this worker
_broken: list[Exception] = []  # why this worker cannot begin


class ProcessExecutor:
    """Workers on this machine; where one dies, new ones replace all."""

    def __init__(
        self, samples: Samples, n_workers: int, directory: str | None = None, preload: Sequence[Callable[[], None]] = ()
    ) -> None:
        """Put the samples where workers find them; the workers start with the first task.

        Args:
            samples: what tasks read.
            n_workers: processes.
            directory: where the samples' unlinked file takes its space; the run directory rather than /tmp.
            preload: functions of modules that load what tasks need, called in each worker before its first task.
        """
        self.n_workers = n_workers
        self._file, places = store_arrays(samples.arrays(), directory)
        self._begin = (os.getpid(), self._file.fileno(), places, list(preload))
        self._running: dict[Future[Done], str] = {}
        # loky restarts a worker that has grown, and warns: always into the log, as a filter may make it an error.
        warnings.filterwarnings("always", "A worker stopped while some jobs", UserWarning)
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        with _starting_processes():
            return ProcessPoolExecutor(self.n_workers, initializer=begin, initargs=self._begin, env=ONE_THREAD)

    def n_free(self) -> int:
        """Cores without a task."""
        return self.n_workers - len(self._running)

    def submit(self, key: str, work: Work) -> None:
        """Give a task to a worker.

        Raises:
            InputError: the system refuses a process.
        """
        try:
            with _starting_processes():
                self._running[self._pool.submit(do, key, work)] = key
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise
            raise InputError(f"system: must allow a process for each core, got: {error.strerror}") from error

    def wait(self, timeout: float) -> list[Done | Lost]:
        """Tasks that have ended. When a worker dies all running tasks are lost: nobody knows which one it did."""
        ended, _ = wait(self._running, timeout, FIRST_COMPLETED)
        found: list[Done | Lost] = []
        broken = ""
        for future in ended:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                broken = one_line(error)
                continue
            found.append(future.result())
            del self._running[future]
        if broken:
            log.warning("a worker has died: %s", broken)
            found += [Lost(key, broken) for key in self._running.values()]
            self._running.clear()
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = self._new_pool()
        return found

    def close(self) -> None:
        """Kill the workers."""
        # loky's manager thread fails on a task that it has not yet taken over when it is told to end.
        deadline = time.monotonic() + TAKEN_OVER_S
        while any(not (each.running() or each.done()) for each in self._running) and time.monotonic() < deadline:
            time.sleep(0.001)
        self._pool.shutdown(wait=True, kill_workers=True)
        self._file.close()


@contextmanager
def _starting_processes() -> Iterator[None]:
    """Keep the processes that start within from the signals that a scheduler sends to all: they inherit the mask.

    Nor do they import what lies in the working directory; PYTHONSAFEPATH sees to that where Python knows it.
    """
    folder = os.getcwd() if sys.version_info < (3, 11) or sys.flags.ignore_environment else None
    former = signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULER_SIGNALS)
    try:
        if folder:
            os.chdir("/")
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        if folder:
            os.chdir(folder)


def begin(parent: int, descriptor: int, places: Places, preload: Sequence[Callable[[], None]]) -> None:
    """Begin a worker: let it end with its parent, map the samples, load what tasks need."""
    end_with_parent()
    if os.getppid() != parent:  # it has died before
        os._exit(1)
    try:
        _samples[:] = [Samples.of_arrays(map_arrays(parent, descriptor, places))]
        for load in preload:
            load()
    except Exception as error:  # loky would take it for a dead worker: the first task raises it instead
        _broken.append(error)


def do(key: str, work: Work) -> Done:
    """Do one task, in a worker."""
    for error in _broken:
        raise error
    return execute(_samples[0], key, work)
