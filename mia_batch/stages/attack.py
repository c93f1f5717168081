"""Attack: what every attack of the configuration has to do, as one list of tasks over all cores of this job."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.base import (
    BLIND,
    GROUPS,
    INCLUSION_DOUBT,
    REFERENCE_COLUMNS,
    STACK,
    TRAJECTORY_COLUMNS,
    AttackResult,
    AttackSettings,
    not_evaluable,
)
from mia_batch.attacks.blind import blind_rows
from mia_batch.attacks.features import feature_rows
from mia_batch.attacks.grouping import twins
from mia_batch.attacks.inclusion import inclusion_doubt
from mia_batch.attacks.references import TRAJECTORY_PHI
from mia_batch.attacks.registry import ATTACKS, CHECKS, needs_references
from mia_batch.attacks.sides import References
from mia_batch.attacks.split import check_arrays
from mia_batch.attacks.stacked import stack_columns
from mia_batch.attacks.trajectories import trajectory_features
from mia_batch.errors import InputError, did_you_mean
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.resources import available_cpus
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.claim import in_force_with, put_in_force
from mia_batch.rundir.crashes import refuse_crashed
from mia_batch.rundir.features import Features, read_features
from mia_batch.rundir.hdf5 import check_room
from mia_batch.rundir.journal import Journal, Journals
from mia_batch.rundir.manifest import Manifest, launch
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import write_attack
from mia_batch.rundir.state import accepted_marks, attack_statuses, left_to_do
from mia_batch.samples import OwnRows, Samples, Split
from mia_batch.search.order_of_work import Journal as TaskJournal
from mia_batch.search.order_of_work import OrderOfWork, Stopped, do_all
from mia_batch.search.tasks import CannotEvaluate, Done
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import AttackConfig, Config
from mia_batch.stages.arguments import load_run
from mia_batch.stages.attack_settings import lacking, needed_columns, settings_of, splits_of
from mia_batch.stages.evaluable import look_at_model
from mia_batch.stages.groups import groups_of
from mia_batch.stages.reference_columns import reference_columns
from mia_batch.stages.trajectory_columns import Checkpoint, trajectory_columns
from mia_batch.workers.open_executor import open_executor

log = logging.getLogger(__name__)
EMPTY: Mapping[str, NDArray[Any]] = MappingProxyType({})

# --- from samples to results, without files --------------------------------------------------------------------------


def make_samples(
    member: NDArray[np.integer], attack: AttackConfig, *, group: NDArray[np.int64] | None = None,
    left_out: NDArray[np.bool_] | None = None, **columns: Any,
) -> Samples:
    """The samples of an audit as attacks take them.

    Args:
        member: membership, shape (n_samples,), 0 or 1.
        attack: how rows are split; grids that a split must be large enough for.
        group: rows of one number stay together, shape (n_samples,).
        left_out: rows that neither fit nor score, shape (n_samples,).
        columns: what else attacks may need, n_samples rows each; `features`, (n_samples, n_features), is finite.

    Raises:
        InputError: no attack can be made on these with these settings.
    """
    labels = np.asarray(member).astype(np.int8)
    if (features := columns.get("features")) is not None:
        columns["features"] = rows = np.asarray(features, dtype=np.float64)
        check_arrays(rows, labels)
    if "reference_in" in columns:  # else nothing looks at it
        columns["group"] = group
    return Samples(labels, splits_of(attack, labels, group, left_out), **columns)


def run_attacks(
    samples: Samples, attack: AttackConfig, *, n_jobs: int, on_result: Callable[[AttackResult], None] | None = None,
    journal: TaskJournal | None = None, stop: Callable[[], bool] = lambda: False, directory: str | None = None,
    checks: Sequence[str] = (),
) -> dict[str, AttackResult]:
    """Do every attack's tasks, in one list, and make its result.

    Args:
        samples: of `make_samples`.
        attack: which attacks, and what they are told.
        n_jobs: cores; a Dask scheduler's workers count instead with `backend: dask`.
        on_result: called with each attack's result as soon as it is there.
        journal: finished tasks of an earlier process with the same samples and settings are read from here.
        stop: asked a few times a second.
        directory: where to keep a copy of the samples for the workers (a file without name, gone with this process).
        checks: names of `attacks.registry.CHECKS`, to be made too.

    Returns:
        Results by attack in the order of `attack.methods`, then by check; of one that is not evaluable, the reason.

    Raises:
        InputError: the memory budget does not hold one worker.
        Stopped: `stop` became true.
    """
    results: dict[str, AttackResult] = {}

    def take(result: AttackResult) -> None:
        results[result.method] = result
        if on_result:
            on_result(result)

    told = Told(take)
    make_results(
        samples, attack, told, n_jobs=n_jobs, journal=journal, stop=stop, directory=directory, checks=checks
    )
    return {name: results[name] for name in (*(method.method for method in attack.methods), *checks)}


@dataclass(frozen=True)
class Told:
    """Who is told of an attack's result as soon as it is there, and of the tasks that are done of each attack."""

    result: Callable[[AttackResult], None]
    counts: Callable[[Mapping[str, tuple[int, int]]], None] | None = None


