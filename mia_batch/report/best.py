"""The attack that finds most, and its figures: what status, history and every summary of an audit show."""

from __future__ import annotations

from dataclasses import dataclass

from mia_batch.report.summary import MetricSummary, Summary

BALANCED, AREA, AT_ONE_PERCENT = "balanced_accuracy", "auc", "tpr_at_fpr_0.01"
LABELS = {BALANCED: "balanced accuracy", AREA: "AUC", AT_ONE_PERCENT: "TPR at 1 % FPR"}


@dataclass(frozen=True)
class Best:
    """Of one metric the highest value over the attacks; its interval does not allow for the choice."""

    attack: str
    metric: MetricSummary


def best_of(summary: Summary, metric: str) -> Best | None:
    """None where no attack has a value."""
    values = {name: method.metrics.get(metric) for name, method in summary.methods.items()}
    known = {name: each for name, each in values.items() if each is not None and each.value is not None}
    name = max(known, key=lambda each: known[each].value or 0.0, default=None)
    return None if name is None else Best(name, known[name])


def figures_of(summary: Summary) -> str:
    """The best attack by balanced accuracy, in a line; empty where none has one, or the figures mean nothing."""
    best = best_of(summary, BALANCED)
    if best is None or (summary.audited and summary.audited.reasons):
        return ""
    said = [f"{LABELS[metric]} {found}" for metric in LABELS if (found := _said(summary, best.attack, metric))]
    return f"{best.attack}: {', '.join(said)}"


def _said(summary: Summary, attack: str, metric: str) -> str:
    found = summary.methods[attack].metrics.get(metric)
    return interval_text(found) if found and found.value is not None else ""


def interval_text(found: MetricSummary) -> str:
    """Value and interval, or nan."""
    if found.value is None or found.low is None or found.high is None:
        return "nan"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
