"""What each stage will take, in seconds and bytes, before it runs: estimates, with what they are based on.

Sizes come from the plan, the memory of the search from its own budget. Seconds of the attacks come from the costs by
which the search orders its tasks, those of the network from an earlier run of the same network, or from nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from mia_batch.data.outputs import ImportedSamples
from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.network.requirements import RANK_BYTES
from mia_batch.rundir.identity import network_identity
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.samples import OwnRows, Samples, Split
from mia_batch.settings.schema import AttackConfig, Config, ReferencesConfig
from mia_batch.stages.shadows import Models
from mia_batch.stages.train import Files

# Measured with 8,000 to 100,000 rows of 10 classes on one core of an AMD EPYC, as were the costs of the search's tasks.
MEASURED = "costs measured on one core of an AMD EPYC"
ATTACK_START_S = 6.0  # the imports of the stage and of its workers
REDUCE_START_S, REDUCE_S_PER_ROW = 3.5, 1.6e-4
REDUCE_BYTES, REDUCE_BYTES_PER_ROW = 250 << 20, 2048
FEW_ROWS, REDUCE_S_PER_LATER_ROW, REDUCE_BYTES_PER_LATER_ROW = 200_000, 2e-5, 140  # with 10,000,000 rows
SHORT_RUN = 1000  # rows: a rate from fewer is of little use
LATEST = 50  # runs of a folder that are looked at

Rows = NDArray[np.integer]


@dataclass(frozen=True)
class StageCost:
    """What one stage will take.

    Attributes:
        stage: the stage's name, extract, shadows, references, attack or reduce.
        seconds: how long it will take, by the clock; None where nothing is known.
        memory: how many bytes it will hold; of extract, how many each rank will.
        where: what the estimate holds for, in words, such as "on 2 core(s)" or "for each of 8 rank(s)".
        basis: what the estimate is based on, in words.
        at_least: whether a part of the memory is not known, so that `memory` is a lower bound.
        warning: why the stage would be refused, in words; empty if it would not.
    """

    stage: str
    seconds: float | None
    memory: int
    where: str
    basis: str
    at_least: bool = False
    warning: str = ""


@dataclass(frozen=True)
class Speed:
    """What an earlier extraction of the same network has measured.

    Attributes:
        rows_per_second: of each rank, the forward pass alone.
        loading: seconds before it.
        memory: the most bytes that a rank has held; None where it was not recorded.
        source: which run, on which host.
    """

    rows_per_second: float
    loading: float
    memory: int | None
    source: str


# --- extract ---------------------------------------------------------------------------------------------------------


def extract_estimate(
    n_rows: int, ranks: int, *, batch_bytes: int, checkpoint_bytes: int, speed: Speed | None = None
) -> StageCost:
    """Of the forward pass.

    Args:
        n_rows: that are left to compute.
        ranks: MPI ranks that share them.
        batch_bytes: of a rank's input, MindSpore's copy included.
        checkpoint_bytes: size of the weights' file.
        speed: of an earlier run of the same network.
    """
    where = f"for each of {ranks} rank(s)"
    known = RANK_BYTES + batch_bytes + 2 * checkpoint_bytes  # the weights, and what the file is read into
    if speed is None:
        basis = "MindSpore on CPU, weights and batches, without what the layers hold"
        return StageCost("extract", None, known, where, basis, at_least=True)
    seconds = speed.loading + n_rows / ranks / speed.rows_per_second
    basis = f"{speed.rows_per_second:.0f} rows/s of a rank in {speed.source}"
    if speed.memory is None:
        return StageCost("extract", seconds, known, where, f"{basis}; memory without what the layers hold", True)
    return StageCost("extract", seconds, speed.memory, where, basis)


def earlier_speed(manifest: Manifest, runs: Iterable[RunPaths]) -> Speed | None:
    """What was measured of the same network: by the newest launch of enough rows, else by the one of most rows."""
    wanted, found = network_identity(manifest), list[tuple[_Measured, str]]()
    for paths in runs:
        other = _manifest_of(paths)
        if other is None or network_identity(other) != wanted:
            continue
        measured = [_Measured.of(launch) for launch in other.launches]
        found += [(each, paths.root.name) for each in measured if each]
    if not found:
        return None
    newest = [each for each in found if each[0].n_rows >= SHORT_RUN]
    best = max(newest, key=lambda each: each[0].started) if newest else max(found, key=lambda each: each[0].n_rows)
    return best[0].speed(best[1])


def runs_around(folder: Path) -> list[RunPaths]:
    """The run in a folder, or else the newest runs in it."""
    own = RunPaths(folder)
    if own.manifest.exists():
        return [own]
    return sorted(runs_in(folder), key=_changed, reverse=True)[:LATEST]


def _changed(paths: RunPaths) -> float:
    try:
        return paths.manifest.stat().st_mtime
    except OSError:
        return 0.0


def _manifest_of(paths: RunPaths) -> Manifest | None:
    try:
        return read_manifest(paths)
    except InputError:  # a damaged run only tells nothing of speed
        return None


class _Measured(BaseModel):
    """A launch of an extraction in run.json that has computed rows."""

    stage: Literal["extract"]
    started: str
    host: str
    rank_size: Annotated[int, Field(ge=1)]
    rows_done: Annotated[int, Field(ge=0)]
    rows_done_after: int
    seconds: Annotated[float, Field(gt=0)]
    forward_seconds: Annotated[float, Field(gt=0)] | None = None  # versions before did not tell loading from running
    memory: Annotated[int, Field(gt=0)] | None = None

    @property
    def n_rows(self) -> int:
        return self.rows_done_after - self.rows_done

    @classmethod
    def of(cls, launch: Mapping[str, Any]) -> _Measured | None:
        """The launch; None for one that was killed, has computed nothing, or is none of an extraction."""
        try:
            found = cls.model_validate(launch)
        except ValidationError:
            return None
        return found if found.n_rows > 0 else None

    def speed(self, run: str) -> Speed:
        forward = min(self.forward_seconds or self.seconds, self.seconds)
        source = f"{run} ({self.n_rows} rows on {self.rank_size} rank(s) of {self.host})"
        return Speed(self.n_rows / self.rank_size / forward, self.seconds - forward, self.memory, source)


# --- shadows ---------------------------------------------------------------------------------------------------------


class _Training(BaseModel):
    """What is beside a checkpoint that was trained here, as far as it tells how long a training takes."""

    config: dict[str, dict[str, Any]]
    seconds: Annotated[float, Field(gt=0)]
    epochs_timed: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    memory: Annotated[int, Field(gt=0)] | None = None

    @classmethod
    def of(cls, checkpoint: Path) -> _Training | None:
        try:
            return cls.model_validate_json(Files(checkpoint).provenance.read_bytes())
        except (OSError, ValueError):  # not trained here, or by a version that did not measure
            return None


def training_estimates(config: Config, models: Models) -> list[StageCost]:
    """Of the trainings of models that are not trained, each as long as those of the same network that are; or none.

    Args:
        config: of the audit.
        models: of its plan.
    """
    if not models.missing:
        return []
    others = [models.paths.checkpoint(number) for number in range(models.plan.models.n_references)]
    found = {file: _Training.of(file) for file in (*others, config.model.checkpoint)}
    wanted = _pace(config.resolved())
    known = [(file, each) for file, each in found.items() if each and _pace(each.config) == wanted]
    where = f"for each of {len(models.missing)} model(s)"
    memory = RANK_BYTES + 2 * batch_bytes(config)
    if not known:
        return [StageCost("shadows", None, memory, where, "MindSpore on CPU and batches", at_least=True)]
    file, timed = known[0]
    n_samples = int(models.plan.models.included.sum(axis=1).max())
    seconds = timed.seconds / timed.epochs_timed / timed.samples * config.train.epochs * n_samples
    basis = f"{file.name}: {timed.epochs_timed} epochs of {timed.samples} samples in {timed.seconds:.0f} s"
    return [StageCost("shadows", seconds, timed.memory or memory, where, basis, at_least=timed.memory is None)]


def _pace(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What decides how long a sample of a training takes."""
    keys = {
        "model": ("factory", "kwargs"), "train": ("batch_size",), "extract": ("device",),
        "data": ("source", "kwargs", "preprocess", "image_size", "augment_members"),
    }  # fmt: skip
    return {f"{name}.{key}": config[name].get(key) for name, section in keys.items() for key in section}


