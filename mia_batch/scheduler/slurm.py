"""The only calls of Slurm's commands, but for those by which `mia-batch doctor` tries whether Slurm answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from mia_batch.errors import InputError
from mia_batch.mpi.launcher import LAUNCHER_PREFIXES

FORGOTTEN = "FORGOTTEN"
UNKNOWN = "UNKNOWN"  # Slurm does not answer, or is not on this host
# A job in one of these will do something yet.
ACTIVE = frozenset(
    ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING",
     "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED")
)  # fmt: skip
WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"))  # of ACTIVE
TIMEOUT_S = 60


def without_job(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` without the variables of the job that this process runs in; a job queued here would inherit them."""
    kept, of_a_job = ("SLURM_CONF", "SLURM_CLUSTERS"), ("SLURM_", "SLURMD_", *LAUNCHER_PREFIXES)
    return {name: value for name, value in environ.items() if name in kept or not name.startswith(of_a_job)}


def sbatch(command: Sequence[str]) -> str:
    """Run an sbatch command that has --parsable; returns the job's id.

    Raises:
        InputError: there is no Slurm here, or Slurm refuses the job; with its reason.
    """
    try:
        done = subprocess.run(
            command, text=True, capture_output=True, check=False, timeout=TIMEOUT_S, env=without_job(),
            umask=0o077,  # which the job gets, and the log that Slurm opens for it
        )
    except FileNotFoundError as error:
        raise InputError(f"{command[0]}: must be on PATH: is this a node of a Slurm cluster?") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"sbatch: must answer within {TIMEOUT_S} s: is the controller up (scontrol ping)?") from error
    if done.returncode:
        raise InputError(f"sbatch: must accept the job, got: {' '.join(done.stderr.split())}")
    return done.stdout.strip().split(";")[0]


def scancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs; one that has ended already is left as it is."""
    subprocess.run(["scancel", *job_ids], check=False, capture_output=True)


def job_states(job_ids: Iterable[str]) -> dict[str, str]:
    """State of each job or array task ("12", "12_3"), FORGOTTEN for those that Slurm no longer knows.

    An array's id alone stands for all its tasks: it has the state of one that is active, else of one that failed.

    Raises:
        ConnectionError: Slurm does not answer, so that nothing is known.
    """
    wanted = list(dict.fromkeys(job_ids))
    seen = _squeue(wanted) if wanted else {}
    missing = [job for job in wanted if job not in seen]
    seen |= _sacct(missing) if missing else {}
    return {job: seen.get(job, FORGOTTEN) for job in wanted}


def _ask(command: str, *options: str, jobs: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """What a command says of jobs.

    Raises:
        ConnectionError: the command is not here, or does not answer in time.
    """
    words = [command, "--noheader", *options, f"--jobs={','.join(jobs)}"]
    try:
        return subprocess.run(words, text=True, capture_output=True, check=False, timeout=TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ConnectionError(f"{command} does not answer") from error


def _rows(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """(job, what is said of it) of each line "JOB|TEXT"."""
    return [(job, text) for job, bar, text in (line.partition("|") for line in done.stdout.splitlines()) if bar]


def _squeue(wanted: list[str]) -> dict[str, str]:
    """States from squeue, which knows all jobs of now and those that ended in the last minutes."""
    masters = sorted({job.partition("_")[0] for job in wanted})
    done = _ask("squeue", "--array", "--states=all", "--format=%i|%T", jobs=masters)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ConnectionError(" ".join(done.stderr.split()))
    return _states(_rows(done))


def reasons(job_ids: Iterable[str]) -> dict[str, str]:
    """Why each of these waiting jobs waits, as far as Slurm says: "Dependency", "Resources", "PartitionTimeLimit"."""
    wanted = list(dict.fromkeys(job_ids))
    try:
        rows = _rows(_ask("squeue", "--array", "--format=%i|%r", jobs=wanted)) if wanted else []
    except ConnectionError:
        return {}
    return {job: why for job, why in rows if why not in ("None", "(null)")}


def _sacct(missing: list[str]) -> dict[str, str]:
    """States from Slurm's accounting, where the site has it."""
    try:
        return _states(_rows(_ask("sacct", "--allocations", "--parsable2", "--format=jobid,state", jobs=missing)))
    except ConnectionError:
        return {}


def _states(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The state of each job, and of each array by its tasks' states."""
    states: dict[str, str] = {}
    for job, text in rows:
        state = text.split()[0]  # sacct writes "CANCELLED by 1000"
        states[job] = state
        master = job.partition("_")[0]
        if master != job:
            states[master] = max(states.get(master, state), state, key=_weight)
    return states


def _weight(state: str) -> int:
    return 2 if state in ACTIVE else 0 if state == "COMPLETED" else 1
