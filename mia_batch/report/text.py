"""The summary as plain text for a terminal or a batch log, ASCII alone.

The tutorial's line for each method, and a table of metrics by method with notes and the verdict.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence

from mia_batch.metrics.classification import PRIORS
from mia_batch.metrics.registry import EPSILONS, METRICS, groups, in_group
from mia_batch.metrics.slices import WORST_BY
from mia_batch.report import tables
from mia_batch.report.media import terminal
from mia_batch.report.summary import BoundSummary, MethodSummary, MetricSummary, RecordsSummary, SlicesSummary, Summary
from mia_batch.report.tables import painted
from mia_batch.verdict.sentences import known

TUTORIAL = ("recall", "precision", "accuracy")  # see `method_line`
PRIORS_SAID = f"{', '.join(f'{prior:g}' for prior in PRIORS[:-1])} and {PRIORS[-1]:g}"
FIRST_WORDS = re.compile(r"[A-Z]{2,}(?: [A-Z]{2,})*")  # of a verdict
MARKS = "*+#~^!%&"
LABEL_WIDTH = 15  # "TPR @ FPR 0.001"
CELL_WIDTH = 16  # gap, ".713 .690-.735", mark
NARROW_CELL_WIDTH = 7  # gap, ".713", mark: without the interval
MIN_WIDTH = LABEL_WIDTH + NARROW_CELL_WIDTH


def full_text(summary: Summary, metrics: Sequence[str], *, width: int = 80, colours: bool = False) -> str:
    """All that the reducer prints: the model itself, a line for each method with these metrics, and `render`."""
    lines = [terminal(method_line(summary, name, metrics)) for name in summary.methods]
    table = render(summary, width=width, colours=colours)
    return "\n".join([*wrapped(model_lines(summary), width), *lines, "", table])


def method_line(summary: Summary, method: str, metrics: Sequence[str]) -> str:
    """The line that MindArmour's tutorial prints for a method: four decimals, nan where there is no value.

    MindArmour keeps the metrics in a set, so its order is an accident; users know the tutorial's page: recall,
    precision, accuracy. That order is kept whatever order the configuration names them in; the metrics that MindArmour
    does not have follow in the registry's order, `tpr_at_fpr` standing for all its limits. A method that is not
    evaluable has its reason there.

    Args:
        summary: of the audit.
        method: one of its methods.
        metrics: `report.metrics` of the configuration: what to print.
    """
    if reason := summary.methods[method].reason:
        said = "not run, because" if summary.methods[method].not_run else "not evaluable:"
        return f"Method: {method}, {said} {reason}"
    found = summary.methods[method].metrics
    order = dict.fromkeys(TUTORIAL + groups())
    wanted = [name for group in order if group in metrics for name in in_group(group) if name in found]
    values = [f"'{name}': {_number(found[name].value):.4f}" for name in wanted]
    return f"Method: {method}, {{{','.join(values)}}}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def render(summary: Summary, *, width: int = 80, colours: bool = False) -> str:
    """Table, notes and verdict, in lines of at most `width` columns, the verdict in its colour if there are some.

    Methods that do not fit beside each other follow in further blocks: four take 80 columns, one takes 31. Below that
    the intervals go, and under 22 columns the lines are longer than `width`.
    """
    width = max(width, MIN_WIDTH)
    marks = _marks(summary)
    cell = CELL_WIDTH if width >= LABEL_WIDTH + CELL_WIDTH else NARROW_CELL_WIDTH
    per_block = (width - LABEL_WIDTH) // cell
    methods = [name for name, found in summary.methods.items() if not found.not_run] or list(summary.methods)
    blocks = [_block(summary, methods[i : i + per_block], cell, marks) for i in range(0, len(methods), per_block)]
    notes = [f"{mark} {reason}" for reason, mark in marks.items()] + list(_notes(summary)) + _legend(summary, cell)
    return "\n".join([
        *wrapped([_heading(summary, cell)], width), "",
        "\n\n".join(blocks), "",
        *wrapped(notes, width), "",
        *([*wrapped(check_lines(summary), width), ""] if summary.checks else []),
        *([*wrapped(records_lines(summary.records), width), ""] if summary.records else []),
        *([*wrapped(slices_lines(summary.slices), width), ""] if summary.slices else []),
        *_with_colour(wrapped(verdict_lines(summary), width), summary.verdict.outcome if colours else ""),
    ])  # fmt: skip


def _with_colour(lines: Sequence[str], outcome: str) -> list[str]:
    """The lines of a verdict; its first words, LEAK FOUND say, in the colour of the outcome."""
    if not outcome or not (words := FIRST_WORDS.match(lines[0])):
        return list(lines)
    return [painted(words[0], outcome) + lines[0][words.end() :], *lines[1:]]


def verdict_lines(summary: Summary) -> list[str]:
    """The verdict in plain words and what to know about it, a paragraph each."""
    verdict = summary.verdict
    return [verdict.sentence, *verdict.notes, *(f"Caution: {text}" for text in verdict.cautions)]


def model_lines(summary: Summary) -> list[str]:
    """How well the model itself does, and why an audit of it means nothing; printed before all else."""
    model = summary.audited
    if model is None:
        return []
    sides = [(side, word) for side, word in ((model.members, "members"), (model.nonmembers, "non-members")) if side.n]
    shown = "; ".join(f"{side.accuracy:.1%} of {side.n} {word}, mean loss {side.loss:.4f}" for side, word in sides
                      if side.accuracy is not None)  # fmt: skip
    losses = " and ".join(f"{side.loss:.4f} on {side.n} {word}" for side, word in sides)
    lines = [f"The model itself is right on {shown}." if shown else f"The model's mean loss is {losses}."]
    lines += [f"NOT EVALUABLE: {reason}" for reason in model.reasons]
    lines += [] if model.known or model.reasons else ["EVALUABILITY NOT KNOWN: losses alone do not tell it."]
    if model.n_rounded:
        lines.append(f"{model.n_rounded} probabilities were rounded to 0 by their type.")
    return lines + (["It is audited as a weak model on purpose (gate.weak_model)."] if model.weak_model else [])


def check_lines(summary: Summary) -> list[str]:
    """What the audit has checked of itself, a line each; none in a file of before."""
    if summary.checks is None:
        return []
    blind, test, parity = summary.checks.blind, summary.checks.permutation, summary.checks.parity
    without = f"Without the model: not checked ({blind.reason})."
    if blind.auc:
        beside = f"; {blind.best} less that: {_signed(blind.difference)}" if blind.difference else ""
        without = f"Without the model, by {known(blind.statistics)} alone: AUC {_long(blind.auc)}{beside}."
    drawn = f" of {test.n_drawn} samples drawn" if test.n_drawn else ""
    chance = test.reason if test.p_value is None else f"p {test.p_value:.3f}, {test.n_permutations} permutations{drawn}"
    sides = ((parity.configured, "configured"), (parity.left_out, "left out"), (parity.scored, "scored"))
    counts = ", ".join(f"{ours} and {theirs} {word}" for (ours, theirs), word in sides)
    mix = parity.classes
    classes = f"; classes differ by {mix.total_variation:.1%}, {mix.by_chance:.1%} by chance" if mix else ""
    return [
        without, f"That no attack does better than chance: {chance}. It decides nothing.",
        f"Members and non-members: {counts}{classes}.",
    ]  # fmt: skip


def records_lines(records: RecordsSummary) -> list[str]:
    """Which attack claims most samples; what records.csv leaves out."""
    left_out = records.n_samples - records.n_rows
    lines = [f"records.csv has the {records.n_rows} samples of the highest scores, not all {records.n_samples}."]
    lines = lines if left_out else []
    if not records.claimed:
        return lines
    name, most = max(records.claimed.items(), key=lambda found: found[1].members)
    at = f"At a false discovery rate of {records.fdr:g}"
    if not most.members + most.nonmembers:
        return [f"{at} no sample is claimed to be a member: {records.fewest} at once would have to be.", *lines]
    return [f"{at} {name} claims {most.members} members, and {most.nonmembers} samples that are none.", *lines]


def slices_lines(slices: SlicesSummary) -> list[str]:
    """The worst slice of any attack by balanced accuracy, and how many have too few samples."""
    left_out = len(slices.slices) - slices.n_slices
    few = [f"{left_out} of {len(slices.slices)} slices have too few samples."] if left_out else []
    found = {attack: worst[WORST_BY] for attack, worst in slices.worst.items() if WORST_BY in worst}
    if not found:
        return few
    attack, worst = max(found.items(), key=lambda each: (each[1].low, each[1].value))
    said = f"{worst.slice} by {attack}, balanced accuracy {worst.value:.4f} ({worst.low:.4f} to {worst.high:.4f}"
    together = f"which allows for {slices.n_slices} slices and {slices.n_attacks} attacks"
    return [f"Worst slice: {said}, {together}).", *few]


def _long(numbers: MetricSummary) -> str:
    if numbers.value is None:
        return f"nan ({numbers.reason})"
    return f"{numbers.value:.4f} ({numbers.low:.4f} to {numbers.high:.4f})"


def _signed(numbers: MetricSummary) -> str:
    return f"nan ({numbers.reason})" if numbers.value is None else f"{numbers.value:+.4f} (at least {numbers.low:+.4f})"


def _heading(summary: Summary, cell: int) -> str:
    interval = f" and {summary.level:.0%} interval" if cell == CELL_WIDTH else ""
    sides = f"{summary.samples.n_members} members and {summary.samples.n_nonmembers} non-members"
    return f"Value{interval}, scored on {sides} that no attack was fitted on:"


def _marks(summary: Summary) -> dict[str, str]:
    """A footnote mark for each distinct reason; the last mark serves all that are left over."""
    methods = [each for each in summary.methods.values() if not each.not_run] or list(summary.methods.values())
    found = [numbers.reason for method in methods for numbers in method.metrics.values()]
    reasons = dict.fromkeys(reason for reason in found if reason)
    return {reason: MARKS[min(i, len(MARKS) - 1)] for i, reason in enumerate(reasons)}


def _block(summary: Summary, methods: list[str], cell: int, marks: dict[str, str]) -> str:
    found = [summary.methods[method].metrics for method in methods]
    header = _header(methods, cell)
    rows: dict[str, list[str]] = {}
    for metric in found[0]:
        rows.setdefault(_label(metric), []).append(metric)
    lines = [
        f"{label:<{LABEL_WIDTH}}" + "".join(_cell([each[name] for name in names], cell, marks) for each in found)
        for label, names in rows.items() if len(names) == 1 or cell == CELL_WIDTH
    ]
    lines += _epsilon_lines([summary.methods[method] for method in methods], cell)
    return "\n".join(line.rstrip() for line in [*header, *lines])


def _header(methods: list[str], cell: int) -> list[str]:
    """The methods' names; a long one goes over several lines, at its underscores if it can."""
    names = [_broken(method, cell - 2) for method in methods]
    height = max(map(len, names))
    lines = zip(*([""] * (height - len(name)) + name for name in names), strict=True)
    return [" " * LABEL_WIDTH + "".join(f" {part:<{cell - 1}}" for part in line) for line in lines]