# --- attack ----------------------------------------------------------------------------------------------------------


def column_widths(attack: AttackConfig, n_classes: int, *, inputs_known: bool = True) -> dict[str, int]:
    """How many numbers of each sample the attacks and the blind baseline read, by array.

    Where nothing is known of the inputs the baseline has a row for each class alone, and is left out.
    """
    from mia_batch.attacks import blind
    from mia_batch.attacks.features import n_features
    from mia_batch.inputs import STATISTICS
    from mia_batch.signals import NAMES
    from mia_batch.stages.attack_settings import needed_columns

    needed = needed_columns(attack)
    n_checkpoints = 1 + len(attack.trajectory)
    widths = dict.fromkeys(NAMES, 1) | {"features": n_features(attack.features, n_classes, n_checkpoints), "label": 1}
    widths |= {"statistics": len(STATISTICS)} if inputs_known else {}
    baseline = {"blind": blind.n_columns(n_classes)} if inputs_known else {}
    return {name: width for name, width in widths.items() if name in needed} | baseline


def reference_shapes(attack: AttackConfig, references: ReferencesConfig | None) -> dict[str, tuple[int, ...]]:
    """Shapes of what attacks read of references, of one sample, by array."""
    from mia_batch.attacks.base import REFERENCE_COLUMNS
    from mia_batch.attacks.references import TRAJECTORY_PHI
    from mia_batch.stages.attack_settings import needed_columns

    if references is None or needed_columns(attack).isdisjoint(REFERENCE_COLUMNS):
        return {}
    n_queries, n = references.n_queries, references.n_references
    found = dict(zip(REFERENCE_COLUMNS, [(n_queries,), (n_queries, n), (n,)], strict=True))
    if not attack.trajectory:
        return found
    n_checkpoints = 1 + len(attack.trajectory)
    return found | dict(zip(TRAJECTORY_PHI, [(n_checkpoints,), (n_checkpoints, n)], strict=True))


