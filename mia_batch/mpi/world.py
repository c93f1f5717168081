"""The world of ranks, or a world of one without MPI; everything else takes it as an argument."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.mpi.launcher import check_size, launched_by_mpi
from mia_batch.mpi.leftovers import remove_left_segments

T = TypeVar("T")
POLL_SECONDS = 0.0005


class World:
    """Ranks that work together; a world of size 1 takes the same path, with or without MPI."""

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm
        self.rank: int = comm.Get_rank() if comm else 0
        self.size: int = comm.Get_size() if comm else 1
        self.host = socket.gethostname()
        hosts = self.allgather(self.host)
        self.n_nodes = len(set(hosts))
        neighbours = [rank for rank, host in enumerate(hosts) if host == self.host]
        self.local_rank, self.local_size = neighbours.index(self.rank), len(neighbours)
        self.local_ranks = tuple(neighbours)

    @property
    def is_root(self) -> bool:
        """Whether this rank writes the files and talks to the user."""
        return self.rank == 0

    def bcast(self, value: T) -> T:
        """The root's value, on every rank."""
        return self._comm.bcast(value, root=0) if self.size > 1 else value

    def allgather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        return self._comm.allgather(value) if self._comm and self._comm.Get_size() > 1 else [value]

    def on_root(self, work: Callable[[], T]) -> T:
        """Do `work` on the root alone; every rank gets its result, or raises its InputError."""
        result: T | None = None
        problem: InputError | None = None
        if self.is_root:
            try:
                result = work()
            except InputError as error:
                problem = error
        result, problem = self.bcast((result, problem))
        if problem:
            raise problem
        return result  # type: ignore[return-value]

    def on_all(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank; if ranks raise an InputError, all raise that of the first of them."""
        problem: InputError | None = None
        try:
            result = work()
        except InputError as error:
            problem = error
        problems = [other for other in self.allgather(problem) if other]
        if problems:
            raise problems[0]
        return result

    def share_headers(self, header: NDArray[np.int64]) -> NDArray[np.int64]:
        """Every rank's header, shape (size, len(header)); waiting ranks leave their core to the others."""
        if self.size == 1:
            return header[np.newaxis]
        headers = np.empty((self.size, len(header)), dtype=np.int64)
        _wait(self._comm.Iallgather(header, headers))
        return headers

    def gather_blocks(self, block: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
        """On the root all ranks' rows, (sum(counts),), in the order of ranks; an empty block elsewhere."""
        if self.size == 1:
            return block
        from mpi4py import MPI

        total = int(counts.sum()) if self.is_root else 0
        gathered = np.empty(total, dtype=block.dtype)
        sizes = [int(count) * block.dtype.itemsize for count in counts]
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
        receive = [gathered.view(np.uint8), sizes, offsets, MPI.BYTE] if self.is_root else None
        _wait(self._comm.Igatherv([block.view(np.uint8), MPI.BYTE], receive, root=0))
        return gathered

    def abort(self, code: int) -> None:
        """End every rank at once: one that only left would have the others wait for it for ever."""
        if self.size > 1:
            self._comm.Abort(code)


def _wait(request: Any) -> None:
    """Wait by polling: a blocking call would spin on the core and keep Python from running signal handlers."""
    while not request.Test():
        time.sleep(POLL_SECONDS)


def connect(environ: Mapping[str, str] = os.environ) -> World:
    """The world of this process: MPI's where a launcher started it, else a world of one without MPI.

    Raises:
        InputError: there is no MPI library, or its world is not the one that the launcher or the scheduler meant.
    """
    if not launched_by_mpi(environ):
        check_size(1, environ)
        return World()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        cause = str(error).splitlines()[0]
        advice = "load the site's module, or install the extra 'cpu'"
        rule = f"the launcher's MPI library must be loadable by mpi4py: {advice}, got: {cause}"
        raise InputError(f"MPI: {rule}") from error
    check_size(MPI.COMM_WORLD.Get_size(), environ, library=MPI.Get_library_version().split("\n")[0].strip())
    world = World(MPI.COMM_WORLD)
    if world.local_rank == 0:
        remove_left_segments()
    return world
