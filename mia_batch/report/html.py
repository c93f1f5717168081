"""The summary as a small table in HTML, which needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from mia_batch.report.summary import MetricSummary, Summary

SHOWN = {
    "accuracy": "accuracy", "precision": "precision", "recall": "recall", "auc": "AUC",
    "tpr_at_fpr_0.01": "TPR @ FPR 0.01",
}
COLOURS = {"leak": "#b00020", "no leak": "#1b6e3c", "inconclusive": "#8a5a00"}


def to_html(summary: Summary) -> str:
    """Verdict, a row for each attack with intervals, and the cautions."""
    verdict, samples = summary.verdict, summary.samples
    head = "".join(f"<th>{escape(label)}</th>" for label in ("", *SHOWN.values()))
    rows = "".join(_row(summary, name) for name in summary.methods)
    sides = f"{samples.n_members} members and {samples.n_nonmembers} non-members"
    said = f"Value and {summary.level:.0%} interval, scored on {sides} that no attack was fitted on."
    return (
        f'<div><p style="color:{COLOURS[verdict.outcome]}"><b>{escape(verdict.sentence)}</b></p>'
        f"<table><caption>{escape(said)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{_paragraphs([*verdict.notes, *(f'Caution: {text}' for text in verdict.cautions)])}</div>"
    )


def _row(summary: Summary, name: str) -> str:
    method = summary.methods[name]
    if method.reason:
        cells = f'<td colspan="{len(SHOWN)}">not evaluable: {escape(method.reason)}</td>'
    else:
        cells = "".join(f"<td>{_cell(method.metrics.get(metric))}</td>" for metric in SHOWN)
    return f"<tr><th>{escape(name)}</th>{cells}</tr>"


def _cell(found: MetricSummary | None) -> str:
    if found is None or found.value is None:
        return f'<span title="{escape(found.reason or "")}">nan</span>' if found else ""
    return f"{found.value:.3f} <small>({found.low:.3f} to {found.high:.3f})</small>"


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p><small>{escape(text)}</small></p>" for text in texts)