def stack_alone(attack: AttackConfig, references: ReferencesConfig | None, n_samples: int) -> dict[str, OwnRows]:
    """The rows of stacked references, without memory for them."""
    from mia_batch.attacks.base import STACK
    from mia_batch.attacks.stacked import stack_shapes
    from mia_batch.stages.attack_settings import needed_columns

    if references is None or STACK not in needed_columns(attack):
        return {}
    return stack_shapes(
        n_samples, references.n_references, cv=attack.cv, max_rows=attack.max_rows,
        n_checkpoints=1 + len(attack.trajectory),
    )  # fmt: skip


def shapes_alone(
    member: Rows, splits: Sequence[Split], widths: Mapping[str, int], *, n_classes: int
) -> Samples:
    """Samples for which tasks can be made, without memory for their columns.

    Args:
        member: membership, shape (n_samples,).
        splits: of the rows.
        widths: of `column_widths`.
        n_classes: rows of the blind baseline, where `widths` has none for each sample.
    """
    from mia_batch.attacks.base import BLIND
    from mia_batch.samples import Lookup

    samples, zero = Samples(member.astype(np.int8), splits), np.zeros((1, 1))
    shapes = {name: (len(member), width) for name, width in widths.items()}
    samples.columns.update({name: np.broadcast_to(zero, shape) for name, shape in shapes.items()})
    if BLIND not in widths:
        table = np.broadcast_to(zero, (n_classes, 1 + n_classes))
        samples.columns[BLIND] = Lookup(table, np.broadcast_to(np.int32(0), len(member)))
    return samples


