"""MPI edge: the world of ranks, or a world of one without MPI; everything else takes it as an argument."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError

T = TypeVar("T")

POLL_SECONDS = 0.0005
# Sizes that launchers tell their ranks, the most specific first. A rank started by mpirun inside a Slurm step sees
# the size of the step that runs mpirun's daemons in SLURM_STEP_NUM_TASKS, so that one counts last.
LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
LAUNCHER_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")
LAUNCHER_MARKS = (*LAUNCHER_SIZES[:3], "PMIX_RANK", "PMI_RANK", "PMI_FD")


class World:
    """Ranks that work together. Size 1 takes the same path, with or without MPI underneath."""

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
        """Do `work` on the root alone; its result, or its InputError, reaches every rank."""
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
        """Do `work` on every rank; if it is an InputError on any, all raise the first rank's."""
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
        total = int(counts.sum()) if self.is_root else 0
        gathered = np.empty(total, dtype=block.dtype)
        sizes = [int(count) * block.dtype.itemsize for count in counts]
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
        receive = [gathered.view(np.uint8), sizes, offsets, self._byte] if self.is_root else None
        _wait(self._comm.Igatherv([block.view(np.uint8), self._byte], receive, root=0))
        return gathered

    @property
    def _byte(self) -> Any:
        from mpi4py import MPI

        return MPI.BYTE

    def abort(self, code: int) -> None:
        """End every rank at once: one that only left would have the others wait for it for ever."""
        if self.size > 1:
            self._comm.Abort(code)


def _wait(request: Any) -> None:
    """Wait by polling: a blocking call would spin on the core and keep Python from running signal handlers."""
    while not request.Test():
        time.sleep(POLL_SECONDS)


def launched_by_mpi(environ: Mapping[str, str]) -> bool:
    """Whether a launcher has started this process as a rank."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    return any(mark in environ for mark in LAUNCHER_MARKS) or (tasks.isdigit() and int(tasks) > 1)


def launched_first(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher calls this process its first, so that what all would say of MPI itself is said once."""
    return next((environ[name] for name in LAUNCHER_RANKS if name in environ), "0") == "0"


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
    return World(MPI.COMM_WORLD)


def _tasks_of_job(launched: int | None, environ: Mapping[str, str]) -> int | None:
    """How many tasks the scheduler gave, where that can be known."""
    # In the step of mpirun's daemons SLURM_NTASKS is their number: slurm/extract.sbatch has noted the job's before.
    daemons = launched is not None and environ.get("SLURM_STEP_NUM_TASKS", str(launched)) != str(launched)
    told = environ.get("MIA_BATCH_RANKS") or ("" if daemons else environ.get("SLURM_NTASKS", ""))
    return int(told) if told.isdigit() else None


def check_size(size: int, environ: Mapping[str, str], *, library: str = "") -> None:
    """Refuse a world whose size is not the launcher's or the scheduler's: N ranks would each do the whole work.

    Raises:
        InputError: naming both sizes, the likely cause and what to change.
    """
    expected = next(((name, int(environ[name])) for name in LAUNCHER_SIZES if environ.get(name, "").isdigit()), None)
    tasks = _tasks_of_job(expected[1] if expected else None, environ)
    if tasks is not None and (expected is None or expected[1] == size):
        expected = "SLURM_NTASKS", tasks
    if expected is None or expected[1] == size:
        return
    name, meant = expected
    raise InputError(f"MPI: the world must have {name}={meant} ranks, got {size}: {_cause(size, library)}")


def _cause(size: int, library: str) -> str:
    if size > 1:
        return "start as many ranks as the scheduler gave tasks, or ask for that many (sbatch --ntasks)"
    if not library:
        return "no launcher has started this process; put mpirun, srun --mpi=pmi2 or srun --mpi=pmix before python"
    flags = {"Open MPI": "srun --mpi=pmix", "MPICH": "srun --mpi=pmi2"}
    flag = next((flag for family, flag in flags.items() if family in library), "the srun --mpi=... it was built for")
    of_library = f"the launcher and the MPI library ({library.partition(', package')[0]}) do not belong together"
    return f"{of_library}; start with the mpirun of that library, or {flag}"
