"""What an attack is: what it needs, its tasks, and the result that it makes of what they find."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import Problem
from mia_batch.samples import Samples
from mia_batch.search.tasks import Task

BLIND = "blind"  # the baseline of every audit, see attacks/blind.py
# What references tell of samples: the signal `confidence` of the target, (n_samples, n_queries), and of each reference,
# (n_samples, n_queries, n_references), and whose training data a sample was in, int8 (n_samples, n_references).
REFERENCE_COLUMNS = ("query_phi", "reference_phi", "reference_in")
# What the checkpoints of a training tell, oldest first and the audited one last: phi of the target, (n_samples,
# n_checkpoints), its losses, of the same shape, and phi of each reference, (n_samples, n_checkpoints, n_references).
TRAJECTORY_COLUMNS = ("trajectory_phi", "trajectory_loss", "trajectory_references")
GROUPS = "groups"  # numbers of the samples' groups, (n_samples,), where they are not all alone
STACK = "stack"  # a matrix of samples whose rows are those of references that play the target: see attacks/stacked.py
INCLUSION_DOUBT = "inclusion_doubt"  # in the provenance of attacks with references: what theirs say against inclusion


@dataclass(frozen=True)
class AttackSettings:
    """What an attack is told by the configuration."""

    params: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # its own; of a classifier, its grid
    seed: int = 1
    search: str = "shared"  # how a classifier searches its grid
    n_iter: int = 10  # candidates of a random search


class Attack(Protocol):
    """One way to tell members from non-members. attacks/registry.py lists all of them."""

    @property
    def name(self) -> str:
        """As in the configuration, and in the names of its tasks and its file."""

    @property
    def needs(self) -> frozenset[str]:
        """What of Samples.known it cannot do without."""

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """What is wrong with its parameters, each problem of `params.NAME` or of `params`; empty if nothing is."""

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """All its work; keys begin with its name and a slash."""

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The result, from those of its tasks by key."""


@dataclass(frozen=True)
class AttackResult:
    """Outcome of one attack over the rows of features.h5.

    Raises:
        ValueError: the arrays disagree, a fit row has a score or an evaluated row has none, or nothing is evaluated
            without a reason.
    """

    method: str
    scores: NDArray[np.float64]  # (n_samples,) higher for members; of evaluated rows, NaN for the rows that fitted
    predicted: NDArray[np.int8]  # (n_samples,) the attack's decision for evaluated rows, -1 elsewhere
    scored_by: NDArray[np.int32]  # (n_samples,) the split whose models, which have not seen it, scored it; -1: none
    member: NDArray[np.int8]  # (n_samples,) 1 member, 0 non-member
    best_params: dict[str, Any] = field(default_factory=dict)  # of an attack that searches a grid, as are the next two
    best_score: float = math.nan  # mean cross-validated accuracy of best_params, a fraction
    cv_results: dict[str, list[Any]] = field(default_factory=dict)  # a row per candidate, named as scikit-learn's
    provenance: dict[str, Any] = field(default_factory=dict)  # settings, engine, timings, versions, non-convergence
    reason: str = ""  # why there is no score at all: the attack is not evaluable
    not_run: bool = False  # with a reason: the samples lack what it needs, so that it is none of the audit's attacks

    def __post_init__(self) -> None:
        columns = {name: np.shape(getattr(self, name)) for name in ("scores", "predicted", "scored_by", "member")}
        if len(set(columns.values())) != 1 or len(self.scores.shape) != 1:
            raise ValueError(f"{self.method}: arrays must be one-dimensional and of one length, got {columns}")
        if not np.array_equal(np.isfinite(self.scores), self.evaluated):
            raise ValueError(f"{self.method}: exactly the evaluated rows must have a score")
        if not np.array_equal(self.predicted >= 0, self.evaluated):
            raise ValueError(f"{self.method}: exactly the evaluated rows must have a decision")
        if bool(self.reason) == self.evaluated.any():
            raise ValueError(f"{self.method}: must have scores or a reason, got {self.reason!r}")
        lengths = {name: len(column) for name, column in self.cv_results.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.method}: columns of cv_results must have one length, got {lengths}")

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        """The rows that have a score, shape (n_samples,)."""
        return self.scored_by >= 0

    def scored(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column, (n_samples,), of the evaluated rows; where those are all, no copy of it."""
        return taken(column, self.evaluated)


def taken(column: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
    """Some rows of a column, (n_samples,); where those are all, no copy of it."""
    return column if rows.all() else column[rows]


def result_over_all_rows(
    method: str, samples: Samples, scored: Sequence[tuple[NDArray[np.float64], NDArray[np.int8]]], **more: Any
) -> AttackResult:
    """The result of an attack from its scores and decisions of each split's evaluated rows, (n_eval,) each."""
    scores, predicted, scored_by = _nothing_scored(len(samples))
    for number, (split, found) in enumerate(zip(samples.splits, scored, strict=True)):
        scores[split.evaluated], predicted[split.evaluated] = found
        scored_by[split.evaluated] = number
    return AttackResult(method, scores, predicted, scored_by, samples.member, **more)


def not_evaluable(method: str, member: NDArray[np.int8], reason: str, *, not_run: bool = False) -> AttackResult:
    """The result of an attack that has come to nothing, on samples of this membership, (n_samples,)."""
    return AttackResult(method, *_nothing_scored(len(member)), member, reason=reason, not_run=not_run)


def _nothing_scored(n: int) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int32]]:
    return np.full(n, np.nan), np.full(n, -1, dtype=np.int8), np.full(n, -1, dtype=np.int32)


@dataclass(frozen=True)
class Parameter:
    """A parameter of an attack: a number above `low` and at most `high`, or `low` itself if it is `closed`."""

    default: float | None  # None: the attack finds it
    low: float = 0.0
    high: float = math.inf
    closed: bool = False

    def fault(self, values: Sequence[Any]) -> str:
        """The rule, where the values of a configuration break it; else ""."""
        value = values[0] if len(values) == 1 and type(values[0]) in (int, float) else math.nan
        if self.low < value <= min(self.high, sys.float_info.max) or (self.closed and value == self.low):
            return ""
        most = f" and at most {self.high:g}" if math.isfinite(self.high) else ""
        rule = f"in [{self.low:g}, {self.high:g}]" if self.closed else f"above {self.low:g}{most}"
        return f"must be one number {rule}, got {list(values)}"


def parameter_problems(
    name: str, known: Mapping[str, Parameter], params: Mapping[str, Sequence[Any]]
) -> list[Problem]:
    """For `Attack.check` of an attack whose parameters have one value each."""
    takes = ", ".join(known) or "no parameters"
    found = {
        f"params.{key}": known[key].fault(values) if key in known else f"is unknown: {name} takes {takes}"
        for key, values in params.items()
    }
    return [(key, fault) for key, fault in found.items() if fault]
