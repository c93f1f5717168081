"""A threshold on one signal of the network: attacks that need no references and search no grid.

Yeom et al. 2018, "Privacy Risk in Machine Learning", arXiv 1709.01604 (loss, correctness); Song & Mittal 2021,
"Systematic Evaluation of Privacy Risks of Machine Learning Models", arXiv 2003.10595 (confidence, entropy, modified
entropy; a threshold for each class).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult, AttackSettings, result_over_all_rows
from mia_batch.errors import Problem
from mia_batch.metrics.ranking import best_threshold
from mia_batch.samples import Samples, Split
from mia_batch.search.tasks import Task
from mia_batch.signals import NAMES, SIGNALS

Floats = NDArray[np.float64]

MIN_OF_CLASS = 10  # fit rows of either side that a class needs for a threshold of its own
SECONDS_PER_ROW = 1e-6
BYTES_PER_ROW = 100


def class_thresholds(scores: Floats, member: NDArray[np.int8], label: NDArray[np.integer], common: float) -> Floats:
    """`best_threshold` of each class by itself, shape (highest label + 1,).

    A class keeps the common threshold if it has fewer than 10 rows of a side, or none that is better than guessing.
    """
    found = np.full(int(label.max()) + 1, common)
    order = np.argsort(label, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        if min(member[rows].sum(), (1 - member[rows]).sum()) >= MIN_OF_CLASS:
            threshold, accuracy = best_threshold(scores[rows], member[rows])
            found[label[rows[0]]] = threshold if accuracy > 0.5 else common
    return found


def no_parameters(name: str, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
    """For `Attack.check` of an attack that has none."""
    return [(f"params.{key}", f"is unknown: {name} takes no parameters") for key in params]


def decision_task(name: str, samples: Samples, work: Any) -> list[Task]:
    """The one task of an attack that only has to decide where to cut, on every split."""
    n_fit = sum(len(split.fit) for split in samples.splits)
    most = max(len(split.fit) for split in samples.splits)
    return [Task(f"{name}/all", SECONDS_PER_ROW * n_fit, work, memory=BYTES_PER_ROW * most)]


@dataclass(frozen=True)
class ThresholdAttack:
    """Member where the signal passes the threshold that is best on the fit rows.

    The score is the signal, high for members; with `per_class` less the threshold of the row's class, so that the
    scores of all classes compare.
    """

    name: str
    signal: str  # one of signals.NAMES
    per_class: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """The signal, and for thresholds per class the true class."""
        return frozenset({"member", self.signal} | ({"label"} if self.per_class else set()))

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """It has no parameters."""
        return no_parameters(self.name, params)

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """One: the thresholds of all splits."""
        return decision_task(self.name, samples, _Thresholds(self))

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The scores, and the decisions by the thresholds, which are kept."""
        thresholds, scored = results[f"{self.name}/all"], []
        for split, found in zip(samples.splits, thresholds, strict=True):
            rows = split.evaluated
            signal = self.oriented(samples, rows)
            limit = _of_classes(found, samples.columns["label"][rows]) if self.per_class else found["common"]
            scores = signal - limit if self.per_class else signal
            scored.append((scores, (signal >= limit).astype(np.int8)))
        return result_over_all_rows(self.name, samples, scored, provenance={"thresholds": thresholds})

    def oriented(self, samples: Samples, rows: NDArray[np.int64]) -> Floats:
        """The signal of some rows, high for members, (n,)."""
        column: Floats = samples.columns[self.signal][rows]
        return np.asarray(column * float(SIGNALS[self.signal][1]))

    def fitted(self, samples: Samples, split: Split) -> dict[str, Any]:
        """The common threshold, and those of classes that have others."""
        scores, member = self.oriented(samples, split.fit), samples.member[split.fit]
        common, _ = best_threshold(scores, member)
        if not self.per_class:
            return {"common": common}
        own = class_thresholds(scores, member, samples.columns["label"][split.fit], common)
        return {"common": common, "by_class": {str(c): float(own[c]) for c in np.flatnonzero(own != common)}}


def _of_classes(found: Mapping[str, Any], label: NDArray[np.integer]) -> Floats:
    """The threshold of each row's class."""
    limit = np.full(int(label.max()) + 1, found["common"])
    own = {int(each): threshold for each, threshold in found["by_class"].items() if int(each) < len(limit)}
    limit[list(own)] = list(own.values())
    return limit[label]


@dataclass(frozen=True)
class _Thresholds:
    """The work of a threshold attack."""

    attack: ThresholdAttack

    def run(self, samples: Samples) -> list[dict[str, Any]]:
        """Of each split."""
        return [self.attack.fitted(samples, split) for split in samples.splits]


ON_ALL = [ThresholdAttack(f"threshold_{name}", name) for name in NAMES if name != "correctness"]
ON_CLASSES = [ThresholdAttack(f"class_{each.name}", each.signal, per_class=True) for each in ON_ALL]
CORRECTNESS = ThresholdAttack("correctness", "correctness")