def make_results(
    samples: Samples, attack: AttackConfig, told: Told, *, n_jobs: int,
    journal: TaskJournal | None = None, stop: Callable[[], bool] = lambda: False, directory: str | None = None,
    checks: Sequence[str] = (),
) -> None:
    """What `run_attacks` does, for a caller who keeps the results as he is told: they need not all be in memory."""
    by_attack = settings_of(attack, checks)
    tasks = {
        name: [] if lacking(name, samples.known) else (ATTACKS | CHECKS)[name].tasks(samples, settings)
        for name, settings in by_attack.items()
    }
    executor = open_executor(attack, samples, chain.from_iterable(tasks.values()), n_jobs=n_jobs, directory=directory)
    begun, doubt = time.time(), _doubt_of(samples)

    def finish(name: str, found: Mapping[str, Any], trace: Sequence[Done], failure: str) -> None:
        made = _result(name, samples, by_attack[name], found, failure)
        more: dict[str, Any] = {
            "eval": attack.eval, "eval_fraction": attack.eval_fraction, "cv": attack.cv, "features": attack.features,
            "n_fit": max(len(split.fit) for split in samples.splits),
            "backend": attack.backend, "n_jobs": executor.n_workers, "seconds": time.time() - begun,
            "tasks": [_times(done, begun) for done in trace],
        }  # fmt: skip
        more |= {INCLUSION_DOUBT: doubt} if doubt and needs_references(name) else {}
        result = dataclasses.replace(made, provenance={**made.provenance, **more})
        _log_result(result)
        told.result(result)

    try:
        do_all(OrderOfWork(tasks, executor, finish=finish, journal=journal), stop, told.counts)
    finally:
        executor.close()


def _result(
    name: str, samples: Samples, settings: AttackSettings, found: Mapping[str, Any], failure: str
) -> AttackResult:
    if why := lacking(name, samples.known):
        return not_evaluable(name, samples.member, why, not_run=True)
    if failure:
        return not_evaluable(name, samples.member, failure)
    try:
        return (ATTACKS | CHECKS)[name].result(samples, settings, found)
    except CannotEvaluate as error:
        return not_evaluable(name, samples.member, str(error))


def _doubt_of(samples: Samples) -> str:
    """What references say against what they are stated to be trained on."""
    _, others, inside = (samples.columns.get(name) for name in REFERENCE_COLUMNS)
    if others is None or inside is None:
        return ""
    return inclusion_doubt(others, inside, group=samples.columns.get("group"))


def _times(done: Done, begun: float) -> dict[str, Any]:
    times = {"started": done.started - begun, "seconds": done.seconds, "cpu_seconds": done.cpu_seconds}
    return {"task": done.key, **times}


def _log_result(result: AttackResult) -> None:
    provenance = result.provenance
    if result.not_run:
        log.info("%s: not run, because %s", result.method, result.reason)
        return
    if result.reason:
        log.warning("%s: not evaluable: %s", result.method, result.reason)
        return
    for failure in provenance.get("failures", ()):
        log.warning("%s: a candidate scores NaN: %s", result.method, failure)
    searched = f"best {result.best_params}, cross-validated accuracy {result.best_score:.4f}, "
    best = searched if result.cv_results else ""
    log.info("%s: %s%.1f s", result.method, best, provenance["seconds"])


# --- the stage -------------------------------------------------------------------------------------------------------


def make_columns(
    features: Features, attack: AttackConfig, more: Mapping[str, NDArray[Any]] = EMPTY
) -> dict[str, NDArray[Any]]:
    """The columns of samples that the attacks of a configuration need, of those that features.h5 can give.

    Args:
        features: of the samples.
        attack: the section.
        more: columns that are there besides: those of a trajectory have their features too.

    Raises:
        InputError: features.h5 holds logits or labels that cannot be.
    """
    needed = needed_columns(attack)
    label, logits = features.label, features.logits
    columns: dict[str, NDArray[Any]] = {"label": label} if "label" in needed and label is not None else {}
    if "statistics" in needed and (known := features.statistics) is not None:
        columns["statistics"] = np.where(np.isfinite(known), known, 0)
    if logits is None or label is None:
        return columns | ({"loss": features.loss} if "loss" in needed else {})
    try:
        columns |= signals.signal_columns(logits, label, [name for name in signals.NAMES if name in needed])
        if "features" in needed:
            phi, losses = (more.get(name) for name in TRAJECTORY_COLUMNS[:2])
            steps = None if phi is None or losses is None else trajectory_features(phi, losses)
            columns["features"] = feature_rows(attack.features, logits, label, features.loss, steps)
        return columns
    except ValueError as error:
        raise InputError(f"features.h5: {error}") from error


