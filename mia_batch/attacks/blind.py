"""The blind baseline: how well members are told from non-members without the model.

What it finds is a difference of the two sides themselves, such as brighter members, which an attack on the model may
find too: "Blind Baselines Beat Membership Inference Attacks for Foundation Models", Das et al. 2024, arXiv 2406.16201.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import BLIND, AttackResult, AttackSettings, result_over_all_rows
from mia_batch.attacks.classifiers import parts
from mia_batch.errors import Problem
from mia_batch.inputs import STATISTICS
from mia_batch.samples import Lookup, Samples
from mia_batch.search.grid_search import Choice, GridSearch
from mia_batch.search.tasks import Task

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "lr": {"C": (0.01, 1.0)},
    "rf": {"n_estimators": (50,), "max_depth": (4, 10), "min_samples_leaf": (5,)},
}
MOST_CLASSES = 128  # that have a column each


def blind_rows(
    label: NDArray[np.integer], statistics: NDArray[np.floating] | None
) -> NDArray[np.float64] | Lookup:
    """What is known of each sample without the model, each column standardised, (n_samples, n_columns).

    A column for the class's number and one for each class, if they are at most `MOST_CLASSES`; then the statistics.

    Args:
        label: true classes, shape (n_samples,).
        statistics: of the inputs, shape (n_samples, d); None where they are not known: then there are no more
            different rows than classes.
    """
    if statistics is None:
        return _rows_of_classes(label)
    classes = np.unique(label)
    columns = [label[:, np.newaxis]]
    columns += [label[:, np.newaxis] == classes] if len(classes) <= MOST_CLASSES else []
    columns += [np.where(np.isfinite(statistics), statistics, 0)]
    rows = np.column_stack(columns).astype(np.float64)
    rows -= rows.mean(axis=0)
    spread = rows.std(axis=0)
    return rows / np.where(spread > 0, spread, 1.0)


def _rows_of_classes(label: NDArray[np.integer]) -> Lookup:
    classes, row, count = np.unique(label, return_inverse=True, return_counts=True)
    table = classes[:, np.newaxis].astype(np.float64)
    if len(classes) <= MOST_CLASSES:
        table = np.hstack([table, np.eye(len(classes))])
    share = count / len(label)
    table -= share @ table
    spread = np.sqrt(share @ table**2)
    return Lookup(table / np.where(spread > 0, spread, 1.0), row.astype(np.int32))


def n_columns(n_classes: int) -> int:
    """Of `blind_rows` with statistics."""
    return 1 + (n_classes if n_classes <= MOST_CLASSES else 0) + len(STATISTICS)


@dataclass(frozen=True)
class BlindAttack:
    """LR and RF, as of `search`, on `blind_rows`; on each split the one with the better cross-validated accuracy."""

    name = BLIND
    needs = frozenset({"member", "blind"})

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """Nothing: its grids are its own."""
        return []

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """On each split both grid searches' tasks, and their refits."""
        pairs = self._searches(samples, settings)
        return [task for pair in pairs for search in pair for task in search.tasks()]

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The scores of what was chosen on each split."""
        scored, chosen, accuracies = [], [], []
        for pair in self._searches(samples, settings):
            choices = [search.choice(results) for search in pair]
            search, choice = max(zip(pair, choices, strict=True), key=lambda each: _accuracy(each[1]))
            found = search.scored(choice, results)
            scored.append((found.scores, found.predicted))
            chosen.append({"method": search.method, **choice.params})
            accuracies.append(_accuracy(choice))
        return result_over_all_rows(
            self.name, samples, scored, best_score=float(np.mean(accuracies)),
            provenance={"chosen": chosen, "seed": settings.seed},
        )  # fmt: skip

    def _searches(self, samples: Samples, settings: AttackSettings) -> list[list[GridSearch]]:
        """For each split a search of each method."""
        by_method = [
            [GridSearch(method, grid, samples, seed=settings.seed, part=part)
             for part in parts(f"{self.name}/{method}", samples, "blind")]
            for method, grid in GRIDS.items()
        ]  # fmt: skip
        return [list(pair) for pair in zip(*by_method, strict=True)]


def _accuracy(choice: Choice) -> float:
    return float(choice.table["mean_test_score"][choice.best])
