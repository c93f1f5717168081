"""Workers: one process per core, forked from one server, tasks over pipes, features through one unlinked file.

joblib's own pool is not used for the engine, for two reasons. It takes its tasks as one fixed list, so that a final fit
would wait for the last search of all methods; and after kill -9 its named semaphores stay in /dev/shm and its workers
stay alive. Here nothing has a name: the features' file is unlinked before it is filled, a worker whose parent dies sees
its pipe close and exits, and a worker that dies costs the one task that it was at.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mia_batch.search.tasks import FINAL, Fold, Task
from mia_batch.workers.forkserver import ForkServer

log = logging.getLogger(__name__)
ARRAYS = ("X_fit", "y_fit", "X_eval", "fold_of")
MAX_ATTEMPTS = 3
PAGE = 4096


@dataclass
class Data:
    """What every task reads: the rows that fit, in the order of the folds, and the rows that score."""

    X_fit: NDArray[np.float64]  # (n_fit, n_features)
    y_fit: NDArray[np.int8]  # (n_fit,)
    X_eval: NDArray[np.float64]  # (n_eval, n_features)
    fold_of: NDArray[np.int32]  # (n_fit,) the fold that each row validates

    def __post_init__(self) -> None:
        # A network hands arrays over at any byte; numpy computes on such ones by other loops, to other last bits.
        self.X_fit, self.X_eval = (np.require(X, requirements=("C", "A")) for X in (self.X_fit, self.X_eval))
        self._fold: tuple[int, Fold] | None = None

    def fold(self, number: int) -> Fold:
        """Rows of one fold, copied out; the last one is kept for the next task."""
        if self._fold is None or self._fold[0] != number:
            self._fold = None  # before the next one takes its place in memory
            validates = self.fold_of == number
            parts = (self.X_fit[~validates], self.y_fit[~validates], self.X_fit[validates], self.y_fit[validates])
            self._fold = number, Fold(*parts)
        return self._fold[1]

    def __reduce__(self) -> Any:  # the kept fold stays here
        return Data, tuple(np.asarray(getattr(self, name)) for name in ARRAYS)


@dataclass(frozen=True)
class Done:
    """A task that has ended."""

    task: Task
    result: Any
    started: float  # seconds since the epoch, by the worker's clock
    seconds: float
    cpu_seconds: float


def execute(data: Data, task: Task) -> Done:
    """Do one task in this process, on one thread."""
    started, clock, cpu = time.time(), time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        result = task.work.run(data if task.fold == FINAL else data.fold(task.fold), task.piece)
    return Done(task, result, started, time.perf_counter() - clock, time.process_time() - cpu)


class Pool(Protocol):
    """Workers that take one task at a time."""

    n_workers: int

    def idle(self) -> int:
        """How many more tasks may be started."""

    def start(self, task: Task) -> None:
        """Give a task to an idle worker."""

    def wait(self, timeout: float) -> list[Done]:
        """Tasks that have ended; empty if none does within `timeout` seconds. Raises what a task raised."""

    def give_up(self, task: Task) -> None:
        """A started task's result is not wanted any more."""

    def close(self) -> None:
        """End the workers, whatever they are at."""


@dataclass
class Worker:
    """A process that waits for tasks at the other end of a pipe."""

    pipe: Connection
    server: ForkServer
    number: int  # by which the server knows it
    task: Task | None = None

    def end(self, *, kill: bool) -> int | None:
        """Kill it or wait for its end; returns the exit code, None if the server cannot say."""
        self.pipe.close()
        try:
            return self.server.exit_code(self.number, kill=kill)
        except (EOFError, OSError):
            return None


