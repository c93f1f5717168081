"""QMIA: how far the network's margin is above what inputs like this one let expect of non-members.

Bertran et al. 2023, "Scalable Membership Inference Attacks via Quantile Regression", arXiv 2307.03694. It needs no
reference models: one regression of the margin's quantile, on non-members alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from mia_batch.attacks.base import (
    AttackResult,
    AttackSettings,
    Parameter,
    parameter_problems,
    result_over_all_rows,
)
from mia_batch.errors import Problem
from mia_batch.metrics.ranking import best_threshold
from mia_batch.samples import Samples, Split
from mia_batch.search.tasks import CannotEvaluate, Task

Floats = NDArray[np.float64]

ALPHA = Parameter(0.05, high=0.5)  # share of non-members that exceed the quantile
LEAST_NONMEMBERS = 50  # that a regression is fitted on: of fewer no tree has two leaves of 20
SECONDS_PER_VALUE = 1.5e-6  # of one core, a row and column of a regression
BYTES_PER_VALUE = 24  # the rows of a fit, their bins and gradients


@dataclass(frozen=True)
class QuantileAttack:
    """The score is the margin less the quantile of margins that is predicted for the input; any number.

    The input is known by its class and the statistics that features.h5 keeps. The regression is fitted on the
    non-members of the fit rows; the threshold is the best on fit rows whose own fold had no part in their quantile, so
    that neither decision nor score is of a row that its regression saw.
    """

    name: str
    needs = frozenset({"member", "hinge", "label", "statistics"})

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """One alpha, in (0, .5]."""
        return parameter_problems(self.name, self.all_parameters, params)

    @property
    def all_parameters(self) -> dict[str, Parameter]:
        """By name."""
        return {"alpha": ALPHA}

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """One for each split."""
        n_columns = 1 + samples.columns["statistics"].shape[1]
        alpha, tasks = _alpha(settings), []
        for number, split in enumerate(samples.splits):
            n_values = len(split.fit) * n_columns
            cost, memory = SECONDS_PER_VALUE * (split.n_folds + 1) * n_values, BYTES_PER_VALUE * n_values
            work = _Regression(number, alpha, settings.seed)
            tasks.append(Task(f"{self.name}/{number}", cost, work, memory=memory, kept=False))
        return tasks

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The scores and decisions of every split.

        Raises:
            CannotEvaluate: too few non-members fit.
        """
        found = [results[f"{self.name}/{number}"] for number in range(len(samples.splits))]
        fewest = min(each["n_nonmembers"] for each in found)
        if fewest < LEAST_NONMEMBERS:
            raise CannotEvaluate(
                f"{self.name}: must have {LEAST_NONMEMBERS} non-members to fit a quantile on, got {fewest}"
            )
        thresholds = [each["threshold"] for each in found]
        scored = [
            (each["scores"], (each["scores"] >= limit).astype(np.int8))
            for each, limit in zip(found, thresholds, strict=True)
        ]
        notes = {"thresholds": thresholds, "alpha": _alpha(settings), "seed": settings.seed}
        return result_over_all_rows(self.name, samples, scored, provenance=notes)


def _alpha(settings: AttackSettings) -> float:
    return float(settings.params["alpha"][0]) if "alpha" in settings.params else float(ALPHA.default or 0)


def quantile_margin(
    X_fit: Floats, margin_fit: Floats, X: Floats, *, alpha: float, seed: int
) -> Floats:
    """The (1 - alpha) quantile of the margin that rows X let expect, by gradient boosting of the pinball loss.

    Args:
        X_fit: of non-members, (n_fit, n_columns); the first column is a class's number.
        margin_fit: their margins, (n_fit,).
        X: of other rows, (n, n_columns).
        alpha: in (0, 1).
        seed: of the boosting.

    Returns:
        (n,).
    """
    model = HistGradientBoostingRegressor(
        loss="quantile", quantile=1 - alpha, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=1.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    predicted: Floats = model.fit(X_fit, margin_fit).predict(X)
    return predicted


@dataclass(frozen=True)
class _Regression:
    """The work of one split: out-of-fold scores of the rows that fit, for the threshold, and those of other rows."""

    number: int
    alpha: float
    seed: int

    def run(self, samples: Samples) -> dict[str, Any]:
        split = samples.splits[self.number]
        outside = samples.member[split.fit] == 0
        n_least = min(int(outside[split.fold_of != fold].sum()) for fold in range(split.n_folds))
        if n_least < LEAST_NONMEMBERS:
            return {"n_nonmembers": n_least, "threshold": None, "scores": np.zeros(len(split.evaluated))}
        threshold, _ = best_threshold(self._out_of_fold(samples, split, outside), samples.member[split.fit])
        scores = self._scores(samples, split.fit[outside], split.evaluated)
        return {"n_nonmembers": n_least, "threshold": threshold, "scores": scores}

    def _out_of_fold(self, samples: Samples, split: Split, outside: NDArray[np.bool_]) -> Floats:
        scores = np.empty(len(split.fit))
        for fold in range(split.n_folds):
            own = split.fold_of == fold
            scores[own] = self._scores(samples, split.fit[outside & ~own], split.fit[own])
        return scores

    def _scores(self, samples: Samples, fit: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
        margin: Floats = samples.columns["hinge"]
        X_fit, X = (
            np.column_stack([samples.columns["label"][each], samples.columns["statistics"][each]])
            for each in (fit, rows)
        )
        expected = quantile_margin(X_fit, margin[fit], X, alpha=self.alpha, seed=self.seed)
        return np.asarray(margin[rows] - expected)


QMIA = QuantileAttack("qmia")
