"""The audits of one training run joined by step: verdicts, losses of each sample, and what arrived in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.report.summary import MetricSummary, Summary, read_summary
from mia_batch.rundir.features import read_features
from mia_batch.rundir.identity import trajectory_identity
from mia_batch.rundir.manifest import Manifest, known_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import furthest, read_state, reduce_status
from mia_batch.rundir.trainings import Audited, Training, audited_by, audited_content, trainings
from mia_batch.stages.joining import rows_as_in
from mia_batch.stages.trajectory_attacks import OfScores, lira_over_steps, update_between
from mia_batch.stages.trajectory_columns import Checkpoint, losses_of

NAMED = 5  # trainings, or runs of one, before "and so on"


@dataclass(frozen=True)
class Run:
    """A finished audit.

    Attributes:
        paths: of its files.
        manifest: its run.json.
        audited: the checkpoint.
        summary: what it found.
    """

    paths: RunPaths
    manifest: Manifest
    audited: Audited
    summary: Summary


@dataclass(frozen=True)
class Step:
    """One checkpoint, as its audit found it.

    Attributes:
        run: name of the run directory.
        checkpoint: file name.
        step: such as "10 1875" for epoch and step; "" where nothing tells it.
        outcome: leak, no leak or inconclusive.
        attack: of the highest balanced accuracy; "" where none has one.
        balanced_accuracy: of it; None likewise. Its interval does not allow for the choice of the attack.
    """

    run: str
    checkpoint: str
    step: str
    outcome: str
    attack: str = ""
    balanced_accuracy: MetricSummary | None = None

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return f"step {self.step}" if self.step else self.checkpoint


@dataclass(frozen=True)
class FirstLeak:
    """The first step whose audit found a leak, and `after`, the last before it that found none.

    Attributes:
        step: of the leak.
        after: None where no audit before it found none.
        n_inconclusive: audits in between that cannot say.
    """

    step: Step
    after: Step | None
    n_inconclusive: int


@dataclass(frozen=True)
class Records:
    """The samples of all audits, in the order of the first.

    Attributes:
        split: (n_samples,).
        sample_index: (n_samples,) position in the split.
        label: (n_samples,); None of losses without labels.
        member: (n_samples, n_steps) 1 where the sample was a member at that step.
        loss: (n_samples, n_steps) nats.
    """

    split: NDArray[np.str_]
    sample_index: NDArray[np.int64]
    label: NDArray[np.int32] | None
    member: NDArray[np.int8]
    loss: NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """The audits of one training run.

    Attributes:
        training: its id, such as `history` has one.
        steps: oldest first.
        level: of the intervals.
        records: of all samples.
        updates: one for each two steps that follow one another.
        lira: LiRA over all steps, of the members of the last.
        left_out: by run that has no part in this, why.
        cautions: what else a reader must know, a sentence each.
    """

    training: str
    steps: tuple[Step, ...]
    level: float
    records: Records
    updates: tuple[OfScores, ...]
    lira: OfScores
    left_out: Mapping[str, str]
    cautions: tuple[str, ...]

    @property
    def first_leak(self) -> FirstLeak | None:
        """By the audits' verdicts; None where none found a leak."""
        return first_leak(self.steps)


def read_trajectory(folder: Path) -> Trajectory:
    """Join the audits in `folder` by step.

    Raises:
        InputError: it is no directory, has no finished audit or those of several trainings, or the samples differ.
    """
    runs, left_out = _finished(folder)
    return _join(_one_training(folder, [run.audited for run in runs.values()]), runs, left_out)


def read_trajectories(folder: Path) -> dict[str, Trajectory | InputError]:
    """Join the audits in `folder` by training and step: by training's id the trajectory, or why there is none.

    Raises:
        InputError: it is no directory, or has no finished audit.
    """
    runs, left_out = _finished(folder)
    found: dict[str, Trajectory | InputError] = {}
    for training in trainings(run.audited for run in runs.values()):
        try:
            found[training.id] = _join(training, runs, left_out)
        except InputError as error:
            found[training.id] = error
    return found


