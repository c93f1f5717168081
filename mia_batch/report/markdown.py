"""An audit as Markdown: what a pull request shows, and a section of a model card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mia_batch.report.best import AREA, AT_ONE_PERCENT, BALANCED, LABELS, interval_text
from mia_batch.report.media import markdown
from mia_batch.report.summary import MethodSummary, MetricSummary, SideSummary, Summary
from mia_batch.verdict.sentences import NO_PROOF, words

SHOWN = (BALANCED, AREA, AT_ONE_PERCENT)
SIGNS = {"leak": ":x:", "no leak": ":white_check_mark:", "inconclusive": ":warning:"}
NOT_STATED = "not stated"


def pull_request_text(summary: Summary) -> str:
    """The verdict, a row for each attack, and what to know before relying on it."""
    verdict = summary.verdict
    blocks = [
        f"### {SIGNS[verdict.outcome]} Membership-inference audit: {verdict.outcome}",
        markdown(verdict.sentence),
        *_model(summary),
        _table(summary),
        f"Value and {summary.level:.0%} interval, on {_sides(summary)} that no attack was fitted on.",
        _folded("To know before relying on it", [*verdict.notes, *verdict.cautions]),
        _folded("What was audited", [f"{name}: {value}" for name, value in _origin(summary)]),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def model_card_text(summary: Summary) -> str:
    """A section of a model card: result, criterion, attacks, data, limitations, what was audited."""
    verdict = summary.verdict
    blocks = [
        "## Privacy: membership inference",
        f"**Result: {verdict.outcome}.** {markdown(verdict.sentence)}",
        "### Criterion", _bullets(_criterion(summary)),
        "### Attacks", _table(summary),
        f"Value and {summary.level:.0%} interval, on {_sides(summary)} that no attack was fitted on.",
        "### The model and its data", _bullets(_data(summary)),
        "### Limitations", _bullets([*verdict.notes, *verdict.cautions, *_proof(summary)]),
        "### What was audited", _bullets(f"{name}: {value}" for name, value in _origin(summary)),
    ]  # fmt: skip
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(summary: Summary) -> str:
    head = ["attack", *(LABELS[name] for name in SHOWN)]
    rows = [[markdown(name), *_cells(method)] for name, method in summary.methods.items()]
    return "\n".join(_row(cells) for cells in (head, ["---"] * len(head), *rows))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(method: MethodSummary) -> list[str]:
    if method.reason:
        return [markdown(f"{'not run' if method.not_run else 'not evaluable'}: {method.reason}"), "", ""]
    return [_cell(method.metrics.get(name)) for name in SHOWN]


def _cell(found: MetricSummary | None) -> str:
    if found is None:
        return ""
    return markdown(f"nan: {found.reason}") if found.value is None else interval_text(found)


def _model(summary: Summary) -> list[str]:
    """How well the model itself does."""
    model = summary.audited
    if model is None:
        return []
    sides = ((model.members, "members"), (model.nonmembers, "non-members"))
    said = [text for side, word in sides if (text := _accuracy(side, word))]
    return [f"The model itself is right on {' and '.join(said)}."] if said else []


def _accuracy(side: SideSummary, word: str) -> str:
    return "" if side.accuracy is None else f"{side.accuracy:.1%} of {side.n} {word}"


def _sides(summary: Summary) -> str:
    return f"{summary.samples.n_members} members and {summary.samples.n_nonmembers} non-members"


def _folded(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<details><summary>{title}</summary>\n\n{_bullets(items)}\n\n</details>"


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(item)}" for item in items)


def _criterion(summary: Summary) -> list[str]:
    verdict = summary.verdict
    rules = [
        f"{words(rule.name)} of at most {rule.above:g}"
        + {"leak": " (can find a leak, not rule one out)", "no_leak": " (can rule a leak out, not find one)"}.get(
            rule.decides, ""
        )
        for rule in verdict.rules
    ]
    joint = verdict.rule
    if joint:
        named = ", ".join(map(words, joint.metrics))
        return [f"Leak: {joint.rule.replace('_', ' ')} {joint.threshold:g} in any one attack, of {named}"]
    known = verdict.alpha is not None
    return [*rules, *([f"Probability of a wrong verdict of the audit: at most {verdict.alpha:g}"] if known else [])]


def _data(summary: Summary) -> list[str]:
    data = _config(summary).get("data", {})
    twins = summary.samples.n_twins
    return [
        *(text.removesuffix(".") for text in _model(summary)),
        f"Non-members used for: {data.get('nonmembers_used_for', NOT_STATED)}",
        f"Inputs on both sides: {'not known' if twins is None else twins}",
        f"Members alone were augmented: {'yes' if summary.augment_members else 'no'}",
    ]


def _proof(summary: Summary) -> list[str]:
    return [] if NO_PROOF in summary.verdict.notes else [NO_PROOF]


def _config(summary: Summary) -> dict[str, Any]:
    found: dict[str, Any] = summary.provenance.get("config", {})
    return found


def _origin(summary: Summary) -> list[tuple[str, str]]:
    origin = summary.provenance
    found = {
        "Checkpoint": _config(summary).get("model", {}).get("checkpoint"),
        "SHA-256": origin.get("digests", {}).get("model.checkpoint"),
        "Configuration": origin.get("config_file"), "Audited": origin.get("created"),
        "mia_batch": origin.get("versions", {}).get("mia_batch"),
    }  # fmt: skip
    return [(name, str(value)) for name, value in found.items() if value]
