"""Which jobs of a run Slurm still has, and what Slurm says of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from mia_batch.errors import InputError
from mia_batch.rundir.explanation import explained
from mia_batch.rundir.jobs import latest_jobs, stage_jobs, submissions
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import JobState, StageStatus, read_state, with_jobs
from mia_batch.scheduler import slurm as scheduler

log = logging.getLogger(__name__)

WEIGHTS = ("running", "queued", "failed", "")  # of a stage's jobs, which one says what the stage is
SAID = {scheduler.FORGOTTEN: "forgotten by Slurm", scheduler.UNKNOWN: "unknown: Slurm does not answer"}


def states_now(jobs: Iterable[str]) -> dict[str, str]:
    """State of each job; UNKNOWN where Slurm does not answer, so that nobody takes a job for gone."""
    wanted = list(jobs)
    try:
        return scheduler.job_states(wanted)
    except ConnectionError:
        return dict.fromkeys(wanted, scheduler.UNKNOWN)


def jobs_now(wanted: Mapping[RunPaths, Mapping[str, Sequence[str]]]) -> dict[RunPaths, dict[str, JobState]]:
    """What Slurm says of each stage's jobs, by run; Slurm is asked once for all."""
    states = states_now(job for jobs in wanted.values() for own in jobs.values() for job in own)
    why = scheduler.reasons(job for job, state in states.items() if state in scheduler.WAITING)

    def said(job: str) -> str:
        return f"{job} {SAID.get(states[job], states[job])}" + (f" ({why[job]})" if job in why else "")

    def together(jobs: Sequence[str]) -> JobState:
        first = sorted(jobs, key=lambda job: WEIGHTS.index(_stage_state(states[job])))  # whose log is looked at
        return JobState(", ".join(map(said, first)), _stage_state(states[first[0]]))

    return {paths: {stage: together(own) for stage, own in jobs.items()} for paths, jobs in wanted.items()}


def _stage_state(state: str) -> str:
    if state in scheduler.ACTIVE:
        return "queued" if state in scheduler.WAITING else "running"
    return "" if state in (scheduler.FORGOTTEN, scheduler.UNKNOWN, "COMPLETED") else "failed"


def statuses(runs: Sequence[RunPaths]) -> list[list[StageStatus]]:
    """The stages of each run in order, the attacks one by one; Slurm is asked once, for all that is not done."""
    by_files = {paths: read_state(paths) for paths in runs}
    jobs = jobs_now({paths: _jobs(paths, stages) for paths, stages in by_files.items()})
    return [explained(paths, with_jobs(stages, jobs[paths])) for paths, stages in by_files.items()]


def _jobs(paths: RunPaths, stages: Sequence[StageStatus]) -> dict[str, list[str]]:
    """The last jobs of the stages that are not done."""
    try:
        jobs = stage_jobs(paths)
    except InputError as error:  # what the files say is still true
        log.warning("%s", error)
        return {}
    return {each.stage: jobs[each.stage] for each in stages if each.state != "done" and each.stage in jobs}


def active_jobs(all_paths: Sequence[RunPaths]) -> dict[RunPaths, list[str]]:
    """The jobs of each run that wait or run, as "ID STATE".

    Raises:
        InputError: Slurm does not answer.
    """
    jobs = {paths: list(dict.fromkeys(latest_jobs(paths).values())) for paths in all_paths}
    try:
        states = scheduler.job_states(job for ids in jobs.values() for job in ids)
    except ConnectionError as error:
        raise InputError(f"Slurm: must answer whether this run is queued already, got: {error}") from error
    active = {job: f"{job} {state}" for job, state in states.items() if state in scheduler.ACTIVE}
    return {paths: [active[job] for job in ids if job in active] for paths, ids in jobs.items()}


def unrecorded_jobs(all_paths: Sequence[RunPaths]) -> dict[RunPaths, list[str]]:
    """Jobs of each run that wait or run and that it does not know, as "ID STATE": a submit was killed meanwhile.

    Raises:
        InputError: Slurm does not answer.
    """
    try:
        jobs = [each for each in scheduler.marked_jobs() if each.state in scheduler.ACTIVE]
    except ConnectionError as error:
        raise InputError(f"Slurm: must answer whether this run is queued already, got: {error}") from error
    found: dict[RunPaths, list[str]] = {}
    for paths in all_paths:
        recorded = (job for each in submissions(paths) for job in each["jobs"].values())
        known, mark = {scheduler.number(job).partition("_")[0] for job in recorded}, scheduler.mark_of(paths.root)
        own = [each for each in jobs if each.mark.startswith(mark) and scheduler.number(each.job) not in known]
        found[paths] = [f"{each.job} {each.state}" for each in own]
    return found


def refuse_active(all_paths: Sequence[RunPaths]) -> None:
    """Raise an InputError if any run has jobs in the queue: two extractions would be in each other's way."""
    unrecorded = unrecorded_jobs(all_paths)
    problems = [
        f"{paths.root}: --out: must have no jobs in the queue, got {', '.join(active)} (scancel ends them)"
        for paths, known in active_jobs(all_paths).items() if (active := known + unrecorded[paths])
    ]
    if problems:
        raise InputError(problems)


def cancel_marked(mark: str, job_ids: Iterable[str]) -> None:
    """Cancel these jobs, and all of a submission's mark: one may have been queued without an answer."""
    scheduler.scancel(job_ids)
    try:
        scheduler.scancel(each.job for each in scheduler.marked_jobs() if each.mark.startswith(mark))
    except ConnectionError as error:
        log.warning("jobs marked %s may be left in the queue: %s", mark, error)
