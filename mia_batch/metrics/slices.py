"""Metrics of subsets of the samples, and the worst of them by bounds that hold for all at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_batch.metrics.base import (
    INDEPENDENT,
    LEVEL,
    Effects,
    Estimate,
    UndefinedMetricWarning,
    check_binary,
    check_level,
    check_scores,
)
from mia_batch.metrics.registry import evaluate

WORST_BY = "balanced_accuracy"  # what the worst slice is shown by: the gate's measure, free of the base rate
FEWEST = 10  # members, and non-members, of a slice that has figures
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """A subset of the scored samples; two may overlap."""

    name: str
    rows: Rows  # (n,) numbers of its samples, ascending


@dataclass(frozen=True)
class SliceEstimates:
    """Metrics of a slice by name: with an interval for itself, and with one that holds together with all others."""

    own: Mapping[str, Estimate]
    together: Mapping[str, Estimate]


def slices_by_value(name: str, value: NDArray[np.integer], names: Mapping[int, str]) -> list[Slice]:
    """A slice `NAME=value` for each value that samples have, in the order of the values.

    Args:
        name: of the slicing, such as class.
        value: number of each sample's value, (n_samples,).
        names: of the values; one that it lacks is called by its number.
    """
    order = np.argsort(value, kind="stable")
    found, first = np.unique(value[order], return_index=True)
    parts = np.split(order, first[1:]) if len(found) else []
    return [Slice(f"{name}={names.get(int(v), v)}", rows) for v, rows in zip(found, parts, strict=True)]


def too_few(member: ArrayLike, *, fewest: int = FEWEST) -> str | None:
    """Why a slice of these samples has no figures; None if it has.

    Args:
        member: membership of its samples, 0 or 1, shape (n_samples,).
        fewest: members, and non-members, that it must have.
    """
    truth = check_binary("member", member)
    n_members = int(np.count_nonzero(truth))
    if min(n_members, len(truth) - n_members) >= fewest:
        return None
    return f"{n_members} members and {len(truth) - n_members} non-members, fewer than {fewest} of one"


def level_together(n_bounds: int, *, level: float = LEVEL) -> float:
    """The level of each of so many intervals, of which all hold at once at `level` (Bonferroni)."""
    check_level(level)
    return 1 - (1 - level) / max(1, n_bounds)


def evaluate_slices(
    member: ArrayLike, predicted: ArrayLike, scores: ArrayLike, slices: Sequence[Slice], *, names: Collection[str],
    n_attacks: int = 1, level: float = LEVEL, effects: Callable[[Rows], Effects] = lambda rows: INDEPENDENT,
) -> dict[str, SliceEstimates]:
    """Metrics of one attack in each slice.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        scores: shape (n_samples,), any number except NaN, higher for members.
        slices: those that have enough samples, see `too_few`.
        names: which metrics.
        n_attacks: attacks whose slices are looked at together.
        level: of every interval for itself, and of all at once.
        effects: how many of a slice's members, and non-members, count as one, from its rows.

    Returns:
        By name of the slice. What has no value says why, without a warning: of many slices some lack something.

    Raises:
        ValueError: wrong shapes, values out of range, or a level out of range.
    """
    truth = check_binary("member", member)
    said, values = check_binary("predicted", predicted, len(truth)), check_scores(scores, len(truth))
    at_once = level_together(len(slices) * n_attacks, level=level)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for each in slices:
            own, together = (
                evaluate(
                    truth[each.rows], said[each.rows], values[each.rows], level=at, names=names,
                    effects=effects(each.rows),
                ) for at in (level, at_once)
            )  # fmt: skip
            found[each.name] = SliceEstimates(own, together)
    return found


def worst_slices(found: Mapping[str, SliceEstimates]) -> dict[str, tuple[str, Estimate]]:
    """For each metric that some slice has, the slice of the highest lower bound, with its interval.

    As all intervals hold at once, so does that of the slice that is chosen, whichever it is: some slice has at least
    this much. Of equal bounds the higher value is worse, and of equal values the first.
    """
    worst: dict[str, tuple[str, Estimate]] = {}
    for name, estimates in found.items():
        for metric, each in estimates.together.items():
            if each.defined and (metric not in worst or _key(each) > _key(worst[metric][1])):
                worst[metric] = name, each
    return worst


def _key(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.value
