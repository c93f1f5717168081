"""Attacks on the checkpoints of a training that are no attacks of one audit: over all of them, and between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.grouping import design_effects, group_codes, twins
from mia_batch.attacks.trajectories import update_attack
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import FPRS, fpr_name
from mia_batch.metrics.registry import evaluate
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import AttackConfig, MethodConfig
from mia_batch.stages.attack import run_attacks, samples_of
from mia_batch.stages.joining import rows_as_in
from mia_batch.stages.reduce import undefined_logged
from mia_batch.stages.reference_columns import audited_references, missing_outputs
from mia_batch.stages.trajectory_columns import Checkpoint, phi_of, reference_trajectories, why_no_references

LIRA = "lira_trajectory"
SHOWN = ("auc", *map(fpr_name, FPRS))
LOSSES_ALONE = "it needs logits, and an audit is of losses alone"


@dataclass(frozen=True)
class OfScores:
    """What scores of samples say; `reason` says why there are none.

    Attributes:
        n_members: samples that are called members: of an update, those that arrived.
        n_nonmembers: samples that are called none: of an update, those that stayed outside.
        n_twins: of both, those left out because their input is on both sides.
        n_left_out: samples left out because their membership changed on the way.
        metrics: of `SHOWN`, by name, with intervals; empty where it was not run.
        reason: "" where it was run.
    """

    n_members: int = 0
    n_nonmembers: int = 0
    n_twins: int = 0
    n_left_out: int = 0
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    reason: str = ""


def update_between(before: Checkpoint, now: Checkpoint, *, level: float) -> OfScores:
    """The update attack: phi_now - phi_before of samples that arrived, against those that stayed outside.

    Args:
        before: the checkpoint before the update.
        now: the one after it.
        level: of the intervals.
    """
    rows = rows_as_in(now.features, before.features, before.paths.features, now.name)
    outside, member = before.features.member[rows] == 0, now.features.member
    arrived, stayed = outside & (member == 1), outside & (member == 0)
    found = OfScores(int(arrived.sum()), int(stayed.sum()))
    if not arrived.any():
        return replace(found, reason="no sample arrived in between")
    twin = outside & _twins_among(now.features, outside)
    found, chosen = replace(found, n_twins=int(twin.sum())), outside & ~twin
    aside = ", those aside whose input is in both" if twin.any() else ""
    if not (arrived & chosen).any() or not (stayed & chosen).any():
        who = "stayed outside" if (arrived & chosen).any() else "arrived"
        return replace(found, reason=f"no sample {who}{aside}")
    if before.features.logits is None or now.features.logits is None:
        return replace(found, reason=LOSSES_ALONE)
    scores = update_attack(*(phi_of(now, each)[chosen] for each in (before, now)))
    group = _groups(now.features)[chosen]
    metrics = _metrics("update", arrived[chosen], scores, group, cross_fitted=False, level=level)
    return replace(found, metrics=metrics)


def lira_over_steps(checkpoints: Sequence[Checkpoint], *, level: float) -> OfScores:
    """LiRA over all checkpoints, of samples whose membership stayed the same, split as the last audit splits them.

    Args:
        checkpoints: of the audits of one training, oldest first.
        level: of the intervals.

    Raises:
        InputError: inclusion of references differs from audit to audit, or betrays members.
    """
    if why := _why_no_lira(checkpoints):
        return OfScores(reason=why)
    own = checkpoints[-1]
    known = audited_references(own.manifest, own.features)
    if not known:
        return OfScores(reason="every reference is the complement of the target")
    known |= {"trajectory_phi": np.stack([phi_of(own, each) for each in checkpoints], axis=1)}
    known |= reference_trajectories(checkpoints)
    settings, changed = _section(own), _changed(checkpoints)
    samples = samples_of(own.features, settings, [], known, left_out=changed)
    found = run_attacks(samples, settings, n_jobs=1)[LIRA]
    if found.reason:
        return OfScores(reason=found.reason)
    rows = found.evaluated
    metrics = _metrics(
        LIRA, found.member[rows], found.scores[rows], _groups(own.features)[rows],
        cross_fitted=bool(found.scored_by.max() > 0), level=level,
    )  # fmt: skip
    n_members, n_twins = int(found.member[rows].sum()), int(twins(own.features.content, own.features.member).sum())
    return OfScores(n_members, int(rows.sum()) - n_members, n_twins, int(changed.sum()), metrics)


def _why_no_lira(checkpoints: Sequence[Checkpoint]) -> str:
    """"" where it can be made."""
    if len(checkpoints) < 2:
        return "there is one checkpoint"
    if any(each.features.logits is None for each in checkpoints):
        return LOSSES_ALONE
    if why := why_no_references(checkpoints):
        return f"it needs references of each step: {why}"
    missing = ((each.name, missing_outputs(each.manifest, each.features)) for each in checkpoints)
    return next((f"of {name} {why}" for name, why in missing if why), "")


def _section(own: Checkpoint) -> AttackConfig:
    """How the last audit splits its rows."""
    known = own.manifest.config["attack"]
    kept = {key: known[key] for key in ("seed", "eval", "eval_fraction", "max_rows", "cv") if key in known}
    return AttackConfig(methods=(MethodConfig(method=LIRA),), backend="serial", **kept)


def _changed(checkpoints: Sequence[Checkpoint]) -> NDArray[np.bool_]:
    """The samples that were members at some steps and not at others, in the order of the last."""
    own = checkpoints[-1]
    found = np.zeros(len(own.features.member), dtype=bool)
    for each in checkpoints[:-1]:
        rows = rows_as_in(own.features, each.features, each.paths.features, own.name)
        found |= each.features.member[rows] != own.features.member
    return found


def _twins_among(features: Features, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of some samples, those whose input is on both sides of them, (n_samples,)."""
    found = np.zeros(len(chosen), dtype=bool)
    found[chosen] = twins(
        None if features.content is None else features.content[chosen], features.member[chosen]
    )
    return found


def _groups(features: Features) -> NDArray[np.int64]:
    return group_codes(features.content, features.group, len(features.member))


def _metrics(
    name: str, member: NDArray[Any], scores: NDArray[np.float64], group: NDArray[np.int64], *, cross_fitted: bool,
    level: float,
) -> dict[str, Estimate]:
    effects = design_effects(member.astype(np.int8), group, cross_fitted=cross_fitted)
    with undefined_logged(name):
        decided = np.zeros(len(member), dtype=np.int8)  # which none of these looks at
        return evaluate(member, decided, scores, level=level, names=SHOWN, effects=effects)
