"""Metrics of subsets of the samples: classes, columns of imported outputs, and files of indices."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult, taken
from mia_batch.attacks.grouping import design_effects
from mia_batch.data.slices import named_slices, slice_columns
from mia_batch.metrics.base import Effects, Estimate
from mia_batch.metrics.registry import METRICS
from mia_batch.metrics.slices import (
    Slice,
    SliceEstimates,
    evaluate_slices,
    slices_by_value,
    too_few,
    worst_slices,
)
from mia_batch.report.summary import MetricSummary, SlicesSummary, SliceSummary, WorstSummary, plain
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import CLASS, ReportConfig

log = logging.getLogger(__name__)
Group = NDArray[np.integer] | None


def look_at_slices(
    report: ReportConfig, features: Features, results: Mapping[str, AttackResult], group: Group = None
) -> SlicesSummary | None:
    """Every metric of each slice; None where none are asked for.

    Args:
        report: what slices there are by class and by files.
        features: of the samples, n_samples rows; imported ones have slices by column.
        results: of the attacks, over the same rows; those that have scores have them for the same rows.
        group: numbers of the rows' groups, (n_samples,); None for rows that stand alone.

    Raises:
        InputError: a bad index file, or a bad file of values.
    """
    attacks = {name: result for name, result in results.items() if not result.reason}
    first = next(iter(attacks.values()), None)
    if first is None or not (report.slices or report.slices_by or features.slices):
        return None
    slices = _slices(report, features, first.evaluated)
    member, metrics = first.scored(first.member), tuple(METRICS)
    reasons = {each.name: too_few(member[each.rows]) for each in slices}
    enough = [each for each in slices if not reasons[each.name]]
    found = {}
    for name, result in attacks.items():
        found[name] = evaluate_slices(
            member, result.scored(result.predicted), result.scored(result.scores), enough, names=metrics,
            n_attacks=len(attacks), effects=partial(_effects, result, _scored_groups(result, group)),
        )  # fmt: skip
    return SlicesSummary(
        n_slices=len(enough), n_attacks=len(attacks),
        slices=tuple(_slice(each, member, reasons[each.name], found, metrics) for each in slices),
        worst={name: _worst(of_attack) for name, of_attack in found.items()},
    )  # fmt: skip


def _slices(report: ReportConfig, features: Features, scored: NDArray[np.bool_]) -> list[Slice]:
    """All of them, among the rows that are scored."""
    found: list[Slice] = []
    if CLASS in report.slices:
        if features.label is None:
            log.warning("report.slices.class: there are no slices by class, because these samples have no labels")
        else:
            found += slices_by_value(CLASS, taken(features.label, scored), {})
    columns = slice_columns(report.slices_by, features.split, features.sample_index)
    for name, (numbers, values) in {**features.slices, **columns}.items():
        found += slices_by_value(name, taken(numbers, scored), dict(enumerate(values)))
    files = named_slices(report.slice_files(), features.split, features.sample_index)
    found += [Slice(name, np.flatnonzero(taken(named, scored))) for name, named in files.items()]
    return found


def _scored_groups(result: AttackResult, group: Group) -> Group:
    return None if group is None else taken(group, result.evaluated)


def _effects(result: AttackResult, group: Group, rows: NDArray[np.int64]) -> Effects:
    """How many of a slice's samples count as one; `rows` and `group` are of the scored ones."""
    own = None if group is None else group[rows]
    member = result.scored(result.member)[rows]
    return design_effects(member, own, cross_fitted=bool(result.scored_by.max() > 0))


def _slice(
    each: Slice, member: NDArray[np.int8], reason: str | None, found: Mapping[str, Mapping[str, SliceEstimates]],
    metrics: Iterable[str],
) -> SliceSummary:
    n_members = int((member[each.rows] == 1).sum())
    none = MetricSummary(value=None, low=None, high=None, reason=reason or "no value")
    return SliceSummary(
        name=each.name, n_members=n_members, n_nonmembers=len(each.rows) - n_members, reason=reason,
        metrics={
            attack: dict.fromkeys(metrics, none) if reason else {
                name: _metric(estimate) for name, estimate in of_attack[each.name].own.items()
            }
            for attack, of_attack in found.items()
        },
    )  # fmt: skip


def _metric(estimate: Estimate) -> MetricSummary:
    return MetricSummary(**plain(vars(estimate)))


def _worst(found: Mapping[str, SliceEstimates]) -> dict[str, WorstSummary]:
    return {
        metric: WorstSummary(slice=name, value=each.value, low=each.low, high=each.high)
        for metric, (name, each) in worst_slices(found).items()
    }
