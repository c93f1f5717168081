"""The jobs of a run, as its jobs.json remembers them after Slurm has forgotten them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mia_batch import scheduler
from mia_batch.errors import InputError
from mia_batch.paths import RunPaths, write_text


def record(paths: RunPaths, job_ids: Mapping[str, str]) -> None:
    """Note the jobs of a submission in the run directory, by what they do: "extract", "attack lr", "reduce"."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = {"submitted": now, "jobs": dict(job_ids)}
    write_text(paths.jobs, json.dumps({"schema": 1, "submissions": [*submissions(paths), entry]}, indent=1) + "\n")


def submissions(paths: RunPaths) -> list[dict[str, Any]]:
    """What was submitted for a run, oldest first: {"submitted": time, "jobs": {stage: job id}}.

    Raises:
        InputError: jobs.json cannot be read as such.
    """
    try:
        found = list(json.loads(paths.jobs.read_text(encoding="utf-8"))["submissions"])
        return [{**entry, "jobs": {str(stage): str(job) for stage, job in entry["jobs"].items()}} for entry in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{paths.jobs}: must be a record of submitted jobs, got: {error}") from error


def latest_jobs(paths: RunPaths) -> dict[str, str]:
    """The last job id of each stage, of each attack."""
    return {stage: job for entry in submissions(paths) for stage, job in entry["jobs"].items()}


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