def samples_of(
    features: Features, settings: AttackConfig, checks: Sequence[str],
    more: Mapping[str, NDArray[Any]] = EMPTY, left_out: NDArray[np.bool_] | None = None,
) -> Samples:
    """What the attacks and checks of a configuration are made on.

    Args:
        features: of the samples.
        settings: the section `attack`.
        checks: names of `attacks.registry.CHECKS`.
        more: columns as of `reference_columns` and `trajectory_columns`.
        left_out: rows that neither fit nor score, besides those whose input is on both sides, (n_samples,).

    Raises:
        InputError: as of `make_columns` and `make_samples`.
    """
    aside = twins(features.content, features.member)
    group = groups_of(features)
    return make_samples(
        features.member, settings, group=group,
        left_out=aside if left_out is None else aside | left_out,
        blind=None if BLIND not in checks or features.label is None else blind_rows(
            features.label, features.statistics
        ),
        **make_columns(features, settings, more),
        **{name: column for name, column in more.items() if name in needed_columns(settings)},
        **stack_of(more, features, settings, group),
        **({GROUPS: group} if _counts_groups(settings, group) else {}),
    )


def _counts_groups(settings: AttackConfig, group: NDArray[np.int64] | None) -> bool:
    """Whether an attack says intervals itself, and samples are not all alone."""
    said = any(getattr(ATTACKS[method.method], "with_fewer", False) for method in settings.methods)
    return said and group is not None and len(np.unique(group)) < len(group)


def stack_of(
    known: Mapping[str, NDArray[Any]], features: Features, settings: AttackConfig,
    group: NDArray[np.int64] | None,
) -> dict[str, OwnRows]:
    """The rows of stacked references, where an attack needs them and there are references enough."""
    if STACK not in needed_columns(settings) or not set(REFERENCE_COLUMNS) <= set(known):
        return {}
    phi, others, inside = (known[name] for name in REFERENCE_COLUMNS)
    target, over_steps = (known.get(name) for name in TRAJECTORY_PHI)
    steps = None if target is None or over_steps is None else References(target, over_steps, inside)
    references = References(phi, others, inside, features.label, steps)
    return stack_columns(references, cv=settings.cv, max_rows=settings.max_rows, seed=settings.seed, group=group)


def samples_that_fit(features: Features, settings: AttackConfig, split: Split) -> Samples:
    """What attackers of rows that come later are fitted on: see `attacks.split.fit_split`.

    Raises:
        InputError: no classifier can be fitted on these rows.
    """
    columns = make_columns(features, settings)
    check_arrays(columns["features"], features.member)
    return Samples(features.member, [split], **columns)


def results_in_memory(
    config: Config, features: Features, *, n_jobs: int, more: Mapping[str, NDArray[Any]] = EMPTY
) -> dict[str, AttackResult]:
    """Every attack's result and every check's, without files; `more` as of `samples_of`.

    Raises:
        InputError: no attack can be made on these samples with these settings.
    """
    checks = list(CHECKS)
    if reasons := look_at_model(config, features).reasons:
        names = [*(method.method for method in config.attack.methods), *checks]
        return {name: _unmade(name, features, " ".join(reasons)) for name in names}
    samples = samples_of(features, config.attack, checks, more)
    made = run_attacks(samples, config.attack, n_jobs=n_jobs, checks=checks)
    return {name: with_origin(result, features) for name, result in made.items()}


def with_origin(result: AttackResult, features: Features, **more: Any) -> AttackResult:
    """The result, with more of its provenance: of the blind baseline, whether it knows the inputs' statistics."""
    more |= {"statistics": features.statistics is not None} if result.method == BLIND else {}
    return dataclasses.replace(result, provenance={**result.provenance, **more})


def _unmade(name: str, features: Features, reason: str) -> AttackResult:
    return not_evaluable(name, features.member, f"the audit is not: {reason}")