def work(connection: Connection, arrays: tuple[int, list[tuple[Any, ...]]]) -> None:
    """A worker's whole life. A thread reads the pipe, so that the end of the parent ends a fit at once."""
    tasks = queue.SimpleQueue[Task]()
    data = map_arrays(*arrays)
    threading.Thread(target=_read, args=(connection, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            outcome: Any = execute(data, task)
        except Exception as error:
            outcome = _portable(error)
        try:
            connection.send(outcome)
        except OSError:  # the parent is gone, or has given this worker up
            os._exit(0)


def _read(connection: Connection, tasks: queue.SimpleQueue[Task]) -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


@dataclass(frozen=True)
class Failure:
    """What a task raised, and where."""

    error: Exception
    trace: str


def _portable(error: Exception) -> Failure:
    """The error, as text if it cannot be pickled."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(str(error))
    return Failure(error, trace)


def store_arrays(arrays: Mapping[str, NDArray[Any]], directory: str | None) -> tuple[Any, list[tuple[Any, ...]]]:
    """Put arrays into a file that has no name any more; returns it and where each array lies in it."""
    file: Any = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  (lives as long as the pool)
    layout = []
    for name, array in arrays.items():
        start = -(-file.tell() // PAGE) * PAGE
        file.seek(start)
        np.ascontiguousarray(array).tofile(file)
        layout.append((name, array.dtype.str, array.shape, start))
    file.flush()
    return file, layout


def map_arrays(descriptor: int, places: list[tuple[Any, ...]]) -> Data:
    """The arrays of `store_arrays`, mapped read-only."""
    file = os.fdopen(descriptor, "rb", closefd=False)
    arrays = {
        name: np.memmap(file, dtype, "r", offset=start, shape=shape) for name, dtype, shape, start in places
    }
    return Data(**arrays)


class LocalPool:
    """One worker process per core of this machine."""

    def __init__(
        self, data: Data, n_workers: int, directory: str | None = None, preload: Iterable[Callable[[], None]] = ()
    ) -> None:
        """Start the workers.

        Args:
            data: what tasks read.
            n_workers: processes.
            directory: where the features' unlinked file takes its space; the run directory rather than /tmp.
            preload: functions that load what tasks need, called once for all workers.
        """
        self.n_workers = n_workers
        self._file, self._places = store_arrays({name: getattr(data, name) for name in ARRAYS}, directory)
        self._preload = list(preload)
        self._attempts: dict[str, int] = {}
        self._servers: list[ForkServer] = []
        self._workers = self._new_workers(n_workers)

    def _new_workers(self, n: int) -> list[Worker]:
        """Forked from the last server, or from a new one if that has died."""
        for server in self._servers[-1:]:
            first = server.n_forked
            try:
                return [Worker(pipe, server, first + i) for i, pipe in enumerate(server.fork(n))]
            except OSError:
                log.warning("the process that workers are forked from has ended with code %d", server.wait())
        if len(self._servers) == MAX_ATTEMPTS:
            raise RuntimeError(f"{MAX_ATTEMPTS} processes that workers are forked from have ended")
        descriptor = self._file.fileno()
        self._servers.append(ForkServer(work, (descriptor, self._places), self._preload, keep=(descriptor,)))
        return self._new_workers(n)

    def _put_new(self, worker: Worker) -> None:
        """A new worker in the place of one that has ended."""
        (self._workers[self._workers.index(worker)],) = self._new_workers(1)

    def idle(self) -> int:
        return sum(worker.task is None for worker in self._workers)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task = task
        self._attempts[task.key] = self._attempts.get(task.key, 0) + 1
        try:
            worker.pipe.send(task)
        except OSError:  # it has died while idle; `wait` sees that and starts the task again
            log.debug("worker %d is gone", worker.number)

    def wait(self, timeout: float) -> list[Done]:
        ended = []
        for pipe in wait([worker.pipe for worker in self._workers], timeout):
            worker = next(worker for worker in self._workers if worker.pipe is pipe)
            try:
                outcome = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if isinstance(outcome, Failure):
                raise outcome.error from RuntimeError(f"in a worker:\n{outcome.trace}")
            worker.task = None
            ended.append(outcome)
        return ended

    def give_up(self, task: Task) -> None:
        """Kill the worker that is at it; a new one takes its place."""
        for worker in [worker for worker in self._workers if worker.task is task]:
            worker.end(kill=True)
            self._put_new(worker)

    def _replace(self, worker: Worker) -> None:
        """A worker has died: start another one, and its task again."""
        task, code = worker.task, worker.end(kill=False)
        self._put_new(worker)
        log.warning("a worker ended with code %s%s", code, f" at {task.key}, which starts again" if task else "")
        if task and self._attempts[task.key] >= MAX_ATTEMPTS:
            hint = "; was its memory too small?" if code == -9 else ""
            raise RuntimeError(f"{task.key}: {MAX_ATTEMPTS} workers ended at it, the last with code {code}{hint}")
        if task:
            self.start(task)

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for server in self._servers:
            server.close()
        self._file.close()
