"""Queue audits as Slurm jobs that wait for each other, for one checkpoint or for many."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from mia_batch.attacks.base import BLIND
from mia_batch.data.prepared import Prepared, is_worth_it
from mia_batch.errors import InputError
from mia_batch.files import sha256, write_text
from mia_batch.network.checkpoint_bytes import check_whole
from mia_batch.network.checkpoint_origin import origin_of
from mia_batch.rundir.claim import audited_files, claim, in_force, in_force_with
from mia_batch.rundir.jobs import latest_jobs, record
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.reference_files import reference_digests
from mia_batch.rundir.state import ON_RANKS, SHADOWS, left_to_do, read_rows, read_state
from mia_batch.scheduler import slurm as scheduler
from mia_batch.scheduler.queue import cancel_marked, refuse_active, states_now
from mia_batch.scheduler.sbatch_commands import FOR_ALL, Request, Step, part_name, plan_chain, stage_of
from mia_batch.scheduler.site import STAGES, Site
from mia_batch.scheduler.variables import exported
from mia_batch.settings.loading import named_in, with_checkpoint
from mia_batch.settings.schema import Config
from mia_batch.stages.estimates import (
    StageCost,
    earlier_speed,
    estimates,
    import_estimates,
    runs_around,
    training_estimates,
)
from mia_batch.stages.import_outputs import check_samples, open_outputs
from mia_batch.stages.plan import Plan, make_plan, planned_manifest
from mia_batch.stages.references import make_missing_store, missing_outputs
from mia_batch.stages.shadows import Models, models_of_audit

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One audit: a checkpoint and the directory of its results."""

    checkpoint: Path
    paths: RunPaths


@dataclass(frozen=True)
class Submission:
    """What was queued: the steps, their jobs' ids by name (none after a dry run), and what each job will take."""

    steps: Sequence[Step]
    job_ids: Mapping[str, str] = field(default_factory=dict)
    estimates: Sequence[StageCost] = ()


