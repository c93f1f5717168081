"""The reducer's self-checks: the blind baseline beside the attacks, the permutation test, parity of the sides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult, taken
from mia_batch.inputs import STATISTICS
from mia_batch.metrics.base import Effects
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import Config
from mia_batch.verdict.baseline import Baseline, compare
from mia_batch.verdict.checks import Checks, one_of_each, permutation
from mia_batch.verdict.parity import Mix, Parity, Sides, mix

Rows = NDArray[np.bool_]


def self_checks(
    config: Config, features: Features, twin: Rows, results: Mapping[str, AttackResult], blind: AttackResult | None,
    *, effects: Effects, command: str, group: NDArray[np.int64] | None = None,
) -> Checks:
    """What the audit checks of itself.

    Args:
        config: of the run.
        features: of the samples, n_samples rows.
        twin: rows whose input is on both sides, shape (n_samples,).
        results: by method; all that are evaluable score the same rows.
        blind: the blind baseline's; None if it was not made.
        effects: how many members, and non-members, count as one in a bound.
        command: what makes the baseline.
        group: rows of one number belong together, shape (n_samples,); None for rows that stand alone.
    """
    attacks = {name: result for name, result in results.items() if not result.reason}
    first = next(iter(attacks.values()), None)
    rows = np.zeros(len(twin), dtype=bool) if first is None else first.evaluated & ~twin
    scored_by = np.zeros(len(twin)) if first is None else first.scored_by
    both = rows if blind is None else blind.evaluated & (rows if attacks else ~twin)
    unchecked = ""
    if blind is None:
        unchecked = f"the blind baseline was not made; make it with: {command}"
    elif blind.reason or len(np.unique(features.member[both])) < 2:
        unchecked = f"the blind baseline is not evaluable: {blind.reason.rstrip('.') or 'one side alone was scored'}"
    return Checks(
        None if blind is None or unchecked else _baseline(config, attacks, blind, both, effects), unchecked,
        permutation(
            taken(features.member, rows) == 1, {name: taken(result.scores, rows) for name, result in attacks.items()},
            taken(scored_by, rows), None if group is None else taken(group, rows), seed=config.attack.seed,
        ),
        tuple(attacks), _parity(config, features, twin, rows, group),
    )  # fmt: skip


def _baseline(
    config: Config, attacks: Mapping[str, AttackResult], blind: AttackResult, both: Rows, effects: Effects
) -> Baseline:
    return compare(
        taken(blind.member, both) == 1, taken(blind.scores, both),
        {name: taken(result.scores, both) for name, result in attacks.items()},
        alpha=config.gate.gate().alpha, statistics=bool(blind.provenance.get("statistics")), effects=effects,
    )  # fmt: skip


def _parity(
    config: Config, features: Features, twin: Rows, rows: Rows, group: NDArray[np.int64] | None
) -> Parity:
    member, statistics = features.member == 1, features.statistics
    chosen = slice(None) if group is None else one_of_each(group, member)

    def compared(kind: NDArray[np.integer]) -> Mix | None:
        return mix(member[chosen], kind[chosen], seed=config.attack.seed)

    sizes, ranges = None, None
    if statistics is not None:
        column = dict(zip(STATISTICS, statistics.T, strict=True))
        _, size = np.unique(np.stack([column["height"], column["width"]]), axis=1, return_inverse=True)
        sizes, ranges = compared(size.ravel()), (_range(column, member), _range(column, ~member))
    return Parity(
        _sides(member, np.ones_like(twin)), _sides(member, twin), _sides(member, rows), config.data.augment_members,
        None if features.label is None else compared(features.label), sizes, ranges,
    )  # fmt: skip


def _range(column: Mapping[str, NDArray[np.float32]], rows: Rows) -> tuple[float, float]:
    return float(column["minimum"][rows].min(initial=np.inf)), float(column["maximum"][rows].max(initial=-np.inf))


def _sides(member: Rows, rows: Rows) -> Sides:
    return int((member & rows).sum()), int((~member & rows).sum())