def attack_estimate(
    attack: AttackConfig, member: Rows, splits: Sequence[Split], n_classes: int, *, n_jobs: int, alone: bool = False,
    inputs_known: bool = True, references: ReferencesConfig | None = None,
) -> StageCost:
    """Of the attacks and the blind baseline.

    Args:
        attack: which, and their grids.
        member: membership, shape (n_samples,).
        splits: of the rows.
        n_classes: of the network.
        n_jobs: cores.
        alone: whether each attack is a job of its own, on as many cores; then the longest counts.
        inputs_known: whether the blind baseline has more than the labels, which imported outputs do not give.
        references: of the configuration.
    """
    from mia_batch.workers.open_executor import memory_of

    widths = column_widths(attack, n_classes, inputs_known=inputs_known)
    samples = shapes_alone(member, splits, widths, n_classes=n_classes)
    for name, shape in reference_shapes(attack, references).items():  # half of the references in, half out
        samples.columns[name] = np.broadcast_to(np.arange(shape[-1], dtype=np.int8) % 2, (len(member), *shape))
    samples.columns.update(stack_alone(attack, references, len(member)))
    tasks = _tasks(attack, samples)
    jobs = list(tasks.values()) if alone else [[task for each in tasks.values() for task in each]]
    shared, each = memory_of(samples, [task for its in jobs for task in its])
    core_seconds = max(sum(task.cost for task in its) for its in jobs)
    if attack.backend == "dask":
        basis = f"{_seconds(core_seconds)} of one core, shared by the scheduler's workers; {MEASURED}"
        return StageCost("attack", None, shared, "for the process that asks Dask", basis)
    fitting = int((attack.memory_gib * 2**30 - shared) // each)
    n_workers = max(1, min(n_jobs, fitting))
    longest = max((task.urgency for its in jobs for task in its), default=0.0)
    seconds = ATTACK_START_S + max(core_seconds / n_workers, longest)
    what = "the longest of a job for each attack" if alone else f"{len(jobs[0])} tasks"
    needed = (shared + each) / 2**30
    refused = f"attack.memory_gib: must be at least {needed:.2f} for these samples and grids, got {attack.memory_gib}"
    return StageCost(
        "attack", seconds, shared + n_workers * each, f"on {n_workers} core(s)", f"{what}; {MEASURED}",
        warning="" if fitting >= 1 else refused,
    )  # fmt: skip


def _tasks(attack: AttackConfig, samples: Samples) -> dict[str, list[Any]]:
    from mia_batch.attacks.registry import ATTACKS, CHECKS
    from mia_batch.stages.attack_settings import settings_of

    told, attacks = settings_of(attack, CHECKS), ATTACKS | CHECKS
    return {
        name: attacks[name].tasks(samples, settings) if samples.known >= attacks[name].needs else []  # not run
        for name, settings in told.items()
    }


def n_classes_of(config: Config, label: Rows) -> int:
    """Columns of the logits, as far as the config tells, else the labels, (n_samples,)."""
    return config.model.n_columns() or max(2, int(label.max()) + 1)


# --- reduce, and all of them -----------------------------------------------------------------------------------------


def reduce_estimate(n_rows: int) -> StageCost:
    """Of the metrics and the verdict of so many samples."""
    first = min(n_rows, FEW_ROWS)  # the permutation test takes most, and is of no more than some rows
    seconds = REDUCE_START_S + REDUCE_S_PER_ROW * first + REDUCE_S_PER_LATER_ROW * (n_rows - first)
    memory = REDUCE_BYTES + REDUCE_BYTES_PER_ROW * first + REDUCE_BYTES_PER_LATER_ROW * (n_rows - first)
    return StageCost("reduce", seconds, memory, "on 1 core", MEASURED)


def estimates(
    config: Config, selection: Selection, *, ranks: int, n_jobs: int, speed: Speed | None = None, alone: bool = False,
    n_done: int = 0, n_missing: int | None = None,
) -> list[StageCost]:
    """Of every stage of a run.

    Args:
        config: of the run.
        selection: its samples.
        ranks: of the extraction.
        n_jobs: cores of the attacks.
        speed: what is known of this network.
        alone: whether each attack is a job of its own.
        n_done: rows that are extracted already.
        n_missing: outputs of references that are not in the store; None for all.
    """
    member, weights = selection.member, config.model.checkpoint
    forward = partial(
        extract_estimate, ranks=ranks, batch_bytes=batch_bytes(config), speed=speed,
        checkpoint_bytes=weights.stat().st_size if weights.exists() else 0,
    )  # fmt: skip
    found = [forward(len(member) - n_done)]
    if config.references:
        n_missing = n_outputs(config.references) if n_missing is None else n_missing
        n_rows = n_missing * config.references.n_queries * len(member)
        found.append(replace(forward(n_rows), stage="references"))
    n_classes = n_classes_of(config, selection.label)
    return [
        *found,
        *_after_outputs(
            config.attack, member, selection.group, n_classes, n_jobs=n_jobs, alone=alone, references=config.references
        ),
    ]  # fmt: skip


def n_outputs(references: ReferencesConfig) -> int:
    """How many outputs an audit wants of its store: where it asks several queries, its own model's too."""
    return references.n_references + (references.queries is not None)


def known_of(n_classes: int | None, samples: ImportedSamples) -> set[str]:
    """What is known of imported samples, as attacks name it; `n_classes` is None for losses alone."""
    from mia_batch.signals import NAMES

    known = {"member", "loss"} | ({"label"} if samples.label is not None else set())
    return known | ({"features", *NAMES} if n_classes else set())


def import_estimates(
    attack: AttackConfig, n_classes: int | None, samples: ImportedSamples, *, n_jobs: int, alone: bool = False
) -> list[StageCost]:
    """Of the stages after an import: of the attacks that can be made, and of the report.

    Args:
        attack: which, and their grids.
        n_classes: of the outputs; None for losses alone.
        samples: that are imported.
        n_jobs: cores of the attacks.
        alone: whether each attack is a job of its own.
    """
    from mia_batch.stages.attack_settings import that_run

    allowed, _ = that_run(attack, known_of(n_classes, samples))
    return _after_outputs(
        allowed, samples.member, samples.group, n_classes or 2, n_jobs=n_jobs, alone=alone, inputs_known=False
    )


def _after_outputs(
    attack: AttackConfig, member: Rows, group: NDArray[np.int64] | None, n_classes: int, *, n_jobs: int, alone: bool,
    inputs_known: bool = True, references: ReferencesConfig | None = None,
) -> list[StageCost]:
    """Of the attacks and the report on samples of this membership and these declared groups, (n_samples,) each."""
    from mia_batch.attacks.grouping import group_codes
    from mia_batch.stages.attack_settings import splits_of

    splits = splits_of(attack, member, group_codes(None, group, len(member)))
    cost = attack_estimate(
        attack, member, splits, n_classes, n_jobs=n_jobs, alone=alone, inputs_known=inputs_known,
        references=references,
    )  # fmt: skip
    return [cost, reduce_estimate(len(member))]


def batch_bytes(config: Config) -> int:
    """Of a rank's input: float32 images, and MindSpore's copy; 0 of others, whose size only a sample tells."""
    if config.data.network_size is None:
        return 0
    height, width = config.data.network_size
    return 2 * 4 * len(config.data.mean) * height * width * config.extract.batch_size


def estimate_lines(found: Sequence[StageCost]) -> list[str]:
    """A line for each stage, said to be estimates, and what they warn of."""
    lines = [
        f"estimate: {each.stage}: {time_words(each)}, {memory_words(each)} {each.where} ({each.basis})"
        for each in found
    ]
    return lines + [f"WARNING: {each.warning}" for each in found if each.warning]


def time_words(estimate: StageCost) -> str:
    """The time of a stage, in words."""
    return "time not known before a run" if estimate.seconds is None else f"about {_seconds(estimate.seconds)}"


def memory_words(estimate: StageCost, n_bytes: int | None = None) -> str:
    """The memory of a stage, or of so many bytes that are estimated as it is, in words."""
    amount = (n_bytes or estimate.memory) / 2**30
    return f"{'at least' if estimate.at_least else 'about'} {amount:.2f} GiB"


def _seconds(seconds: float) -> str:
    """12 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
