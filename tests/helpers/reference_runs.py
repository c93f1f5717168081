"""An attack that needs references, and what a test of references begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mia_batch.attacks.base import REFERENCE_COLUMNS, AttackResult, AttackSettings, result_over_all_rows
from mia_batch.samples import Samples
from mia_batch.search.tasks import Task


class Difference:
    """The target's confidence less the references' mean."""

    name, needs = "difference", frozenset(REFERENCE_COLUMNS)

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[str]:
        return []

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        assert samples.columns["query_phi"].ndim == 2
        return []

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        score = samples.columns["query_phi"].mean(1) - samples.columns["reference_phi"].mean((1, 2))
        scored = [(score[split.evaluated], (score[split.evaluated] > 0).astype(np.int8)) for split in samples.splits]
        return result_over_all_rows(self.name, samples, scored)


def write_inclusion(path: Path, included: np.ndarray, split: Sequence[str], sample_index: np.ndarray) -> Path:
    """An inclusion file that names its samples, shuffled."""
    order = np.random.default_rng(1).permutation(len(split))
    np.savez(path, included=included[:, order], split=np.array(split)[order], sample_index=sample_index[order])
    return path
