"""The audits of one training run joined by step: verdicts, losses of each sample, and what arrived in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.grouping import twins
from mia_batch.attacks.trajectories import update_attack
from mia_batch.errors import InputError, one_line
from mia_batch.inputs import NO_GROUP
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import auc
from mia_batch.report.summary import MetricSummary, Summary, read_summary
from mia_batch.rundir.features import Features, read_features
from mia_batch.rundir.identity import trajectory_identity
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import furthest, read_state, reduce_status
from mia_batch.rundir.trainings import Audited, Training, audited_by, trainings

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
class Update:
    """The update attack between two steps; `reason` says why it was not run.

    Attributes:
        before: the step before the update.
        now: the step after it.
        n_arrived: samples that are members now and were not.
        n_stayed: samples that are non-members at both.
        n_twins: of both, those left out because their input is on both sides.
        auc: of phi_now - phi_before, arrived against stayed; None where it was not run.
    """

    before: Step
    now: Step
    n_arrived: int
    n_stayed: int
    n_twins: int = 0
    auc: Estimate | None = None
    reason: str = ""


@dataclass(frozen=True)
class Trajectory:
    """The audits of one training run.

    Attributes:
        training: its id, such as `history` has one.
        steps: oldest first.
        level: of the intervals.
        records: of all samples.
        updates: one for each two steps that follow one another.
        left_out: by run that has no part in this, why.
        cautions: what else a reader must know, a sentence each.
    """

    training: str
    steps: tuple[Step, ...]
    level: float
    records: Records
    updates: tuple[Update, ...]
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
    if not folder.is_dir():
        raise InputError(f"{folder}: RUNS: must be a directory of run directories")
    runs, left_out = _finished(folder)
    if not runs:
        raise InputError(f"{folder}: RUNS: must hold a finished audit, got {_listed(left_out) or 'no run directory'}")
    training = _one_training(folder, [run.audited for run in runs.values()])
    kept, again = _once_each(training, runs)
    chosen = [runs[run] for run in kept]
    steps = tuple(_step(runs[run], numbers) for run, numbers in kept.items())
    records, first = _joined(chosen)
    updates = tuple(
        _update(chosen[t - 1 : t + 1], steps[t - 1 : t + 1], records.member[:, t - 1 : t + 1], first)
        for t in range(1, len(steps))
    )
    cautions = tuple(_cautions(chosen, first, updates))
    level = chosen[-1].summary.level
    return Trajectory(training.id, steps, level, records, updates, left_out | again, cautions)


def _finished(folder: Path) -> tuple[dict[str, Run], dict[str, str]]:
    """The audits with a verdict by run, and of the others why not."""
    found, left_out = {}, {}
    for paths in runs_in(folder):
        run = paths.root.name
        try:
            manifest = read_manifest(paths)
            if manifest is None:
                raise InputError(f"{paths.manifest}: must stay there")
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
    by_content = {_content(runs[audit.run]): audit.run for audit, _ in training.audits}
    newest = {audit.run: by_content[_content(runs[audit.run])] for audit, _ in training.audits}
    kept = {audit.run: step for audit, step in training.audits if newest[audit.run] == audit.run}
    return kept, {run: f"{other} audits the same checkpoint" for run, other in newest.items() if run not in kept}


def _content(run: Run) -> tuple[str, ...]:
    """What tells a checkpoint, or its imported outputs, from others."""
    files = (digest for field, digest in run.manifest.digests.items() if field.startswith("data.files"))
    return (run.audited.sha256, *files)


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


def _joined(runs: Sequence[Run]) -> tuple[Records, Features]:
    """The records, and the features of the first run, whose order of samples they have."""
    first = read_features(runs[0].paths.features)
    member = np.empty((len(first.loss), len(runs)), dtype=np.int8)
    loss = np.empty(member.shape)
    for t, run in enumerate(runs):
        found = first if t == 0 else read_features(run.paths.features)
        order = _order(first, found)
        if order is None or (what := _unlike(first, found, order)):
            problem = _other_samples(first, found) if order is None else what
            raise InputError(f"{run.paths.features}: samples: must be those of {runs[0].audited.run}, got {problem}")
        member[:, t], loss[:, t] = found.member[order], found.loss[order]
    return Records(first.split, first.sample_index, first.label, member, loss), first


def _order(first: Features, other: Features) -> NDArray[np.int64] | slice | None:
    """The rows of `other` in the order of `first`; None where they are not the same samples."""
    if len(first.loss) != len(other.loss):
        return None
    if _same_keys(first, slice(None), other, slice(None)):
        return slice(None)
    ours, theirs = (np.lexsort((each.sample_index, each.split)) for each in (first, other))
    if not _same_keys(first, ours, other, theirs):
        return None
    order = np.empty(len(ours), dtype=np.int64)
    order[ours] = theirs
    return order


def _same_keys(
    first: Features, ours: NDArray[np.int64] | slice, other: Features, theirs: NDArray[np.int64] | slice
) -> bool:
    return np.array_equal(first.sample_index[ours], other.sample_index[theirs]) and np.array_equal(
        first.split[ours], other.split[theirs]
    )


def _other_samples(first: Features, other: Features) -> str:
    """How they differ, and one that does."""
    ours, theirs = (set(zip(each.split.tolist(), each.sample_index.tolist(), strict=True)) for each in (first, other))
    split, index = min(ours ^ theirs, default=("?", "that comes twice"))
    return f"{len(theirs - ours)} others and {len(ours - theirs)} missing, such as {split} {index}"


def _unlike(first: Features, other: Features, order: NDArray[np.int64] | slice) -> str:
    """Which sample has another label or input, although its split and index are the same; "" without one."""
    for name in ("label", "content"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours is None or theirs is None:
            continue
        differ = np.flatnonzero((ours != theirs[order]).reshape(len(ours), -1).any(axis=1))
        if differ.size:
            row, what = differ[0], "label" if name == "label" else "input"
            return f"another {what} of {first.split[row]} {first.sample_index[row]}"
    return ""


def _update(runs: Sequence[Run], steps: Sequence[Step], member: NDArray[np.int8], first: Features) -> Update:
    """Between two steps, `member` (n_samples, 2)."""
    outside = member[:, 0] == 0
    arrived, stayed = outside & (member[:, 1] == 1), outside & (member[:, 1] == 0)
    found = Update(steps[0], steps[1], int(arrived.sum()), int(stayed.sum()))
    if not found.n_arrived:
        return replace(found, reason="no sample arrived in between")
    rows = np.flatnonzero(arrived | stayed)
    twin = twins(None if first.content is None else first.content[rows], arrived[rows].astype(np.int8))
    found, rows = replace(found, n_twins=int(twin.sum())), rows[~twin]
    if len(np.unique(arrived[rows])) < 2:
        aside = ", those aside whose input is in both" if found.n_twins else ""
        return replace(found, reason=f"no sample {'stayed outside' if arrived[rows].any() else 'arrived'}{aside}")
    before, now = (_phi(run, first, rows) for run in runs)
    if before is None or now is None:
        return replace(found, reason="it needs logits, and an audit is of losses alone")
    return replace(found, auc=auc(arrived[rows], update_attack(before, now), level=runs[-1].summary.level))


def _phi(run: Run, first: Features, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Of some samples; `rows` counts as the first run does."""
    found = read_features(run.paths.features)
    order = _order(first, found)
    if found.logits is None or found.label is None or order is None:
        return None
    own = rows if isinstance(order, slice) else order[rows]
    return signals.phi(np.asarray(found.logits[own]), found.label[own])


def _cautions(runs: Sequence[Run], first: Features, updates: Sequence[Update]) -> list[str]:
    cautions = []
    if any(run.summary.augment_members for run in runs):
        cautions.append("Members are cropped and flipped at random (augment_members): so do their losses vary.")
    groups = np.empty(0) if first.group is None else first.group[first.group != NO_GROUP]
    if any(update.auc for update in updates) and len(np.unique(groups)) < len(groups):
        cautions.append("The update attack's interval takes samples of one group for independent: it is too narrow.")
    return cautions
