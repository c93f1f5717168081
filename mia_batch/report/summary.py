"""The summary of an audit: what its file holds, how it is read, and its CSV and the tutorial's printed lines."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError, one_line
from mia_batch.metrics.base import LEVEL, Estimate
from mia_batch.metrics.registry import METRICS, groups, in_group
from mia_batch.verdict.rules import OUTCOMES, Gate, MethodVerdict, Verdict

SCHEMA: Literal[1] = 1
COLUMNS = ("method", "metric", "value", "low", "high", "reason")
TUTORIAL = ("recall", "precision", "accuracy")  # see `method_line`


class _Part(BaseModel):
    # Keys that a later version adds are not a fault of the file.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class MetricSummary(_Part):
    """A metric's value and interval, None where there is none: then `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None

    @model_validator(mode="after")
    def _value_or_reason(self) -> MetricSummary:
        there = [number is not None for number in (self.value, self.low, self.high)]
        if any(there) != all(there) or not (any(there) or self.reason):
            raise ValueError("must have value, low and high, or a reason why they are null")
        return self


class MethodSummary(_Part):
    """What one attack found; of one that is not evaluable `reason` says why, and no metric has a value."""

    metrics: dict[str, MetricSummary]
    best_params: dict[str, Any]
    cv_score: float | None
    cv_score_reason: str | None = None
    n_candidates: int
    n_fit: int
    n_eval: int
    n_nonconverged: dict[str, int] | int | None
    seconds: float | None
    provenance: dict[str, Any]
    reason: str | None = None


class SamplesSummary(_Part):
    """How many samples fitted the attacks and scored them."""

    n_fit: int
    n_scored: int
    n_members: int
    n_nonmembers: int
    base_rate: float | None
    base_rate_reason: str | None = None


class VerdictSummary(_Part):
    """The verdict and its rule; `leak` is None where the audit is inconclusive."""

    leak: bool | None
    methods: dict[str, MethodVerdict]
    sentence: str
    cautions: tuple[str, ...]
    not_evaluable: dict[str, str] = {}
    rule: Gate

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> str:
        """`leak` in a word, as in `OUTCOMES`."""
        return OUTCOMES[self.leak]


class Summary(_Part):
    """Everything that the audit found, and from what: summary.json."""

    schema_version: Literal[1] = Field(alias="schema")
    verdict: VerdictSummary
    level: float  # of the intervals
    samples: SamplesSummary
    augment_members: bool
    methods: dict[str, MethodSummary]
    provenance: dict[str, Any]


def build_summary(
    results: Mapping[str, AttackResult],
    evaluations: Mapping[str, Mapping[str, Estimate]],
    verdict: Verdict,
    gate: Gate,
    provenance: Mapping[str, Any],
    *,
    augment_members: bool,
    level: float = LEVEL,
) -> Summary:
    """Everything that the audit found, and from what.

    Args:
        results: by method; all that are evaluable score the same rows.
        evaluations: metrics by method, of those that are evaluable.
        verdict: the audit's outcome by `gate`.
        gate: the rule.
        provenance: resolved config, SHA-256 of checkpoint and data, versions, launches, seeds.
        augment_members: whether members, and only they, were cropped and flipped.
        level: confidence level of the intervals.
    """
    scored = next((result for result in results.values() if not result.reason), None)
    return Summary(
        schema=SCHEMA,
        verdict=VerdictSummary(**asdict(verdict), rule=gate),
        level=level,
        samples=_samples(scored),
        augment_members=augment_members,
        methods={name: _method(result, evaluations.get(name, {})) for name, result in results.items()},
        provenance=plain(provenance),
    )


def _samples(result: AttackResult | None) -> SamplesSummary:
    if result is None:
        none = "no attack is evaluable"
        return SamplesSummary(n_fit=0, n_scored=0, n_members=0, n_nonmembers=0, base_rate=None, base_rate_reason=none)
    n_members = int((result.evaluated & (result.member == 1)).sum())
    n_scored = int(result.evaluated.sum())
    return SamplesSummary(
        n_fit=len(result.evaluated) - n_scored, n_scored=n_scored, n_members=n_members,
        n_nonmembers=n_scored - n_members, base_rate=n_members / n_scored,
    )  # fmt: skip