@contextmanager
def queued(steps: Sequence[Step], mark: str, before: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Submit all jobs or none, and yield their ids by name; if the block fails, all jobs of `mark` are cancelled.

    Args:
        steps: to be queued.
        mark: of their submission.
        before: jobs that they may wait for, which are queued already.

    Raises:
        InputError: Slurm refuses a job; the jobs before it are cancelled.
    """
    job_ids: dict[str, str] = {}
    try:
        for step in steps:
            command = step.command({**(before or {}), **job_ids})
            job_ids[step.name] = scheduler.sbatch(command, f"{mark}{step.name.replace(' ', '')}")
        yield job_ids
    except BaseException:
        cancel_marked(mark, job_ids.values())
        raise


def submit_run(
    config: Config, out: Path, site: Site, *, words: Sequence[str] = (), dry_run: bool = False
) -> Submission:
    """Queue what is still to be done of one run and record the jobs in its jobs.json; a dry run does neither.

    Args:
        config: the configuration.
        out: directory of the run.
        site: where it runs.
        words: for every script.
        dry_run: queue nothing.

    Raises:
        InputError: the directory holds another run, or one whose jobs are still queued.
    """
    paths = RunPaths(out)
    _refuse_backslash(paths)
    if not dry_run:
        refuse_active([paths])  # before the directory becomes this run's: they may be of the one before
    models = models_of_audit(config, dry_run=dry_run)
    plan = None if config.imports else make_plan(config)
    manifest = in_force(paths, plan.manifest if plan else planned_manifest(config))
    left = left_to_do(read_state(paths, manifest))
    outputs = missing_outputs(manifest, plan.selection) if plan and config.references else ()
    words = (*words, *_changed(config))
    request = Request(
        config.path, paths.root, site, words, left.stages, left.attacks, references=outputs, exports=exported(config),
        array_size=scheduler.largest_array() or 0,
    )  # fmt: skip
    steps = plan_chain(_with_models(request, models))
    runs = [paths, *runs_around(out.parent)]
    if plan:
        found = _estimates(config, plan, site, left.stages, runs, n_outputs=len(outputs), models=models, alone=True)
    else:
        found = _estimates_of_import(config, site, left.stages)
    if dry_run:
        return Submission(steps, estimates=found)
    claim(paths, manifest)
    if plan:
        make_missing_store(config, manifest, plan.selection)
    _make_logs(paths, models)
    with queued(steps, scheduler.new_mark(paths.root)) as job_ids:
        others = {name: job for name, job in job_ids.items() if stage_of(name) != "attack"}
        record(paths, others | _attack_jobs(job_ids, left.attacks, request.array_size))
    return Submission(steps, job_ids, found)


def _attack_jobs(job_ids: Mapping[str, str], attacks: Sequence[str], size: int) -> dict[str, str]:
    """The task of each attack, as the stage's arrays have them."""
    places = {name: divmod(number, size) if size else (0, number) for number, name in enumerate(attacks)}
    return {
        f"attack {name}": scheduler.task(job_ids[part_name("attack", part + 1)], task)
        for name, (part, task) in places.items()
    }


def _with_models(request: Request, models: Models | None) -> Request:
    """The request with the models that are to be trained before."""
    return replace(request, models=models.missing, shadows=models.paths.root) if models else request


def _make_logs(paths: RunPaths, models: Models | None) -> None:
    """The folders that Slurm opens logs in, which it does not make."""
    for logs in [paths.logs, *([RunPaths(models.paths.root).logs] if models else [])]:
        logs.mkdir(exist_ok=True)


def _estimates(
    config: Config, plan: Plan, site: Site, stages: Sequence[str], runs: Sequence[RunPaths], *,
    n_outputs: int | None = None, models: Models | None = None, alone: bool,
) -> list[StageCost]:
    """What the jobs will take, of those runs' measurements.

    Args:
        config: of the audit.
        plan: of the audit.
        site: where it runs.
        stages: that are queued.
        runs: whose measurements are known.
        n_outputs: of references, a task each; None: one task makes all.
        models: that are trained before.
        alone: whether each attack is a job.
    """
    ask, rows = site.extract, read_rows(runs[0]) if runs else None
    found = estimates(
        config, plan.selection, ranks=ask.nodes * ask.tasks_per_node, n_jobs=site.attack.cpus_per_task or 1,
        speed=earlier_speed(plan.manifest, dict.fromkeys(runs)), alone=alone,
        n_done=rows.done if alone and rows else 0, n_missing=None if n_outputs is None else min(1, n_outputs),
    )  # fmt: skip
    found = [estimate for estimate in found if estimate.stage in stages]
    if n_outputs:
        tasks = f"of {n_outputs} task(s)"
        found = [replace(each, where=f"{each.where} {tasks}") if each.stage == "references" else each for each in found]
    return [*(training_estimates(config, models) if models else []), *found]


def _estimates_of_import(config: Config, site: Site, stages: Sequence[str]) -> list[StageCost]:
    """What the jobs after an import will take; what is read of the files for it, the outputs aside, is checked."""
    if not {"attack", "reduce"} & set(stages):
        return []
    with named_in(config.path):
        outputs = open_outputs(config)
        samples = outputs.read_samples()
        check_samples(config, samples)
        n_jobs = site.attack.cpus_per_task or 1
        found = import_estimates(config.attack, outputs.n_classes, samples, n_jobs=n_jobs, alone=True)
    return [estimate for estimate in found if estimate.stage in stages]


def _changed(config: Config) -> list[str]:
    """What --set has changed, as words for the scripts."""
    return [f"set={change}" for change in config.changes]


def _refuse_backslash(paths: RunPaths) -> None:
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
    """A directory in `out` for each checkpoint, named after its file; files of one name add a part of a hash."""
    stems = Counter(path.stem for path in checkpoints)
    more = {path: f"-{hashlib.sha256(bytes(path)).hexdigest()[:8]}" for path in checkpoints if stems[path.stem] > 1}
    return [Run(path, RunPaths(out / f"{path.stem}{more.get(path, '')}")) for path in checkpoints]


def submit_runs(
    config: Config, runs: Sequence[Run], out: Path, site: Site, *, join: bool = False, dry_run: bool = False,
    array_size: int = 0, before: Sequence[Submission] = (),
) -> Submission:
    """Queue many audits as one array per stage; a task that fails stops only the later tasks of its own audit.

    Args:
        config: of all audits; its own checkpoint is not used.
        runs: to be queued, each with something left to do.
        out: directory of the runs.
        site: where they run.
        join: whether the audits in `out` are joined by training and step afterwards.
        dry_run: queue nothing.
        array_size: the first index that is too high for an array's task; 0: none is.
        before: submissions of other runs, whose trainings of reference models these wait for, too.

    Raises:
        InputError: with a line for every run that cannot be queued; then no run is queued.
    """
    _refuse_backslash(RunPaths(out))
    if not dry_run:
        refuse_active([run.paths for run in runs])
    models = models_of_audit(config, dry_run=dry_run)
    plan, manifests = _manifests(config, runs)
    left = _each(lambda run: left_to_do(read_state(run.paths, in_force(run.paths, manifests[run]))), runs)
    stages = tuple(stage for stage in STAGES if any(stage in each.stages for each in left))
    array = out / ".arrays" / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}-{os.getpid()}"
    prepared = array if set(ON_RANKS) & set(stages) and is_worth_it(config.data) else None
    words = (f"list={array / 'list'}", *_changed(config))
    stages = (("prepare",) if prepared else ()) + stages + (("trajectory",) if join else ())
    trained_by = tuple(step.name for each in before for step in each.steps if stage_of(step.name) == SHADOWS)
    stages = tuple(stage for stage in stages if not (trained_by and stage == SHADOWS))
    request = Request(
        config.path, out, site, words, stages, n_tasks=len(runs), prepared=prepared, exports=exported(config),
        array_size=array_size, queued=trained_by,
    )  # fmt: skip
    steps, first = plan_chain(_with_models(request, models)), with_checkpoint(config, runs[0].checkpoint)
    found = _estimates(first, plan, site, stages, runs_around(out), models=models, alone=False)
    if dry_run:
        return Submission(steps, estimates=found)
    _each(lambda run: claim(run.paths, manifests[run]), runs)
    any(make_missing_store(config, manifests[run], plan.selection) for run in runs)  # one for all
    remove_old_data(out)
    _write_list(array / "list", runs)
    _make_logs(RunPaths(out), models)
    trainings = {name: each.job_ids[name] for each in before for name in trained_by if name in each.job_ids}
    with queued(steps, scheduler.new_mark(array), trainings) as job_ids:
        record(RunPaths(array), job_ids)
        for task, run in enumerate(runs):
            record(run.paths, _jobs_of_task({**trainings, **job_ids}, task, config))
    return Submission(steps, job_ids, found)


