"""The engine's tasks on the workers of a Dask scheduler (extra `dask`)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mia_batch.search.tasks import Task
from mia_batch.workers.pool import MAX_ATTEMPTS, Data, Done, execute

log = logging.getLogger(__name__)
LOST = ("cancelled", "lost")


class DaskPool:
    """The workers of a Dask scheduler, on any number of nodes; one that is lost costs the tasks that it was at."""

    def __init__(self, data: Data, scheduler: str) -> None:
        """`scheduler` is an address, tcp://host:port, or the scheduler file that `dask scheduler` writes."""
        self._client = dask_client(scheduler)
        self._client.wait_for_workers(1)
        self.n_workers = sum(self._client.nthreads().values())
        self._source = data
        self._running: dict[Any, Task] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._attempts: dict[str, int] = {}
        self._share()

    def _share(self) -> None:
        """The features travel to every worker once; tasks name them."""
        self._client.wait_for_workers(1)
        self._data = self._client.scatter(self._source, broadcast=True, hash=False)

    def idle(self) -> int:
        self.n_workers = max(1, sum(self._client.nthreads().values()))  # workers come and go
        return 2 * self.n_workers - len(self._running)  # the next task is there when one ends

    def start(self, task: Task) -> None:
        self._attempts[task.key] = self._attempts.get(task.key, 0) + 1
        future = self._client.submit(execute, self._data, task, pure=False, priority=task.urgency)
        self._running[future] = task
        future.add_done_callback(self._ended.put)

    def wait(self, timeout: float) -> list[Done]:
        ended = []
        try:
            ended.append(self._ended.get(timeout=timeout))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return [done for future in ended if (done := self._collect(future)) is not None]

    def _collect(self, future: Any) -> Done | None:
        task = self._running.pop(future, None)
        if task is None:  # given up
            return None
        if future.status in LOST:  # every worker that held the features has gone
            if self._attempts[task.key] >= MAX_ATTEMPTS:
                raise RuntimeError(f"{task.key}: lost with its workers {MAX_ATTEMPTS} times")
            if self._data.status in LOST:
                log.warning("the workers that held the features are gone; sending them again")
                self._share()
            self.start(task)
            return None
        done: Done = future.result()
        return done

    def give_up(self, task: Task) -> None:
        """Cancel it; a worker that is at it already goes on to its end."""
        for future in [future for future, its in self._running.items() if its is task]:
            del self._running[future]
            self._client.cancel([future], force=True)

    def close(self) -> None:
        self._client.cancel(list(self._running), force=True)
        self._client.close()


def dask_client(scheduler: str) -> Any:
    """A client of a running scheduler, given by address or by scheduler file."""
    from dask.distributed import Client

    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    return Client(**where, set_as_default=False)


@contextmanager
def dask_backend(scheduler: str) -> Iterator[None]:
    """joblib's own Dask backend, for scikit-learn's searches."""
    import joblib

    with dask_client(scheduler) as client, joblib.parallel_config(backend="dask", client=client):
        yield