def to_do(config: Config, paths: RunPaths, manifest: Manifest, only: str | None) -> tuple[str, ...]:
    """The attacks that have no result of these features and settings yet; what was not evaluable is tried again.

    Raises:
        InputError: an unknown name, or a damaged result.
    """
    names = [*(method.method for method in config.attack.methods), *CHECKS]
    if only is not None and only not in names:
        raise InputError(f"--method: must be one of {', '.join(names)}, got {only!r}{did_you_mean(only, names)}")
    return left_to_do([each for each in attack_statuses(paths, manifest) if only in (None, each.attack)]).attacks


def keep(result: AttackResult, *, paths: RunPaths, journal: Journal) -> None:
    """Write attacks/<name>.h5; its journal is not needed any more, unless the attack is to be tried again."""
    write_attack(paths.attack(result.method), result)
    if not result.reason:
        journal.remove()
    log.info("%s: written", paths.attack(result.method).name)


def attack(config: Config, paths: RunPaths, only: str | None, stop: StopRequest) -> int:
    """The whole stage; returns the exit code."""
    manifest = in_force_with(paths, config)
    left = to_do(config, paths, manifest, only)
    if not left:
        log.info("attack: nothing to do")
        return OK
    refuse_crashed(paths)
    features = read_features(paths.features)
    put_in_force(paths, manifest)
    if reasons := look_at_model(config, features).reasons:
        return _refuse(left, " ".join(reasons), features, paths, manifest)
    methods = tuple(method for method in config.attack.methods if method.method in left)
    for note in (note for method in methods for note in method.notes):
        log.info("%s", note)
    checks = [name for name in left if name in CHECKS]
    known = known_besides(config, Checkpoint(paths, manifest, features), [method.method for method in methods])
    settings = config.attack.model_copy(update={"methods": methods})
    return fit(settings, samples_of(features, settings, checks, known), checks, features, paths, manifest, stop)


def known_besides(config: Config, own: Checkpoint, methods: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What references and earlier checkpoints tell of the samples, where the attacks can use it.

    Raises:
        InputError: as of `reference_columns` and `trajectory_columns`.
    """
    found = reference_columns(config, own.manifest, own.features, methods)
    return found | trajectory_columns(config, own, methods, found)


def _refuse(
    names: Sequence[str], reason: str, features: Features, paths: RunPaths, manifest: Manifest
) -> int:
    """Write that no attack can be evaluated; the reducer says so of the audit. Each is tried again by the next run."""
    log.warning("no attack is made: %s", reason)
    marks = accepted_marks(paths, manifest)
    for name in names:
        result = _unmade(name, features, reason)
        write_attack(paths.attack(name), dataclasses.replace(result, provenance={"identity": marks[name][0]}))
    return OK


def fit(
    settings: AttackConfig, samples: Samples, checks: Sequence[str], features: Features, paths: RunPaths,
    manifest: Manifest, stop: StopRequest,
) -> int:
    """Do what is left, on all cores of this job."""
    n_jobs = available_cpus()
    check_room(paths.root, sum(array.nbytes for array in samples.arrays().values()))  # for the workers' copy
    marks = accepted_marks(paths, manifest)
    started = launch("attack", n_jobs=n_jobs)

    def on_result(result: AttackResult) -> None:
        result = with_origin(result, features, identity=marks[result.method][0], launch=started)
        keep(result, paths=paths, journal=journals[result.method])

    names = [*(each.method for each in settings.methods), *checks]
    with ExitStack() as stack:
        journals = {name: Journal(paths.journal(name), marks[name]) for name in names}
        for name, journal in journals.items():
            stack.callback(journal.close)
            if len(journal):
                log.info("%s: goes on after %d finished tasks", name, len(journal))
        progress = stack.enter_context(Progress(None, what="attack", unit="tasks"))
        try:
            make_results(
                samples, settings, Told(on_result, partial(show_counts, progress)), n_jobs=n_jobs,
                journal=Journals(journals), stop=partial(bool, stop), directory=str(paths.root), checks=checks,
            )
        except Stopped:
            log.warning("stopped by signal %s; finished fits are kept, the same command goes on", stop.signal)
            return RESUME
    return OK


def show_counts(progress: Progress, counts: Mapping[str, tuple[int, int]]) -> None:
    """Show the tasks of all attacks, and of each that has begun and not ended."""
    progress.total = sum(total for _, total in counts.values())
    parts = tuple(f"{name} {done}/{total}" for name, (done, total) in counts.items() if 0 < done < total)
    progress.set(sum(done for done, _ in counts.values()), parts=parts)


def run_attack_stage(args: argparse.Namespace, stop: StopRequest) -> int:
    """The stage of the command line."""
    config, paths = load_run(args)
    with named_in(config.path):
        return attack(config, paths, args.method, stop)
