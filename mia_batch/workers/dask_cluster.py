"""Tasks on the workers of a Dask scheduler (extra `dask`)."""

from __future__ import annotations

import logging
import queue
from concurrent.futures import CancelledError
from typing import Any

from mia_batch.samples import Samples
from mia_batch.search.tasks import Done, Lost, Work, execute

log = logging.getLogger(__name__)

LOST = ("cancelled", "lost")


class DaskExecutor:
    """The workers of a Dask scheduler, on any number of nodes; a lost worker costs the tasks that it did."""

    def __init__(self, samples: Samples, scheduler: str) -> None:
        """`scheduler` is an address, tcp://host:port, or the scheduler file that `dask scheduler` writes."""
        from dask.distributed import Client

        where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
        self._client = Client(**where, set_as_default=False)
        self._samples = samples
        self._running: dict[Any, str] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._share()
        self.n_workers = sum(self._client.nthreads().values())

    def _share(self) -> None:
        """Send the samples to every worker, once for all tasks."""
        self._client.wait_for_workers(1)
        self._data = self._client.scatter(self._samples, broadcast=True, hash=False)

    def n_free(self) -> int:
        """Two tasks a worker, so that the next is there when one ends. Workers come and go."""
        self.n_workers = max(1, sum(self._client.nthreads().values()))
        return 2 * self.n_workers - len(self._running)

    def submit(self, key: str, work: Work) -> None:
        """Send a task, and before it the samples again if the workers that held them have gone."""
        if self._data.status in LOST:
            log.warning("the workers that held the features are gone; sending them again")
            self._share()
        future = self._client.submit(execute, self._data, key, work, pure=False)
        self._running[future] = key
        future.add_done_callback(self._ended.put)

    def wait(self, timeout: float) -> list[Done | Lost]:
        """Tasks that have ended, and tasks that were lost with their workers."""
        ended = []
        try:
            ended.append(self._ended.get(timeout=timeout))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return [self._outcome(future, self._running.pop(future)) for future in ended]

    def _outcome(self, future: Any, key: str) -> Done | Lost:
        """What came of a task; a result may be lost with its worker after the task has ended."""
        from dask.distributed import KilledWorker

        try:
            done: Done = future.result()
            return done
        except CancelledError:
            return Lost(key, "its workers have gone")
        except KilledWorker as error:  # Dask has tried it on several
            return Lost(key, str(error).splitlines()[0])

    def close(self) -> None:
        """Cancel what runs; the workers go on."""
        self._client.cancel(list(self._running), force=True)
        self._client.close()