def _broken(name: str, width: int) -> list[str]:
    if len(name) <= width:
        return [name]
    return [line.replace("_ ", "_") for line in textwrap.wrap(name.replace("_", "_ "), width)]


def _cell(metrics: Sequence[MetricSummary], cell: int, marks: dict[str, str]) -> str:
    """The value with its interval, or several values."""
    first = metrics[0]
    text = " ".join(_short(numbers.value) for numbers in metrics)
    if len(metrics) == 1 and cell == CELL_WIDTH and first.value is not None:
        text += f" {_short(first.low)}-{_short(first.high)}"
    return f" {text + marks.get(first.reason or '', ''):<{cell - 1}}"


def _label(metric: str) -> str:
    known = METRICS.get(metric)  # a file of another version may have others
    return known.row or known.label or metric if known else metric


def _epsilon_lines(methods: Sequence[MethodSummary], cell: int) -> list[str]:
    found = [method.epsilon.figures if method.epsilon else {} for method in methods]
    return [
        f"{figure.label:<{LABEL_WIDTH}}" + "".join(f" {_bound(each.get(name), cell):<{cell - 1}}" for each in found)
        for name, figure in EPSILONS.items() if any(name in each for each in found)
    ]


def _bound(figure: BoundSummary | None, cell: int) -> str:
    if figure is None or figure.low is None:
        return "nan"
    if cell == NARROW_CELL_WIDTH:
        return f"{figure.low:.2f}"
    return f">= {figure.low:.3f}" if figure.high is None else f"{figure.low:.2f}-{figure.high:.2f}"


