"""Tasks one after the other in this process."""

from __future__ import annotations

from mia_batch.samples import Samples
from mia_batch.search.tasks import Done, Lost, Work, execute


class SerialExecutor:
    """No process is started: what dies takes this one with it, and a request to stop waits for the task's end."""

    n_workers = 1

    def __init__(self, samples: Samples) -> None:
        """`samples` is what tasks read."""
        self._samples = samples
        self._ended: list[Done | Lost] = []

    def n_free(self) -> int:
        """One, until the result has been taken."""
        return 1 - len(self._ended)

    def submit(self, key: str, work: Work) -> None:
        """Do a task now."""
        self._ended.append(execute(self._samples, key, work))

    def wait(self, timeout: float) -> list[Done | Lost]:
        """The task that was done."""
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """There is nothing to end."""
