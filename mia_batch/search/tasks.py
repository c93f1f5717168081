"""What the engine schedules: families of candidates that share work, cut into tasks with cost estimates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINAL = -1  # the "fold" of a task that belongs to the final fit


@dataclass(frozen=True)
class Fold:
    """One part of the fit rows to train on and the rest to validate on."""

    X_fit: NDArray[np.floating]  # (n_fit, n_features)
    y_fit: NDArray[np.int8]  # (n_fit,) 0 or 1
    X_val: NDArray[np.floating]  # (n_val, n_features)
    y_val: NDArray[np.int8]  # (n_val,)


@dataclass(frozen=True)
class FoldScore:
    """One candidate on one fold."""

    accuracy: float  # fraction of the validation rows
    nonconverged: bool


@dataclass(frozen=True)
class Family:
    """Candidates of one method whose fits on a fold share work. Subclasses say which work, and do it."""

    method: str
    indices: tuple[int, ...]  # positions of the candidates in the grid
    candidates: tuple[Mapping[str, Any], ...]  # their parameters, as given in the grid
    seed: int

    @property
    def engine(self) -> str:
        """What computes it."""
        return "scikit-learn"

    @staticmethod
    def preload() -> None:
        """Load what `run` needs beyond this module; called once, before workers are forked."""

    def pieces(self) -> list[Any]:
        """The parts that one fold's work may be cut into; each is one task."""
        return [None]

    def cost(self, piece: Any, n_rows: int, n_features: int) -> float:
        """Estimated seconds of one core for `piece` on a fold with `n_rows` to fit."""
        raise NotImplementedError

    def memory(self, n_rows: int, n_features: int) -> int:
        """Estimated bytes that one task takes beyond the fold's own rows."""
        return 2 * 8 * n_rows * n_features

    def run(self, fold: Fold, piece: Any) -> dict[str, Any]:
        """Do `piece`; the result is plain JSON, so that it can be journalled."""
        raise NotImplementedError

    def scores(self, results: Sequence[Mapping[str, Any]], y_val: NDArray[np.int8]) -> list[FoldScore]:
        """The candidates' scores on a fold, in the order of `indices`, from the results of all its pieces."""
        accuracy, nonconverged = results[0]["accuracy"], results[0]["nonconverged"]
        return [FoldScore(a, bool(flag)) for a, flag in zip(accuracy, nonconverged, strict=True)]

    def digest(self) -> str:
        """Names this family's work in a journal."""
        content = [type(self).__name__, self.engine, self.method, self.seed, [dict(c) for c in self.candidates]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fold_result(
    predicted: Sequence[NDArray[Any]], y_val: NDArray[np.int8], nonconverged: Sequence[bool]
) -> dict[str, Any]:
    """The result of a one-piece family from each candidate's decisions, shape (n_val,) each."""
    return {
        "accuracy": [float(np.mean(decision == y_val)) for decision in predicted],
        "nonconverged": [bool(flag) for flag in nonconverged],
    }


def group_by(
    candidates: Sequence[tuple[int, Mapping[str, Any]]], shared: Sequence[str]
) -> list[list[tuple[int, Mapping[str, Any]]]]:
    """Candidates that differ in the `shared` parameters alone, together, in the order of first appearance."""
    groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for index, params in candidates:
        rest = {name: value for name, value in params.items() if name not in shared}
        groups.setdefault(json.dumps(rest, sort_keys=True, default=repr), []).append((index, params))
    return list(groups.values())


@dataclass(frozen=True)
class Task:
    """One unit of work for one core."""

    key: str  # names it in the journal
    cost: float  # estimated seconds
    method: str
    fold: int  # FINAL for a part of the final fit
    work: Any  # Family, or FinalFit
    piece: Any
    then: float = 0.0  # estimated seconds of what cannot begin before it has ended

    @property
    def urgency(self) -> float:
        """Estimated seconds from its start to the end of what waits for it."""
        return self.cost + self.then

    def __lt__(self, other: Task) -> bool:
        """The longest chain first; of equal ones the first fold, so that it is soon known which candidate is ahead."""
        return (-self.urgency, self.fold, self.key) < (-other.urgency, other.fold, other.key)
