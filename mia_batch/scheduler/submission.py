"""Audits as Slurm jobs that wait for each other: for one checkpoint or for many."""

from __future__ import annotations

import glob
import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mia_batch.data.prepared import Prepared, is_worth_it
from mia_batch.errors import InputError
from mia_batch.files import sha256, write_text
from mia_batch.rundir.features import features_progress
from mia_batch.rundir.jobs import latest_jobs, record
from mia_batch.rundir.manifest import check_same_run, claim
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import slurm as scheduler
from mia_batch.scheduler.queue import refuse_active, states_now
from mia_batch.scheduler.sbatch_commands import Request, Step, plan_chain
from mia_batch.scheduler.site import STAGES, Site
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config
from mia_batch.stages.plan import make_plan


@dataclass(frozen=True)
class Run:
    """One audit: a checkpoint and the directory of its results."""

    checkpoint: Path
    paths: RunPaths


@dataclass(frozen=True)
class Submission:
    """What was queued: the steps and their jobs' ids by stage; no ids after a dry run."""

    steps: Sequence[Step]
    job_ids: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def queued(steps: Sequence[Step]) -> Iterator[dict[str, str]]:
    """Submit the jobs and yield their ids by stage, to be noted: all of them are queued, or none.

    Raises:
        InputError: Slurm refused one; those queued before it are cancelled, as all are if the block fails.
    """
    job_ids: dict[str, str] = {}
    try:
        for step in steps:
            job_ids[step.stage] = scheduler.sbatch(step.command(job_ids))
        yield job_ids
    except BaseException:
        if job_ids:
            subprocess.run(["scancel", *job_ids.values()], check=False, capture_output=True)
        raise


def submit_run(
    config: Config, out: Path, site: Site, *, words: Sequence[str] = (), dry_run: bool = False
) -> Submission:
    """What is still to be done of one run, as jobs; queued and recorded in its jobs.json unless `dry_run`.

    Raises:
        InputError: the directory holds another run, or one whose jobs are still queued.
    """
    paths = RunPaths(out)
    _refuse_unusable(paths)
    manifest = make_plan(config).manifest
    stages, methods = left_to_do(paths, config)
    steps = plan_chain(Request(config.path, paths.root, site, tuple(words), stages, methods))
    if dry_run:
        return Submission(steps)
    claim(paths, manifest)
    refuse_active([paths])
    paths.logs.mkdir(exist_ok=True)
    with queued(steps) as job_ids:
        attacks = {f"attack {name}": f"{job_ids['attack']}_{task}" for task, name in enumerate(methods)}
        record(paths, {stage: job for stage, job in job_ids.items() if stage != "attack"} | attacks)
    return Submission(steps, job_ids)


