"""Which jobs of a run Slurm still has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mia_batch.errors import InputError
from mia_batch.rundir.jobs import latest_jobs
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import slurm as scheduler


def states_now(jobs: Iterable[str]) -> dict[str, str]:
    """State of each job, asked for at once; UNKNOWN where Slurm does not answer, so that nobody takes it for gone."""
    wanted = list(jobs)
    try:
        return scheduler.job_states(wanted)
    except ConnectionError:
        return dict.fromkeys(wanted, scheduler.UNKNOWN)


def active_jobs(all_paths: Sequence[RunPaths]) -> dict[RunPaths, list[str]]:
    """By run, its jobs that are waiting or running, as "ID STATE".

    Raises:
        InputError: Slurm does not answer.
    """
    jobs = {paths: list(dict.fromkeys(latest_jobs(paths).values())) for paths in all_paths}
    try:
        states = scheduler.job_states(job for ids in jobs.values() for job in ids)
    except ConnectionError as error:
        raise InputError(f"Slurm: must answer whether this run is queued already, got: {error}") from error
    return {
        paths: [f"{job} {states[job]}" for job in ids if states[job] in scheduler.ACTIVE] for paths, ids in jobs.items()
    }


def refuse_active(all_paths: Sequence[RunPaths]) -> None:
    """Raise an InputError if any of the runs has jobs in the queue: two extractions would be in each other's way."""
    problems = [
        f"{paths.root}: --out: must have no jobs in the queue, got {', '.join(active)} (scancel ends them)"
        for paths, active in active_jobs(all_paths).items()
        if active
    ]
    if problems:
        raise InputError(problems)
