"""What an attack leaves behind: scores of rows that no model has seen, and how the model was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AttackResult:
    """Outcome of one attack over the rows of features.h5.

    Raises:
        ValueError: the arrays disagree, a fit row has a score or an evaluated row has none.
    """

    method: str
    scores: NDArray[np.float64]  # (n_samples,) P(member) of evaluated rows, NaN for the rows that fitted the model
    predicted: NDArray[np.int8]  # (n_samples,) the model's decision for evaluated rows, -1 elsewhere
    evaluated: NDArray[np.bool_]  # (n_samples,) the rows that no model has seen
    member: NDArray[np.int8]  # (n_samples,) 1 member, 0 non-member
    best_params: dict[str, Any]
    best_score: float  # mean cross-validated accuracy of best_params, a fraction
    cv_results: dict[str, list[Any]]  # one entry per candidate, columns named as scikit-learn's
    provenance: dict[str, Any]  # search mode, engine, seeds, timings, versions, non-convergence

    def __post_init__(self) -> None:
        columns = {name: np.shape(getattr(self, name)) for name in ("scores", "predicted", "evaluated", "member")}
        if len(set(columns.values())) != 1 or len(self.scores.shape) != 1:
            raise ValueError(f"{self.method}: arrays must be one-dimensional and of one length, got {columns}")
        if not np.array_equal(np.isfinite(self.scores), self.evaluated):
            raise ValueError(f"{self.method}: exactly the evaluated rows must have a score")
        if not np.array_equal(self.predicted >= 0, self.evaluated):
            raise ValueError(f"{self.method}: exactly the evaluated rows must have a decision")
        lengths = {name: len(column) for name, column in self.cv_results.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.method}: columns of cv_results must have one length, got {lengths}")