def _method(result: AttackResult, estimates: Mapping[str, Estimate]) -> MethodSummary:
    lifted = ("n_nonconverged", "seconds")
    return MethodSummary(
        metrics=_no_metrics(result.reason) if result.reason else {n: _metric(e) for n, e in estimates.items()},
        best_params=plain(result.best_params),
        cv_score=plain(result.best_score),
        cv_score_reason=_why_no_cv_score(result),
        n_candidates=len(result.cv_results.get("params", ())),
        n_fit=0 if result.reason else int((~result.evaluated).sum()),
        n_eval=int(result.evaluated.sum()),
        n_nonconverged=plain(result.provenance.get("n_nonconverged")),
        seconds=plain(result.provenance.get("seconds")),
        provenance=plain({name: value for name, value in result.provenance.items() if name not in lifted}),
        reason=result.reason or None,
    )


def _metric(estimate: Estimate) -> MetricSummary:
    return MetricSummary(**plain(asdict(estimate)))


def _no_metrics(reason: str) -> dict[str, MetricSummary]:
    """The metrics of an attack that is not evaluable: every reader finds each, and why it has no value."""
    none = MetricSummary(value=None, low=None, high=None, reason=f"not evaluable: {reason}")
    return dict.fromkeys(METRICS, none)


def _why_no_cv_score(result: AttackResult) -> str | None:
    if math.isfinite(result.best_score):
        return None
    return f"not evaluable: {result.reason}" if result.reason else (
        "no candidate of the grid search has a finite score" if result.cv_results else "no grid was searched"
    )


def plain(value: Any) -> Any:
    """`value` as JSON types alone: arrays and tuples as lists, NumPy scalars as numbers, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def to_json(summary: Summary) -> str:
    """Text of summary.json: strict JSON."""
    return json.dumps(summary.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n"


def read_summary(path: Path) -> Summary:
    """The summary in a file of this version or of one before.

    Raises:
        InputError: it is not there, damaged or of another schema; says which of its fields.
    """
    try:
        return Summary.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValidationError as error:
        raise InputError(f"{path}: {_problem(error)}") from error
    except OSError as error:
        raise InputError(f"{path}: must be a summary that can be read, got: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be JSON text in UTF-8, got {one_line(error)}") from error


def _problem(error: ValidationError) -> str:
    """Field, rule and value of the first of pydantic's errors."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"must be JSON, got {first['msg'].removeprefix('Invalid JSON: ')}"
    if first["type"] == "missing":
        return f"{field}: is required"
    rule = re.sub(r"^(Input should be|Value error, must be)", "must be", first["msg"].removeprefix("Value error, "))
    rule = re.sub(r"an object|a valid dictionary or instance of \w+", "a mapping", rule)
    value = " ".join(repr(first["input"]).split())
    return f"{field or 'summary'}: {rule}, got {value if len(value) <= 120 else f'{value[:117]}...'}"


def to_csv(summary: Summary) -> str:
    """Text of summary.csv: a row for each metric of each method, numbers in full, a missing one as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for method, found in summary.methods.items():
        for metric, numbers in found.metrics.items():
            writer.writerow({"method": method, "metric": metric, **numbers.model_dump()})
    return text.getvalue()


def method_line(summary: Summary, method: str, metrics: Sequence[str]) -> str:
    """The line that MindArmour's tutorial prints for a method: four decimals, nan where there is no value.

    MindArmour keeps the metrics in a set, so its order is an accident; users know the tutorial's page: recall,
    precision, accuracy. That order is kept whatever order the configuration names them in; the metrics that MindArmour
    does not have follow in the registry's order, `tpr_at_fpr` standing for all its limits. A method that is not
    evaluable has its reason there.

    Args:
        summary: of `build_summary`.
        method: one of its methods.
        metrics: `report.metrics` of the configuration: what to print.
    """
    if reason := summary.methods[method].reason:
        return f"Method: {method}, not evaluable: {reason}"
    found = summary.methods[method].metrics
    order = dict.fromkeys(TUTORIAL + groups())
    wanted = [name for group in order if group in metrics for name in in_group(group) if name in found]
    values = [f"'{name}': {_number(found[name].value):.4f}" for name in wanted]
    return f"Method: {method}, {{{','.join(values)}}}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