def _short(value: float | None) -> str:
    """Four characters for a fraction: .713, 1.00, nan."""
    if value is None:
        return "nan"
    text = f"{value:.3f}"
    return text[:4] if text.startswith("1") else text[1:]


def _legend(summary: Summary, cell: int) -> list[str]:
    """What PPV and epsilon mean in the table."""
    priors = any(METRICS[name].row for m in summary.methods.values() for name in m.metrics if name in METRICS)
    lines = []
    if priors and cell == CELL_WIDTH:
        lines.append(f"PPV: how sure a decision at that FPR is where {PRIORS_SAID} of all samples are members.")
    delta = next((method.epsilon.delta for method in summary.methods.values() if method.epsilon), None)
    if delta is not None:
        each = f"each bound at {summary.level:.0%} for itself"
        lines.append(f"epsilon: at delta {delta:g}, {each}; {of_training(summary)}")
    return lines


def of_training(summary: Summary) -> str:
    """Whether epsilon says anything of the training algorithm, in words."""
    coins = summary.randomised
    if coins is None:
        return "inclusion was not randomised, so that none says anything of the training algorithm."
    if coins.unfair:
        return f"none says anything of the training algorithm: {coins.unfair}."
    return (
        "coins decided inclusion, so that 'one run' bounds the training algorithm's epsilon ('Gauss.': if it is a "
        "Gaussian mechanism); the others take samples for independent runs."
    )


def _notes(summary: Summary) -> Iterable[str]:
    for method, found in summary.methods.items():
        failed = found.n_nonconverged
        count = sum(failed.values()) if isinstance(failed, dict) else failed
        if count:
            yield f"{method}: {count} fits did not converge (details in summary.json)"
        if n_failed := found.provenance.get("n_failed"):
            yield f"{method}: {n_failed} fits failed, their candidates were not chosen from (details in summary.json)"


def wrapped(paragraphs: Iterable[str], width: int) -> list[str]:
    """Lines of at most `width` columns, in which nothing acts on the terminal."""
    return [line for text in paragraphs for line in tables.wrapped(terminal(text), width, 0).split("\n")]
