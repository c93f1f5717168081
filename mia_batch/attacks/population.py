"""Attack-P: how a loss compares with those of a population that the network has not seen.

Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models", arXiv 2111.09679.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult, AttackSettings, result_over_all_rows
from mia_batch.attacks.thresholds import decision_task, no_parameters
from mia_batch.errors import Problem
from mia_batch.metrics.ranking import best_threshold
from mia_batch.samples import Samples, Split
from mia_batch.search.tasks import Task

Floats = NDArray[np.float64]


def n_at_least(population: Floats, loss: Floats) -> NDArray[np.int64]:
    """How many of the population's losses, sorted, are >= each loss, (n,)."""
    return len(population) - np.searchsorted(population, loss, side="left")


@dataclass(frozen=True)
class PopulationAttack:
    """The score is the share of the population's losses that are >= the row's, in [0, 1].

    The population of a split is its fit rows' non-members. With m of them a score is a multiple of 1 / m. Rows that no
    loss of the population parts tie: all that have at most its smallest loss are at 1, members or not, so that no false
    positive rate below about 1 / m can be resolved. Otherwise a split's rows are in the order of their losses.
    """

    name: str
    needs = frozenset({"member", "loss"})

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """It has no parameters."""
        return no_parameters(self.name, params)

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """One: the share above which a row is called member, on every split."""
        return decision_task(self.name, samples, _Decisions())

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The shares as scores, and the decisions."""
        thresholds: list[float] = results[f"{self.name}/all"]
        populations = [_population(samples, split) for split in samples.splits]
        shares = [
            n_at_least(population, _loss(samples, split.evaluated)) / len(population)
            for population, split in zip(populations, samples.splits, strict=True)
        ]
        scored = [(share, (share >= t).astype(np.int8)) for share, t in zip(shares, thresholds, strict=True)]
        provenance = {"thresholds": thresholds, "n_population": [len(population) for population in populations]}
        return result_over_all_rows(self.name, samples, scored, provenance=provenance)


@dataclass(frozen=True)
class _Decisions:
    """The work of Attack-P."""

    def run(self, samples: Samples) -> list[float]:
        """Of each split the share with the best balanced accuracy on the fit rows."""
        return [self._decision(samples, split) for split in samples.splits]

    def _decision(self, samples: Samples, split: Split) -> float:
        member, population = samples.member[split.fit], _population(samples, split)
        m, n = len(population), n_at_least(population, _loss(samples, split.fit))
        shares = np.where(member == 1, n / m, (n - 1) / (m - 1))  # a non-member is compared with the others
        return best_threshold(shares, member)[0]


def _loss(samples: Samples, rows: NDArray[np.int64]) -> Floats:
    loss: Floats = samples.columns["loss"][rows]
    return loss


def _population(samples: Samples, split: Split) -> Floats:
    return np.sort(_loss(samples, split.fit[samples.member[split.fit] == 0]))


ATTACK_P = PopulationAttack("attack_p")
