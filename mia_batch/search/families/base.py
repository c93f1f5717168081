"""Families of candidates that share work on a fold, and the chunks that this work is cut into."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import one_line
from mia_batch.samples import Fold, Part, Samples
from mia_batch.search.tasks import FIT_ERRORS


@dataclass(frozen=True)
class FoldScore:
    """One candidate on one fold."""

    accuracy: float  # fraction of the validation rows; NaN where the fit failed
    nonconverged: bool
    failure: str = ""  # why the fit failed


@dataclass(frozen=True)
class Family:
    """Candidates of one method whose fits on a fold share work. Subclasses do that work."""

    name: ClassVar[str]  # journals hold it: it stays when the class is renamed
    method: str
    indices: tuple[int, ...]  # positions of the candidates in the grid
    candidates: tuple[Mapping[str, Any], ...]  # their parameters, as given in the grid
    seed: int

    @property
    def engine(self) -> str:
        """What computes the fits."""
        return "scikit-learn"

    @staticmethod
    def preload() -> None:
        """Load what `run` needs beyond this module; each worker calls it once."""

    def chunks(self) -> list[Any]:
        """The parts of the work on one fold; each is one task."""
        return [None]

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        """Estimated seconds of one core for `chunk`, on a fold that fits `n_rows`."""
        raise NotImplementedError

    def memory(self, n_rows: int, n_features: int) -> int:
        """Estimated bytes that one task takes beyond the fold's own rows."""
        return 2 * 8 * n_rows * n_features

    def run(self, fold: Fold, chunk: Any) -> dict[str, Any]:
        """Do `chunk`; the result is plain JSON, so that a journal can hold it."""
        raise NotImplementedError

    def scores(self, results: Sequence[Mapping[str, Any]], y_val: NDArray[np.int8]) -> list[FoldScore]:
        """The candidates' scores on a fold, in the order of `indices`, from the results of all chunks."""
        result = results[0]
        failures = result.get("failures", {})
        columns = zip(result["accuracy"], result["nonconverged"], strict=True)
        return [
            FoldScore(math.nan if accuracy is None else accuracy, bool(flag), failures.get(str(i), ""))
            for i, (accuracy, flag) in enumerate(columns)
        ]

    def digest(self) -> str:
        """The name of this family's work in a journal."""
        content = [self.name, self.engine, self.method, self.seed, [dict(c) for c in self.candidates]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FoldFit:
    """One chunk of a family's work on one fold."""

    family: Family
    fold: int
    chunk: Any
    part: Part

    def run(self, samples: Samples) -> dict[str, Any]:
        """The chunk's result, or why its candidates cannot be fitted."""
        try:
            return self.family.run(samples.view(self.part).fold(self.fold), self.chunk)
        except FIT_ERRORS as error:
            return {"failure": one_line(error)}


def fold_scores(family: Family, results: Sequence[Mapping[str, Any]], y_val: NDArray[np.int8]) -> list[FoldScore]:
    """The scores of a family's candidates on a fold; where a chunk failed, all of them fail."""
    failure = next((result["failure"] for result in results if "failure" in result), None)
    if failure is not None:
        return [FoldScore(math.nan, nonconverged=False, failure=failure)] * len(family.indices)
    return family.scores(results, y_val)


def fold_result(
    decisions: Sequence[NDArray[Any] | str], y_val: NDArray[np.int8], nonconverged: Sequence[bool]
) -> dict[str, Any]:
    """The result of a one-chunk family, from each candidate's decisions, shape (n_val,), or the reason for none."""
    failures = {str(i): found for i, found in enumerate(decisions) if isinstance(found, str)}
    result: dict[str, Any] = {
        "accuracy": [None if isinstance(found, str) else float(np.mean(found == y_val)) for found in decisions],
        "nonconverged": [bool(flag) for flag in nonconverged],
    }
    return result | ({"failures": failures} if failures else {})


def group_by(
    candidates: Sequence[tuple[int, Mapping[str, Any]]], shared: Sequence[str]
) -> list[list[tuple[int, Mapping[str, Any]]]]:
    """Lists of candidates that differ in the `shared` parameters alone, in the order of first appearance."""
    groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for index, params in candidates:
        rest = {name: value for name, value in params.items() if name not in shared}
        groups.setdefault(json.dumps(rest, sort_keys=True, default=repr), []).append((index, params))
    return list(groups.values())
