"""The summary of an audit as one plain object, and that object as JSON, CSV and the tutorial's printed lines."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mia_batch.attacks.base import AttackResult
from mia_batch.metrics.base import LEVEL, Estimate
from mia_batch.metrics.registry import groups, in_group
from mia_batch.verdict.rules import Gate, Verdict

SCHEMA = 1
COLUMNS = ("method", "metric", "value", "low", "high", "reason")
TUTORIAL = ("recall", "precision", "accuracy")  # see `method_line`
Summary = dict[str, Any]


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
    """Everything that the audit found, and from what, as plain JSON types.

    Args:
        results: by method; all score the same rows.
        evaluations: metrics by method.
        verdict: the audit's outcome by `gate`.
        gate: the rule.
        provenance: resolved config, SHA-256 of checkpoint and data, versions, launches, seeds.
        augment_members: whether members, and only they, were cropped and flipped.
        level: confidence level of the intervals.

    Returns:
        `schema`, `verdict`, `level`, `samples`, `augment_members`, `methods`, `provenance`. Numbers that are NaN or
        infinite are None, with a reason beside them.
    """
    scored = next(iter(results.values()))
    return plain({
        "schema": SCHEMA,
        "verdict": {**asdict(verdict), "rule": asdict(gate)},
        "level": level,
        "samples": _samples(scored),
        "augment_members": augment_members,
        "methods": {name: _method(results[name], evaluations[name]) for name in verdict.methods},
        "provenance": provenance,
    })  # fmt: skip


def _samples(result: AttackResult) -> dict[str, Any]:
    n_members = int((result.evaluated & (result.member == 1)).sum())
    n_scored = int(result.evaluated.sum())
    return {
        "n_fit": len(result.evaluated) - n_scored,
        "n_scored": n_scored,
        "n_members": n_members,
        "n_nonmembers": n_scored - n_members,
        "base_rate": n_members / n_scored if n_scored else math.nan,
    }


def _method(result: AttackResult, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    lifted = ("n_nonconverged", "seconds")
    score: dict[str, Any] = {"cv_score": result.best_score}
    if not math.isfinite(result.best_score):
        score["cv_score_reason"] = "no candidate of the grid search has a finite score"
    return {
        "metrics": {name: asdict(estimate) for name, estimate in estimates.items()},
        "best_params": result.best_params,
        **score,
        "n_candidates": len(result.cv_results.get("params", ())),
        "n_fit": int((~result.evaluated).sum()),
        "n_eval": int(result.evaluated.sum()),
        **{name: result.provenance.get(name) for name in lifted},
        "provenance": {name: value for name, value in result.provenance.items() if name not in lifted},
    }


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
    return json.dumps(summary, indent=1, allow_nan=False) + "\n"


def to_csv(summary: Summary) -> str:
    """Text of summary.csv: a row for each metric of each method, numbers in full, a missing one as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for method, found in summary["methods"].items():
        for metric, numbers in found["metrics"].items():
            writer.writerow({"method": method, "metric": metric, **numbers})
    return text.getvalue()


def method_line(summary: Summary, method: str, metrics: Sequence[str]) -> str:
    """The line that MindArmour's tutorial prints for a method: four decimals, nan where there is no value.

    MindArmour keeps the metrics in a set, so its order is an accident; users know the tutorial's page: recall,
    precision, accuracy. That order is kept whatever order the configuration names them in; the metrics that MindArmour
    does not have follow in the registry's order, `tpr_at_fpr` standing for all its limits.

    Args:
        summary: of `build_summary`.
        method: one of its methods.
        metrics: `report.metrics` of the configuration: what to print.
    """
    found = summary["methods"][method]["metrics"]
    order = dict.fromkeys(TUTORIAL + groups())
    wanted = [name for group in order if group in metrics for name in in_group(group) if name in found]
    values = [f"'{name}': {_number(found[name]['value']):.4f}" for name in wanted]
    return f"Method: {method}, {{{','.join(values)}}}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
