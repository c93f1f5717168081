"""Slurm's commands: what is asked of them and what they answer. Only `mia-batch doctor` calls others, to try them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from mia_batch.errors import InputError

FORGOTTEN = "FORGOTTEN"
UNKNOWN = "UNKNOWN"  # Slurm does not answer, or is not on this host
# A job in one of these will do something yet.
ACTIVE = frozenset(
    ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING",
     "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED")
)  # fmt: skip
WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"))  # of ACTIVE
TIMEOUT_S = 60


def outside(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` without what an enclosing job has put there: a job queued from within one would inherit its layout."""
    ours = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {
        name: value
        for name, value in environ.items()
        if name in ours or not name.startswith(("SLURM_", "SLURMD_", "PMI_", "PMIX_", "OMPI_COMM_"))
    }


def sbatch(command: Sequence[str]) -> str:
    """Run an sbatch command that has --parsable; returns the job's id.

    Raises:
        InputError: there is no Slurm here, or it refused; with its reason.
    """
    try:
        done = subprocess.run(
            command, text=True, capture_output=True, check=False, timeout=TIMEOUT_S, env=outside(),
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
    """Cancel jobs that this command has queued itself; one that has ended already is none of its business."""
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


def _squeue(wanted: list[str]) -> dict[str, str]:
    """States as squeue knows them: all jobs of now, and those that ended in the last minutes."""
    masters = sorted({job.partition("_")[0] for job in wanted})
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={','.join(masters)}"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ConnectionError("squeue does not answer") from error
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ConnectionError(" ".join(done.stderr.split()))
    return _collect(line.split(None, 1) for line in done.stdout.splitlines() if " " in line)


def reasons(job_ids: Iterable[str]) -> dict[str, str]:
    """Why each of these waiting jobs waits, as far as Slurm says: "Dependency", "Resources", "PartitionTimeLimit"."""
    wanted = list(dict.fromkeys(job_ids))
    if not wanted:
        return {}
    command = ["squeue", "--noheader", "--array", "--format=%i|%r", f"--jobs={','.join(wanted)}"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    found = (line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)
    return {job: why for job, why in found if why not in ("None", "(null)")}


def _sacct(missing: list[str]) -> dict[str, str]:
    """States from Slurm's accounting, where the site has it."""
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=jobid,state"]
    command.append(f"--jobs={','.join(missing)}")
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    return _collect(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)


def _collect(rows: Iterable[Sequence[str]]) -> dict[str, str]:
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
