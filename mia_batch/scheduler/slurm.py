"""The only calls of Slurm's commands, but for those by which `mia-batch doctor` tries whether Slurm answers."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
TIMED_OUT = -999  # in the place of an exit code
LOOKS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)  # pauses before looking for a job whose sbatch did not answer
MARK = re.compile(r"audit-[0-9a-f]{12}-[0-9a-f]{8}-[a-z]+[0-9]*")
PARSABLE = re.compile(r"\d+(;[\w.-]+)?")  # what --parsable prints, among what a site's wrapper does


def without_job(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` without the variables of the job that this process runs in; a job queued here would inherit them."""
    kept, of_a_job = ("SLURM_CONF", "SLURM_CLUSTERS"), ("SLURM_", "SLURMD_", *LAUNCHER_PREFIXES)
    return {name: value for name, value in environ.items() if name in kept or not name.startswith(of_a_job)}


# -- jobs by name: "12", of an array "12" or "12_3", on another cluster than this host's "12_3;cluster" ----------------


def number(job: str) -> str:
    """A job as Slurm's commands name it on its own cluster."""
    return job.partition(";")[0]


def cluster_of(job: str) -> str:
    """The cluster that a job's name has; "" without one."""
    return job.partition(";")[2]


def task(job: str, index: int) -> str:
    """A task of an array."""
    return f"{number(job)}_{index}{job.removeprefix(number(job))}"


def _named(job: str, cluster: str) -> str:
    return f"{job};{cluster}" if cluster else job