def _join(training: Training, runs: Mapping[str, Run], left_out: Mapping[str, str]) -> Trajectory:
    kept, again = _once_each(training, runs)
    chosen = [runs[run] for run in kept]
    steps = tuple(_step(runs[run], numbers) for run, numbers in kept.items())
    checkpoints = [Checkpoint(run.paths, run.manifest, read_features(run.paths.features)) for run in chosen]
    level = chosen[-1].summary.level
    return Trajectory(
        training.id, steps, level, _joined(checkpoints),
        tuple(update_between(*pair, level=level) for pair in pairwise(checkpoints)),
        lira_over_steps(checkpoints, level=level), {**left_out, **again}, tuple(_cautions(chosen)),
    )  # fmt: skip


def _finished(folder: Path) -> tuple[dict[str, Run], dict[str, str]]:
    """The audits with a verdict by run, and of the others why not.

    Raises:
        InputError: `folder` is no directory, or has none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: RUNS: must be a directory of run directories")
    found, left_out = {}, {}
    for paths in runs_in(folder):
        run = paths.root.name
        try:
            manifest = known_manifest(paths)
            verdict = reduce_status(paths, manifest)
            if verdict.state != "done":
                reached = verdict if verdict.state == "damaged" else furthest(read_state(paths, manifest))
                left_out[run] = " ".join(filter(None, (reached.stage, reached.state, reached.detail)))
                continue
            of_training = audited_by(run, manifest, trajectory_identity(manifest))
            found[run] = Run(paths, manifest, of_training, read_summary(paths.summary_json))
        except InputError as error:
            left_out[run] = " ".join(str(error).split())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            left_out[run] = f"run.json or summary.json: must be as a run writes it, got {one_line(error)}"
    if not found:
        raise InputError(f"{folder}: RUNS: must hold a finished audit, got {_listed(left_out) or 'no run directory'}")
    return found, left_out


def _one_training(folder: Path, audits: Sequence[Audited]) -> Training:
    found = trainings(audits)
    if len(found) == 1:
        return found[0]
    each = [f"{training.id} ({_few([audit.run for audit, _ in training.audits])})" for training in found]
    raise InputError(
        f"{folder}: RUNS: must hold audits of one training, got {len(found)}: {_few(each)}; choose a folder that "
        f"holds the runs of one"
    )


def _few(names: Sequence[str]) -> str:
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _listed(left_out: Mapping[str, str]) -> str:
    return _few([f"{run} ({why})" for run, why in left_out.items()])


def _once_each(training: Training, runs: Mapping[str, Run]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The steps' numbers by run, of each checkpoint its newest audit, and of its other audits why not."""
    by_content = {audited_content(runs[audit.run].manifest): audit.run for audit, _ in training.audits}
    newest = {audit.run: by_content[audited_content(runs[audit.run].manifest)] for audit, _ in training.audits}
    kept = {audit.run: step for audit, step in training.audits if newest[audit.run] == audit.run}
    return kept, {run: f"{other} audits the same checkpoint" for run, other in newest.items() if run not in kept}


def _step(run: Run, numbers: tuple[int, ...]) -> Step:
    values = {name: method.metrics.get("balanced_accuracy") for name, method in run.summary.methods.items()}
    known = {name: each for name, each in values.items() if each is not None and each.value is not None}
    best = max(known, key=lambda name: known[name].value or 0.0, default="")
    step, verdict = " ".join(map(str, numbers)), run.summary.verdict
    return Step(run.audited.run, run.audited.path.name, step, verdict.outcome, best, known.get(best))


def first_leak(steps: Sequence[Step]) -> FirstLeak | None:
    """Of steps in the order of training."""
    outcomes = [step.outcome for step in steps]
    if "leak" not in outcomes:
        return None
    at = outcomes.index("leak")
    after = max((i for i in range(at) if outcomes[i] == "no leak"), default=-1)
    return FirstLeak(steps[at], steps[after] if after >= 0 else None, at - after - 1)


def _joined(checkpoints: Sequence[Checkpoint]) -> Records:
    first = checkpoints[0]
    rows = [rows_as_in(first.features, each.features, each.paths.features, first.name) for each in checkpoints]
    member = np.stack([each.features.member[order] for each, order in zip(checkpoints, rows, strict=True)], axis=1)
    split, sample_index = first.features.split, first.features.sample_index
    return Records(split, sample_index, first.features.label, member, losses_of(first, checkpoints))


def _cautions(runs: Sequence[Run]) -> list[str]:
    if any(run.summary.augment_members for run in runs):
        return ["Members are cropped and flipped at random (augment_members): so do their losses vary."]
    return []