def left_to_do(paths: RunPaths, config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages that are not done, and the attacks that are not."""
    rows = features_progress(paths.features)
    methods = tuple(m.method for m in config.attack.methods if not paths.attack(m.method).exists())
    if rows is None or rows[0] < rows[1]:
        return STAGES, methods or tuple(m.method for m in config.attack.methods)
    return (("attack", "reduce") if methods else ("reduce",)), methods


def _refuse_unusable(paths: RunPaths) -> None:
    if "\\" in str(paths.root):
        raise InputError(f"{paths.root}: --out: must have no backslash, which Slurm strips from the names of logs")


def find_checkpoints(patterns: Iterable[str]) -> list[Path]:
    """Files by name or glob, sorted within each pattern, each once.

    Raises:
        InputError: with a line for each pattern that no file matches.
    """
    found: dict[Path, None] = {}
    problems = []
    for pattern in patterns:
        names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not names:
            problems.append(f"--checkpoints: must match a file, got {pattern}")
        found |= dict.fromkeys(Path(name).absolute() for name in names)
    if problems:
        raise InputError(problems)
    return list(found)


def name_runs(checkpoints: Sequence[Path], out: Path) -> list[Run]:
    """A directory in `out` for each, named after the file; files of one name get a part of their path's hash too."""
    stems = Counter(path.stem for path in checkpoints)

    def name(path: Path) -> str:
        return path.stem if stems[path.stem] == 1 else f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"

    return [Run(path, RunPaths(out / name(path))) for path in checkpoints]


def submit_runs(
    config_file: Path, runs: Sequence[Run], out: Path, site: Site, *, dry_run: bool = False
) -> Submission:
    """Queue many audits as one array per stage; in each, a task that fails takes only its own successors with it.

    Raises:
        InputError: with every run that cannot be queued; then none is.
    """
    _refuse_unusable(RunPaths(out))
    configs = [load_config(config_file, checkpoint=run.checkpoint) for run in runs]
    manifests = _manifests(configs)
    array = out / ".arrays" / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}"
    stages = max((left_to_do(run.paths, config)[0] for run, config in zip(runs, configs, strict=True)), key=len)
    prepared = array if "extract" in stages and is_worth_it(configs[0].data) else None
    request = Request(
        config_file.absolute(), out, site, (f"list={array / 'list'}",), (("prepare",) if prepared else ()) + stages,
        n_tasks=len(runs), prepared=prepared,
    )  # fmt: skip
    steps = plan_chain(request)
    if dry_run:
        return Submission(steps)
    _claim_all(runs, manifests)
    remove_old_data(out)
    _write_list(array / "list", runs)
    (out / "logs").mkdir(exist_ok=True)
    with queued(steps) as job_ids:
        record(RunPaths(array), job_ids)
        for task, (run, config) in enumerate(zip(runs, configs, strict=True)):
            record(run.paths, _jobs_of_task(job_ids, task, config))
    return Submission(steps, job_ids)


def _claim_all(runs: Sequence[Run], manifests: Sequence[Mapping[str, Any]]) -> None:
    problems: list[str] = []
    for run, manifest in zip(runs, manifests, strict=True):
        try:
            claim(run.paths, manifest)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    refuse_active([run.paths for run in runs])


def _jobs_of_task(job_ids: Mapping[str, str], task: int, config: Config) -> dict[str, str]:
    """The jobs of one run of an array, by what they do; one task of the array does all its attacks."""
    jobs = {stage: job if stage == "prepare" else f"{job}_{task}" for stage, job in job_ids.items()}
    attack = jobs.pop("attack", None)  # none where only reduce was left to do
    return jobs | ({f"attack {method.method}": attack for method in config.attack.methods} if attack else {})


def _manifests(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Each run's manifest; the data, which all share, is read once."""
    shared = make_plan(configs[0], whole_checkpoint=False).manifest
    return [
        {
            **shared,
            "config": config.resolved(),
            "digests": {**shared["digests"], "model.checkpoint": sha256(config.model.checkpoint)},
        }
        for config in configs
    ]


def _write_list(listing: Path, runs: Sequence[Run]) -> None:
    """Checkpoint and directory of each run, all ended by NUL, which alone no path can hold."""
    listing.parent.mkdir(parents=True, exist_ok=True)
    write_text(listing, "".join(f"{run.checkpoint}\0{run.paths.root}\0" for run in runs))


def remove_old_data(out: Path) -> None:
    """Remove the prepared images of arrays below `out` that have ended."""
    arrays = [RunPaths(jobs.parent) for jobs in out.glob(".arrays/*/jobs.json")]
    images = {paths: Prepared(paths.root).images for paths in arrays}
    jobs = {paths: list(latest_jobs(paths).values()) for paths in arrays if images[paths].exists()}
    states = states_now(job for ids in jobs.values() for job in ids)
    for paths, ids in jobs.items():
        if not {states[job] for job in ids} & (scheduler.ACTIVE | {scheduler.UNKNOWN}):
            images[paths].unlink(missing_ok=True)


def still_to_do(config_file: Path, runs: Sequence[Run]) -> list[Run]:
    """The runs without a verdict, or without one of the results that it is of.

    Raises:
        InputError: a verdict is of another config, or of what the checkpoint was before.
    """
    left = []
    problems: list[str] = []
    for run in runs:
        config = load_config(config_file, checkpoint=run.checkpoint)
        if not run.paths.summary_json.exists() or left_to_do(run.paths, config)[0] != ("reduce",):
            left.append(run)
            continue
        try:
            check_same_run(run.paths, config, checkpoint=True)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return left