def _each(work: Callable[[Run], T], runs: Sequence[Run]) -> list[T]:
    """What `work` gives for each run; raises one InputError with the problems of all runs."""
    found: list[T] = []
    problems: list[str] = []
    for run in runs:
        try:
            found.append(work(run))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def _jobs_of_task(job_ids: Mapping[str, str], task: int, config: Config) -> dict[str, str]:
    """The jobs of one run of an array, by what they do; one task does all attacks of the run."""
    own = {name: job for name, job in job_ids.items() if name != "trajectory"}  # which is of no single run
    jobs = {name: job if stage_of(name) in FOR_ALL else scheduler.task(job, task) for name, job in own.items()}
    attack = jobs.pop("attack", None)  # none where only reduce was left to do
    attacks = (*(method.method for method in config.attack.methods), BLIND)
    return jobs | ({f"attack {name}": attack for name in attacks} if attack else {})


def _manifests(config: Config, runs: Sequence[Run]) -> tuple[Plan, dict[Run, Manifest]]:
    """The plan of the first run and the manifest of each; the data, which all share, is read once."""
    plan = make_plan(with_checkpoint(config, runs[0].checkpoint), whole_checkpoint=False)
    shared = plan.manifest

    def manifest(run: Run) -> Manifest:
        try:
            check_whole(run.checkpoint)
        except InputError as error:
            log.warning("queued to fail, alone: %s", error)
        resolved = with_checkpoint(config, run.checkpoint).resolved()
        digests = {**shared.digests, "model.checkpoint": sha256(run.checkpoint)}
        origin = origin_of(run.checkpoint)
        return shared.model_copy(update={"config": resolved, "digests": digests, "checkpoint": origin})

    return plan, dict(zip(runs, _each(manifest, runs), strict=True))


def _write_list(listing: Path, runs: Sequence[Run]) -> None:
    """Checkpoint and directory of each run, each ended by NUL, the one character that no path can hold."""
    listing.parent.mkdir(parents=True, exist_ok=True)
    write_text(listing, "".join(f"{run.checkpoint}\0{run.paths.root}\0" for run in runs))


def remove_old_data(out: Path) -> None:
    """Remove the prepared samples of arrays below `out` that have ended."""
    arrays = [RunPaths(jobs.parent) for jobs in out.glob(".arrays/*/jobs.json")]
    data = {paths: Prepared(paths.root) for paths in arrays}
    jobs = {paths: ids for paths in arrays if data[paths].files() and (ids := _known_jobs(paths)) is not None}
    states = states_now(job for ids in jobs.values() for job in ids)
    for paths, ids in jobs.items():
        if not {states[job] for job in ids} & (scheduler.ACTIVE | {scheduler.UNKNOWN}):
            for file in data[paths].files():
                file.unlink(missing_ok=True)


def _known_jobs(paths: RunPaths) -> list[str] | None:
    """The last jobs of an array; None where nobody knows them."""
    try:
        return list(latest_jobs(paths).values())
    except InputError as error:
        log.warning("its data stay: %s", error)
        return None


def still_to_do(config: Config, runs: Sequence[Run]) -> list[Run]:
    """The runs with something left to do.

    Raises:
        InputError: a directory holds another run, or one of the checkpoint's former content.
    """

    of_references = reference_digests(config.references)

    def is_left(run: Run) -> bool:
        if not run.paths.manifest.exists():
            return True
        own = with_checkpoint(config, run.checkpoint)
        now = {field: sha256(file) for field, file in audited_files(own).items()} | of_references
        return bool(left_to_do(read_state(run.paths, in_force_with(run.paths, own, now))).stages)

    return [run for run, left in zip(runs, _each(is_left, runs), strict=True) if left]
