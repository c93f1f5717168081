"""Attacks with reference models: the target's answer on a sample, against those of networks whose training is known.

What an attack computes is in a file of its family. Here is what they share: a score for each query, averaged over the
queries; a decision by the threshold that is best on the fit rows; and which references they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import (
    GROUPS,
    REFERENCE_COLUMNS,
    TRAJECTORY_COLUMNS,
    AttackResult,
    AttackSettings,
    Parameter,
    parameter_problems,
    result_over_all_rows,
)
from mia_batch.attacks.bayesian import K0, NU0, lira_bayes
from mia_batch.attacks.differences import attack_r, calibration, squared_difference
from mia_batch.attacks.fewer_references import OVER_REFERENCES, fewer_references, point
from mia_batch.attacks.grouping import design_effects
from mia_batch.attacks.lira import lira, lira_fixed, lira_offline
from mia_batch.attacks.proxy import pmia, pmia_class
from mia_batch.attacks.ratio import GAMMA, log_ratio, log_ratio_offline, rmia_scores
from mia_batch.attacks.sides import BLOCK_VALUES, References, Scores
from mia_batch.attacks.thresholds import decision_task
from mia_batch.attacks.trajectories import lira_trajectory
from mia_batch.errors import Problem
from mia_batch.metrics.ranking import best_threshold
from mia_batch.samples import (
    IN_AND_OUT,
    SOME_IN,
    SOME_OUT,
    TWO_IN_AND_OUT,
    TWO_ON_A_SIDE,
    Samples,
    Split,
    known_of_references,
)
from mia_batch.search.tasks import Task

Floats = NDArray[np.float64]

COLUMNS = frozenset({"member", *REFERENCE_COLUMNS})
SECONDS_PER_VALUE = 1e-7  # of a reference's phi
BYTES_PER_VALUE = 8 * 12  # of the target's phi, and of a block of references'
BYTES_PER_OTHER = 12  # of a reference's phi: of those that proxies have, half of all, three copies
BYTES_PER_RESIDUAL = 8 * 6  # of a reference's phi at a checkpoint: what makes a covariance, in copies
OF_FEWER = 1.2  # of the work with all references: sets of all sizes but the last, each about half of the next
PHI = ("query_phi", "reference_phi")
TRAJECTORY_PHI = (TRAJECTORY_COLUMNS[0], TRAJECTORY_COLUMNS[2])


@dataclass(frozen=True)
class ReferenceAttack:
    """Member where the score passes the threshold that is best on the fit rows.

    The score uses nothing of the target's own membership but, with `gamma`, which fit rows are non-members.
    """

    name: str
    score: Callable[..., Scores]  # of References, and of parameters by name
    sides: frozenset[str]  # what of samples.known_of_references it cannot do without
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    gamma: Parameter | None = None  # of an attack that compares with a population, see `ratio.rmia_scores`
    per_class: bool = False
    phi: tuple[str, str] = PHI  # which columns have the target's phi and the references'
    bytes_per_other: int = BYTES_PER_OTHER
    with_fewer: bool = False  # whether its result says how it does with fewer references

    @property
    def needs(self) -> frozenset[str]:
        """The phi of target and references, which were trained on what, and for proxies by class the true class."""
        return COLUMNS | {*self.phi} | self.sides | ({"label"} if self.per_class else set())

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """Each parameter has one value in its range."""
        return parameter_problems(self.name, self.all_parameters, params)

    @property
    def all_parameters(self) -> dict[str, Parameter]:
        """By name."""
        return {**self.parameters, **({"gamma": self.gamma} if self.gamma else {})}

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """One: the scores of all splits, and their thresholds."""
        params = {key: each.default for key, each in self.all_parameters.items()}
        params |= {key: values[0] for key, values in settings.params.items()}
        (task,) = decision_task(self.name, samples, _Work(self, params, settings.seed))
        n_target, n_others = (_size(samples, name) for name in self.phi)
        memory = task.memory + BYTES_PER_VALUE * (n_target + BLOCK_VALUES) + self.bytes_per_other * n_others
        seconds = SECONDS_PER_VALUE * n_others * (1 + OF_FEWER * self.with_fewer)
        return [replace(task, cost=task.cost + seconds, memory=memory, kept=False)]

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The scores and decisions, and how many samples had too few references."""
        found = results[f"{self.name}/all"]
        return result_over_all_rows(self.name, samples, found["scored"], provenance=found["provenance"])

    def of_split(self, values: Floats, samples: Samples, split: Split, gamma: float | None) -> Floats:
        """The scores of all samples, (n_samples,), as this split has them, from those of all queries."""
        if gamma is None:
            return np.asarray(values.mean(axis=1))
        return rmia_scores(values, split.fit[samples.member[split.fit] == 0], gamma=gamma)


