"""The blind baseline beside the attacks: whether a verdict is about the model, or about the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import Estimate
from mia_batch.metrics.comparison import auc_difference
from mia_batch.metrics.ranking import auc

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
    member: NDArray[np.bool_], blind: Floats, attacks: Mapping[str, Floats], *, alpha: float, statistics: bool
) -> Baseline:
    """The baseline and the best of the attacks, on rows that all of them scored.

    Args:
        member: membership, shape (n_samples,).
        blind: the baseline's scores, shape (n_samples,), higher for members.
        attacks: scores of the evaluable attacks by name, shape (n_samples,).
        alpha: the error of calling an attack better, over all of them.
        statistics: whether the baseline has the inputs' statistics.
    """
    found = {name: auc(member, scores) for name, scores in attacks.items()}
    found = {name: area for name, area in found.items() if area.defined}
    if not found:
        return Baseline(auc(member, blind), None, None, None, statistics)
    best = max(found, key=lambda name: found[name].value)
    difference = auc_difference(member, attacks[best], blind, level=1 - 2 * alpha / len(attacks))
    return Baseline(auc(member, blind), best, found[best], difference, statistics)
