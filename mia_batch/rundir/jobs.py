"""jobs.json: the jobs of a run, also after Slurm has forgotten them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from mia_batch import json_text
from mia_batch.errors import InputError
from mia_batch.files import write_text
from mia_batch.rundir.paths import RunPaths

PART = re.compile(r" \d+$")  # of a stage's name: a job of "references 2" does some of the stage's tasks


def record(paths: RunPaths, job_ids: Mapping[str, str]) -> None:
    """Note the jobs of a submission in the run directory, by what they do: "extract", "attack lr", "reduce"."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = {"submitted": now, "jobs": dict(job_ids)}
    write_text(paths.jobs, json_text.written({"schema": 1, "submissions": [*submissions(paths), entry]}))


def forget_last(paths: RunPaths) -> None:
    """Undo the last `record`."""
    kept = submissions(paths)[:-1]
    if kept:
        write_text(paths.jobs, json_text.written({"schema": 1, "submissions": kept}))
    else:
        paths.jobs.unlink(missing_ok=True)


def submissions(paths: RunPaths) -> list[dict[str, Any]]:
    """What was submitted for a run, oldest first: {"submitted": time, "jobs": {stage: job id}}.

    Raises:
        InputError: jobs.json cannot be read.
    """
    try:
        found = list(json_text.read(paths.jobs)["submissions"])
        return [{**entry, "jobs": {str(stage): str(job) for stage, job in entry["jobs"].items()}} for entry in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{paths.jobs}: must be a record of submitted jobs, got: {error}") from error


def latest_jobs(paths: RunPaths) -> dict[str, str]:
    """The last job id of each stage and of each attack."""
    return {stage: job for entry in submissions(paths) for stage, job in entry["jobs"].items()}


def stage_jobs(paths: RunPaths) -> dict[str, list[str]]:
    """The jobs that the last submission of each stage, or attack, has for it: several, where its arrays were."""
    found: dict[str, list[str]] = {}
    for entry in submissions(paths):
        own: dict[str, list[str]] = {}
        for name, job in entry["jobs"].items():
            own.setdefault(PART.sub("", name), []).append(job)
        found |= own
    return found
