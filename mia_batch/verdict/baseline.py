"""The blind baseline beside the attacks: whether a verdict is about the model, or about the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import INDEPENDENT, Effects, Estimate
from mia_batch.metrics.comparison import auc_difference
from mia_batch.metrics.registry import evaluate

BLIND_LIMIT = 0.52  # AUC of the baseline: members and non-members that it can tell apart better are not alike
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """What tells members from non-members without the model, and whether an attack does better.

    Attributes:
        auc: of the baseline.
        best: the attack of the largest AUC on the same rows; None if no attack is evaluable.
        best_auc: its AUC.
        difference: its AUC less the baseline's, paired; the lower bound allows for the choice among the attacks.
        statistics: whether the baseline has the inputs' statistics; else it has the labels alone.
    """

    auc: Estimate
    best: str | None
    best_auc: Estimate | None
    difference: Estimate | None
    statistics: bool

    @property
    def tells(self) -> bool:
        """Whether members and non-members are shown to differ without the model; NaN is above nothing."""
        return self.auc.low > BLIND_LIMIT

    def confounds(self, leak: bool | None) -> bool:
        """Whether a verdict cannot be trusted.

        A leak stands if the best attack is shown to do better than the baseline. Where the sides differ, nothing else
        does: what tells them apart can also hide a leak, as members that are harder than non-members do.
        """
        beaten = self.difference is not None and self.difference.low > 0
        return self.tells and not (leak is True and beaten)


def compare(
    member: NDArray[np.bool_], blind: Floats, attacks: Mapping[str, Floats], *, alpha: float, statistics: bool,
    effects: Effects = INDEPENDENT,
) -> Baseline:
    """The baseline and the best of the attacks, on rows that all of them scored.

    Args:
        member: membership, shape (n_samples,), with both sides.
        blind: the baseline's scores, shape (n_samples,), higher for members.
        attacks: scores of the evaluable attacks by name, shape (n_samples,).
        alpha: the error of calling an attack better, over all of them.
        statistics: whether the baseline has the inputs' statistics.
        effects: how many members, and non-members, count as one in a bound.
    """
    area, *areas = (_auc(member, scores, effects) for scores in (blind, *attacks.values()))
    if not areas:
        return Baseline(area, None, None, None, statistics)
    best = max(range(len(areas)), key=lambda i: areas[i].value)
    name = list(attacks)[best]
    paired = auc_difference(member, attacks[name], blind, level=1 - 2 * alpha / len(attacks))
    return Baseline(area, name, areas[best], _widened(paired, max(effects)), statistics)


def _auc(member: NDArray[np.bool_], scores: Floats, effects: Effects) -> Estimate:
    return evaluate(member, member, scores, names=("auc",), effects=effects)["auc"]


def _widened(found: Estimate, effect: float) -> Estimate:
    """The interval of so many fewer samples. Those of a pair are ranked differently, so that none can be left out."""
    low, high = (found.value + (end - found.value) * math.sqrt(effect) for end in (found.low, found.high))
    return Estimate(found.value, max(-1.0, low), min(1.0, high), found.reason)
