"""One attack of an audit as text: every metric, bound, rule and setting."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mia_batch.report.media import terminal
from mia_batch.report.summary import BoundSummary, MethodSummary, MetricSummary, Summary
from mia_batch.report.tables import table_text, wrapped
from mia_batch.verdict.rules import RuleOutcome
from mia_batch.verdict.sentences import words

FIGURES = ("metric", "value", "low", "high", "")
RULES = ("rule", "level", "value", "low", "high", "outcome")


def attack_text(summary: Summary, name: str, *, width: int | None = None) -> str:
    """Tables of metrics and of the gate's rules, and how the attack was made."""
    method, judged = summary.methods[name], summary.verdict.methods.get(name)
    if method.reason:
        said = "not run, because" if method.not_run else "not evaluable:"
        return wrapped(terminal(f"{name}: {said} {method.reason}"), width)
    figures: dict[str, MetricSummary | BoundSummary] = {**method.metrics}
    figures |= method.epsilon.figures if method.epsilon else {}
    rules = [_rule(each) for each in judged.rules] if judged else []
    blocks = [
        wrapped(terminal(f"{name}: value and {summary.level:.0%} interval"), width),
        table_text([_figure(each, found) for each, found in figures.items()], header=FIGURES, width=width),
        table_text(rules, header=RULES, width=width) if rules else "",
        "\n".join(wrapped(terminal(line), width) for line in _made(method)),
    ]
    return "\n\n".join(filter(None, blocks))


def _figure(name: str, found: MetricSummary | BoundSummary) -> tuple[str, ...]:
    return words(name), *map(_number, (found.value, found.low, found.high)), found.reason or ""


def _rule(found: RuleOutcome) -> tuple[str, ...]:
    outcome = f"{found.outcome} ({found.reason})" if found.reason else found.outcome
    return words(found.rule), f"{found.above:g}", *map(_number, (found.value, found.low, found.high)), outcome


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _made(method: MethodSummary) -> Iterator[str]:
    score = f"cross-validated score {method.cv_score:.4f}" if method.cv_score is not None else method.cv_score_reason
    yield f"search: {method.n_candidates} candidates, {score}"
    yield f"best parameters: {json.dumps(method.best_params)}"
    yield f"samples: {method.n_fit} fitted, {method.n_eval} scored"
    if method.seconds is not None:
        yield f"time: {method.seconds:.1f} s"
    if method.n_nonconverged:
        yield f"fits that did not converge: {json.dumps(method.n_nonconverged)}"
