"""Workers: one process per core, tasks over pipes, features through one unlinked file.

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
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mia_batch.attacks.tasks import FINAL, Fold, Task

log = logging.getLogger(__name__)

# Read by the numerical libraries when they are loaded: one thread each, because the pool has a process per core.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
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

    def close(self) -> None:
        """End the workers, whatever they are at."""


class Worker:
    """A process that waits for tasks at the other end of a pipe."""

    def __init__(self, memory: int, layout: bytes) -> None:
        self.pipe, theirs = Pipe()
        code = "import sys; from mia_batch.attacks.pool import work; work(*map(int, sys.argv[1:]))"
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
        descriptors = (theirs.fileno(), memory)
        command = [sys.executable, "-c", code, *map(str, descriptors)]
        # In a session of its own: Ctrl-C is for the parent, also while the worker still imports.
        self.process = subprocess.Popen(command, pass_fds=descriptors, env=environment, start_new_session=True)
        theirs.close()
        self.pipe.send_bytes(layout)
        self.task: Task | None = None

    def end(self) -> None:
        """Kill the process."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def work(pipe: int, memory: int) -> None:
    """A worker's whole life. A thread reads the pipe, so that the end of the parent ends a fit at once."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # schedulers send these to all; the parent decides
        signal.signal(signum, signal.SIG_IGN)
    connection, tasks = Connection(pipe), queue.SimpleQueue[Task]()
    data = map_arrays(memory, connection.recv())
    threading.Thread(target=_read, args=(connection, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            outcome: Any = execute(data, task)
        except Exception as error:
            outcome = _portable(error)
        connection.send(outcome)


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

    def __init__(self, data: Data, n_workers: int, directory: str | None = None) -> None:
        """`directory` is where the features' unlinked file takes its space; the run directory rather than /tmp."""
        self.n_workers = n_workers
        self._file, places = store_arrays({name: getattr(data, name) for name in ARRAYS}, directory)
        self._layout = pickle.dumps(places)
        self._attempts: dict[str, int] = {}
        self._workers = [self._new_worker() for _ in range(n_workers)]

    def _new_worker(self) -> Worker:
        return Worker(self._file.fileno(), self._layout)

    def idle(self) -> int:
        return sum(worker.task is None for worker in self._workers)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task = task
        self._attempts[task.key] = self._attempts.get(task.key, 0) + 1
        try:
            worker.pipe.send(task)
        except OSError:  # it has died while idle; `wait` sees that and starts the task again
            log.debug("worker %d is gone", worker.process.pid)

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

    def _replace(self, worker: Worker) -> None:
        """A worker has died: start another one, and its task again."""
        task, code = worker.task, worker.process.wait()
        self._workers[self._workers.index(worker)] = self._new_worker()
        worker.end()
        log.warning("a worker ended with code %d%s", code, f" at {task.key}, which starts again" if task else "")
        if task and self._attempts[task.key] >= MAX_ATTEMPTS:
            hint = "; was its memory too small?" if code == -9 else ""
            raise RuntimeError(f"{task.key}: {MAX_ATTEMPTS} workers ended at it, the last with code {code}{hint}")
        if task:
            self.start(task)

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._file.close()
