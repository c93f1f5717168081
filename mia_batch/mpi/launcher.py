"""The launchers of ranks, and what they tell their ranks in the environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mia_batch.errors import InputError

# Sizes that launchers tell their ranks, the most specific first. SLURM_STEP_NUM_TASKS counts last: to a rank that
# mpirun starts inside a Slurm step it is the size of the step of mpirun's daemons.
LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
LAUNCHER_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "OMPI_COMM_")  # of variables that make a process take itself for a rank
# Of a rank's or a step's environment; of a job's what says nothing of cores and cards, or of the log.
OF_A_STEP = (*LAUNCHER_PREFIXES, "MPI_LOCAL", "MV2_COMM_", "HYDI_", "PRTE_LAUNCHED", "SLURM_", "SRUN_")
KEPT = (
    "SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE",
    "SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU", "SLURM_GPU_BIND", "SLURM_TRES_BIND",
)
LAUNCHER_SIGNS = (*LAUNCHER_SIZES[:3], "PMIX_RANK", "PMI_RANK", "PMI_FD")
SRUN_PLUGINS = {"Open MPI": "pmix", "MPICH": "pmi2", "Intel": "pmi2"}  # by what the MPI library calls itself
LOCAL_RANKS = (  # (rank, size) on the node, by launcher: Open MPI, MPICH, msrun and others
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_LOCALID", ""),  # Slurm tells the number of tasks on the node for the job, not for the step
)


def launched_by_mpi(environ: Mapping[str, str]) -> bool:
    """Whether a launcher has started this process as a rank."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    return any(sign in environ for sign in LAUNCHER_SIGNS) or (tasks.isdigit() and int(tasks) > 1)


def launched_first(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher calls this process its first: this one speaks for all while MPI does not work."""
    return next((environ[name] for name in LAUNCHER_RANKS if name in environ), "0") == "0"


def _tasks_of_job(launched: int | None, environ: Mapping[str, str]) -> int | None:
    """How many tasks the scheduler gave; None where that cannot be known."""
    # In the step of mpirun's daemons SLURM_NTASKS is their number; slurm/extract.sbatch has noted the job's number.
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
    plugins = (plugin for family, plugin in SRUN_PLUGINS.items() if family in library)
    of_library = f"the launcher and the MPI library ({library.partition(', package')[0]}) do not belong together"
    return f"{of_library}; start with the mpirun of that library, or srun --mpi={next(plugins, '...')}"


def find_mpirun(environ: Mapping[str, str] = os.environ) -> str:
    """The launcher beside this interpreter (PyPI's MPI wheels put it there), else the one on PATH.

    Raises:
        InputError: there is none.
    """
    beside = Path(sys.prefix) / "bin" / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun", path=environ.get("PATH"))
    if not found:
        raise InputError("--ranks: more than 1 needs mpirun: install the extra 'cpu', or load the site's MPI module")
    return found


def own_mpirun(environ: Mapping[str, str] = os.environ) -> str:
    """`find_mpirun` for jobs: what is only found once a job has loaded its modules is plain `mpirun`."""
    try:
        return find_mpirun(environ)
    except InputError:
        return "mpirun"


def stage_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of stages that this process starts on this machine: it is no rank's, and no job step's.

    In a shell of `srun --pty`, in salloc and in notebooks variables of their step are set: a stage would take itself
    for a rank of a world that is not there, and mpirun would ask Slurm for the ranks.

    Raises:
        InputError: a launcher has started several of this process, which would each do the whole work.
    """
    sizes = {name: environ[name] for name in LAUNCHER_SIZES if environ.get(name, "1") not in ("", "0", "1")}
    if sizes:
        got = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(f"mia-batch run: must be started once, and starts its ranks itself (--ranks), got {got}")
    kept = {name: value for name, value in environ.items() if name in KEPT or not name.startswith(OF_A_STEP)}
    return mpi_environment(kept)


def mpirun_command(ranks: int, command: Sequence[str]) -> list[str]:
    """`command` on `ranks` ranks of this machine; one rank needs no launcher."""
    return [find_mpirun(), "-n", str(ranks), *command] if ranks > 1 else list(command)


def mpi_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` with Open MPI's consents: to run as root, and to more ranks than cores. MPICH needs neither."""
    extra = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    if os.geteuid() == 0:
        extra |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**extra, **environ}


def local_place(environ: Mapping[str, str]) -> tuple[int, int]:
    """(rank, size) on this node by the launcher, (0, 1) without one."""
    for names in LOCAL_RANKS:
        rank, size = (environ.get(name, "") for name in names)
        if rank.isdigit():
            return int(rank), int(size) if size.isdigit() else int(rank) + 1
    return 0, 1