def _size(samples: Samples, name: str) -> int:
    """Values of a column; where tasks are made for an estimate it may not be there."""
    return int(samples.columns[name].size) if name in samples.columns else 0


@dataclass(frozen=True)
class _Work:
    """The work of an attack with references: scores and decisions of each split's evaluated rows."""

    attack: ReferenceAttack
    params: Mapping[str, float | None]
    seed: int = 1

    def run(self, samples: Samples) -> dict[str, Any]:
        references = References.of(samples, *self.attack.phi)
        found = self._of(references)
        scored, thresholds = [], []
        for split in samples.splits:
            scores = self._of_split(found, samples, split)
            limit, _ = best_threshold(scores[split.fit], samples.member[split.fit])
            thresholds.append(limit)
            rows = split.evaluated
            scored.append((scores[rows], (scores[rows] >= limit).astype(np.int8)))
        curve = self._with_fewer(references, samples) if self.attack.with_fewer else []
        noted = _noted(found) | ({OVER_REFERENCES: curve} if len(curve) > 1 else {})
        return {"scored": scored, "provenance": {"thresholds": thresholds, **self.params, **noted}}

    def _of(self, references: References) -> Scores:
        return self.attack.score(references, **{key: self.params[key] for key in self.attack.parameters})

    def _of_split(self, found: Scores, samples: Samples, split: Split) -> Floats:
        return self.attack.of_split(found.values, samples, split, self.params.get("gamma"))

    def _with_fewer(self, references: References, samples: Samples) -> list[dict[str, Any]]:
        """AUC and TPR of nested sets of references, wherever one has what the attack needs."""
        rows = np.concatenate([split.evaluated for split in samples.splits])
        member, group = samples.member[rows], samples.columns.get(GROUPS)
        effects = design_effects(
            member, None if group is None else group[rows], cross_fitted=len(samples.splits) > 1
        )  # fmt: skip
        points = []
        for size, some in fewer_references(references, seed=self.seed):
            if self.attack.sides <= known_of_references(some.inside):
                found = self._of(some)
                scores = [self._of_split(found, samples, split)[split.evaluated] for split in samples.splits]
                points.append(point(size, member, np.concatenate(scores), effects))
        return [each for each in points if each]


def _noted(found: Scores) -> dict[str, Any]:
    """What the results say of the scores besides."""
    counts = {"n_offline": int(found.offline.sum()), "n_neutral": int(found.neutral.sum())}
    return {"n_samples": len(found.values), **counts, **found.notes}


_OUT, _BOTH, _TWO = frozenset({SOME_OUT}), frozenset({IN_AND_OUT}), frozenset({TWO_IN_AND_OUT})
_PROXIES = frozenset({SOME_IN, SOME_OUT})
_A, _GAMMA = {"a": Parameter(None, high=1.0, closed=True)}, Parameter(GAMMA)
_PRIOR = {"k0": Parameter(K0), "nu0": Parameter(NU0)}

ON_REFERENCES = [
    ReferenceAttack("lira", lira, _TWO),
    ReferenceAttack("lira_fixed", lira_fixed, _BOTH, with_fewer=True),
    ReferenceAttack("lira_bayes", lira_bayes, _BOTH, _PRIOR),
    ReferenceAttack("lira_offline", lira_offline, _OUT, with_fewer=True),
    ReferenceAttack("rmia", log_ratio, _BOTH, _A, _GAMMA, with_fewer=True),
    ReferenceAttack("rmia_offline", log_ratio_offline, _OUT, _A, _GAMMA, with_fewer=True),
    ReferenceAttack("log_ratio", log_ratio, _BOTH, _A),
    ReferenceAttack("log_ratio_offline", log_ratio_offline, _OUT, _A),
    ReferenceAttack("attack_r", attack_r, _OUT),
    ReferenceAttack("calibration", calibration, _OUT),
    ReferenceAttack("squared_difference", squared_difference, _BOTH),
    ReferenceAttack("pmia", pmia, _PROXIES),
    ReferenceAttack("pmia_class", pmia_class, _PROXIES, per_class=True),
]
ON_TRAJECTORIES = [
    ReferenceAttack(
        "lira_trajectory", lira_trajectory, _BOTH | {TWO_ON_A_SIDE}, phi=TRAJECTORY_PHI,
        bytes_per_other=BYTES_PER_RESIDUAL,
    ),
]