def _by_cluster(jobs: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for job in dict.fromkeys(jobs):
        found.setdefault(cluster_of(job), []).append(number(job))
    return found


def _on(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


# -- queueing ----------------------------------------------------------------------------------------------------------


def new_mark(folder: Path) -> str:
    """What the jobs of one submission carry before their stage, so that they are found again: unique."""
    return f"{mark_of(folder)}{secrets.token_hex(4)}-"


def mark_of(folder: Path) -> str:
    """What the marks of all submissions of a directory begin with."""
    return f"audit-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}-"


def marked(command: Sequence[str], mark: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """An sbatch command whose job carries a mark: in its comment, or in its name where the site's comment has a use."""
    program, *words = command
    if "SBATCH_COMMENT" in environ or any(word.startswith("--comment") for word in words):
        return [program, *(f"{word}-{mark}" if word.startswith("--job-name=") else word for word in words)]
    return [program, f"--comment={mark}", *words]


def sbatch(command: Sequence[str], mark: str) -> str:
    """Run an sbatch command that has --parsable; returns the job's name.

    A site's sbatch may print more than the job, and may end without an answer although the job is queued: then the
    job is looked for by its mark, which no other job has.

    Raises:
        InputError: there is no Slurm here, or Slurm refuses the job; with its reason.
    """
    done = _sbatch(marked(command, mark))
    named = [line for line in map(str.strip, done.stdout.splitlines()) if PARSABLE.fullmatch(line)]
    if done.returncode == 0 and len(named) == 1:
        return named[0]
    slow = done.returncode == TIMED_OUT or "timed out" in done.stderr
    clusters = {cluster_of(name) for name in named} or {""}
    job = _find_marked(mark, clusters, LOOKS_S if slow or done.returncode == 0 else LOOKS_S[:1])
    if job:
        return job
    if slow:
        rule = f"must answer within {TIMEOUT_S} s: is the controller up (scontrol ping)?"
        raise InputError(f"sbatch: {rule} No job of the mark {mark} was found")
    said = " ".join((done.stderr or done.stdout).split())
    raise InputError(f"sbatch: must accept the job{'' if done.returncode else ' and name it'}, got: {said}")


def _sbatch(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        process = subprocess.Popen(
            command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=without_job(), start_new_session=True,
            umask=0o077,  # which the job gets, and the log that Slurm opens for it
        )
    except FileNotFoundError as error:
        raise InputError(f"{command[0]}: must be on PATH: is this a node of a Slurm cluster?") from error
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, TIMED_OUT, "", "")
    finally:
        if process.poll() is None:  # also what a site's wrapper has started: it must queue nothing any more
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _find_marked(mark: str, clusters: Iterable[str], looks_s: Sequence[float]) -> str | None:
    """The job that carries a mark, looked for on each of these clusters after each of these pauses."""
    for pause, cluster in itertools.product(looks_s, clusters):
        time.sleep(pause)
        try:
            found = [each.job for each in marked_jobs(cluster) if each.mark == mark]
        except ConnectionError:
            continue
        if found:
            return found[0]
    return None


@dataclass(frozen=True)
class MarkedJob:
    """A job, or a whole array, that a submission has marked."""

    job: str
    state: str
    mark: str


def marked_jobs(cluster: str = "") -> list[MarkedJob]:
    """All marked jobs of this user on a cluster, also those that have just ended; of an array the state that says most.

    Raises:
        ConnectionError: Slurm does not answer.
    """
    words = ["squeue", "--noheader", *_on(cluster), f"--user={os.getuid()}", "--states=all", "--format=%F|%T %j %k"]
    done = _answer(words)
    if done.returncode:
        raise ConnectionError(" ".join(done.stderr.split()))
    found: dict[str, MarkedJob] = {}
    for job, text in _rows(done):
        state, match = text.split()[0], MARK.search(text)
        if match and (job not in found or _weight(state) > _weight(found[job].state)):
            found[job] = MarkedJob(_named(job, cluster), state, match[0])
    return list(found.values())


def largest_array() -> int | None:
    """The first index that is too high for a task of an array; None where Slurm does not say."""
    try:
        done = _answer(["scontrol", "show", "config"])
    except ConnectionError:
        return None
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(match[1]) if match and int(match[1]) else None


def scancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs; one that has ended already is left as it is."""
    for cluster, jobs in _by_cluster(job_ids).items():
        subprocess.run(["scancel", *_on(cluster), *jobs], check=False, capture_output=True)


# -- asking ------------------------------------------------------------------------------------------------------------


def job_states(job_ids: Iterable[str]) -> dict[str, str]:
    """State of each job or array task ("12", "12_3"), FORGOTTEN for those that Slurm no longer knows.

    An array's id alone stands for all its tasks: it has the state of one that is active, else of one that failed.

    Raises:
        ConnectionError: Slurm does not answer, so that nothing is known.
    """
    found: dict[str, str] = {}
    for cluster, wanted in _by_cluster(job_ids).items():
        seen = _squeue(wanted, cluster)
        missing = [job for job in wanted if job not in seen]
        seen |= _sacct(missing, cluster) if missing else {}
        found |= {_named(job, cluster): seen.get(job, FORGOTTEN) for job in wanted}
    return found


def _answer(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What a command says.

    Raises:
        ConnectionError: the command is not here, or does not answer in time.
    """
    try:
        return subprocess.run(words, text=True, capture_output=True, check=False, timeout=TIMEOUT_S)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ConnectionError(f"{words[0]} does not answer") from error


def _ask(command: str, *options: str, jobs: Iterable[str], cluster: str) -> subprocess.CompletedProcess[str]:
    """What a command says of jobs.

    Raises:
        ConnectionError: as of `_answer`.
    """
    return _answer([command, "--noheader", *_on(cluster), *options, f"--jobs={','.join(jobs)}"])


def _rows(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """(job, what is said of it) of each line "JOB|TEXT"."""
    return [(job, text) for job, bar, text in (line.partition("|") for line in done.stdout.splitlines()) if bar]


def _squeue(wanted: list[str], cluster: str) -> dict[str, str]:
    """States from squeue, which knows all jobs of now and those that ended in the last minutes."""
    masters = sorted({job.partition("_")[0] for job in wanted})
    done = _ask("squeue", "--array", "--states=all", "--format=%i|%T", jobs=masters, cluster=cluster)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ConnectionError(" ".join(done.stderr.split()))
    return _states(_rows(done))


def reasons(job_ids: Iterable[str]) -> dict[str, str]:
    """Why each of these waiting jobs waits, as far as Slurm says: "Dependency", "Resources", "PartitionTimeLimit"."""
    found: dict[str, str] = {}
    for cluster, wanted in _by_cluster(job_ids).items():
        try:
            rows = _rows(_ask("squeue", "--array", "--format=%i|%r", jobs=wanted, cluster=cluster))
        except ConnectionError:
            continue
        found |= {_named(job, cluster): why for job, why in rows if why not in ("None", "(null)")}
    return found


def _sacct(missing: list[str], cluster: str) -> dict[str, str]:
    """States from Slurm's accounting, where the site has it."""
    try:
        options = ("--allocations", "--parsable2", "--format=jobid,state")
        return _states(_rows(_ask("sacct", *options, jobs=missing, cluster=cluster)))
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
