"""report.html: one page that holds everything, needs nothing beside itself and runs no script.

A function of the summary and of what is drawn beside it, so that the same audit gives the same page.
"""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from mia_batch.metrics.classification import PRIORS
from mia_batch.metrics.ranking import FPRS, fpr_name
from mia_batch.metrics.registry import EPSILONS
from mia_batch.metrics.slices import WORST_BY
from mia_batch.report import words
from mia_batch.report.charts import Chart, curve_chart, histogram_chart, interval_chart, roc_chart
from mia_batch.report.evidence import Curve, Evidence
from mia_batch.report.media import shell
from mia_batch.report.shown_text import short
from mia_batch.report.summary import FewerReferencesSummary, MetricSummary, SliceSummary, Summary
from mia_batch.report.templating import environment, own_text
from mia_batch.report.text import check_lines, of_training
from mia_batch.verdict.rules import RuleOutcome
from mia_batch.verdict.sentences import words as spoken

OF_DECISIONS = ("balanced_accuracy", "accuracy", "precision", "recall", "auc", "advantage")
N_DRAWN_SLICES = 25
OVER_REFERENCES = {"auc": "AUC", fpr_name(0.01): "true positive rate at 1 % false ones"}
NONE = "\N{EN DASH}"
CONTENTS = (
    ("finding", "The finding"), ("attacks", "Attack by attack"), ("slices", "Classes and slices"),
    ("records", "Most exposed records"), ("epsilon", "Epsilon"), ("model", "The model on both sides"),
    ("checks", "Self-checks"), ("references", "Fewer references"),
    ("curves", "Over the training"), ("file", "For the file"), ("timings", "Timings"),
    ("repeat", "Provenance, repeat"),
)  # fmt: skip


def to_page(summary: Summary, evidence: Evidence) -> str:
    """Text of report.html."""
    made = environment(
        number=number, percent=percent, cell=_cell, short=lambda value: f"{value:g}", spoken=spoken, pairs=_pairs,
        sentence=lambda text: text[:1].upper() + text[1:],
        svg=Markup,  # which `charts` has made, with all text in it escaped
    )  # fmt: skip
    return made.get_template("report.html").render(
        css=own_text("report.css"), summary=summary, state=words.state_of(summary), words=words, spoken=spoken,
        priors=PRIORS, fprs=FPRS, fpr_name=fpr_name, metric_label=metric_label, of_decisions=OF_DECISIONS,
        epsilons=EPSILONS, page=_Page.of(summary, evidence),
    )  # fmt: skip


def number(value: float | None, digits: int = 3) -> str:
    """Fixed decimals; a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """As a percentage; a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}%}"


def _cell(value: Any) -> str:
    """A number behind a chart, or text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pairs(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def metric_label(name: str) -> str:
    """How a metric is called on the page."""
    return {"auc": "AUC", "advantage": "advantage (largest)"}.get(name, spoken(name))


@dataclass(frozen=True)
class _Curve:
    chart: Chart
    names: tuple[str, ...]
    said: str = ""


@dataclass(frozen=True)
class _Page:
    """What the template takes beside the summary itself."""

    name: str
    who: dict[str, Any]  # the configuration's section `dossier`
    contents: list[tuple[str, str]]
    level: float | None  # of balanced accuracy
    epsilons: dict[str, str]  # the figures of epsilon that some attack has: label by name
    delta: float
    of_training: str
    not_run: dict[str, list[str]]  # attacks by the reason
    best: str | None  # the attack whose balanced accuracy is said
    deciding: list[str]
    decided_by: float | None  # the first one's value
    needed: str  # of samples, for a model without a leak to pass
    overview: Chart | None
    roc: Mapping[str, Chart]
    scores: Mapping[str, Chart]
    loss: Chart | None
    slices: Chart | None
    slice_rows: list[dict[str, Any]]
    references: list[_Curve]
    curves: list[_Curve]
    images: Mapping[int, str]
    no_images: str
    timings: list[dict[str, Any]]
    checks: list[str]
    commands: str
    config: str
    facts: list[tuple[str, str]]

    @classmethod
    def of(cls, summary: Summary, evidence: Evidence) -> _Page:
        keys = (f"chart{i}" for i in count())
        dossier = summary.provenance.get("config", {}).get("dossier") or {}
        slice_rows, rules = _slice_rows(summary), words.deciding_rules(summary)
        references = [
            _over_references(next(keys), name, method.over_references)
            for name, method in summary.methods.items() if len(method.over_references) > 1
        ]  # fmt: skip
        there = {"curves": evidence.curves, "references": references}
        return cls(
            name=_name(summary, dossier), who=defaultdict(lambda: None, dossier), best=_best(summary, rules),
            contents=[each for each in CONTENTS if there.get(each[0], True)], references=references,
            level=_level(summary), epsilons=_epsilons(summary), delta=_delta(summary), of_training=of_training(summary),
            not_run=_not_run(summary),
            deciding=[words.rule_words(*each) for each in rules], decided_by=rules[0][1].value if rules else None,
            needed=_needed(summary), overview=_overview(next(keys), summary),
            roc={
                name: roc_chart(next(keys), name, each.roc, level=summary.level, least=_least(summary))
                for name, each in evidence.attacks.items() if not math.isnan(each.roc.tpr[0])
            },
            scores={
                name: histogram_chart(next(keys), f"Scores of {name}", "score, high for members", each.scores)
                for name, each in evidence.attacks.items()
            },
            loss=_loss(next(keys), evidence), slices=_slices_chart(next(keys), summary, slice_rows),
            slice_rows=slice_rows, curves=[_curve(next(keys), each) for each in evidence.curves],
            images={i: _data_uri(png) for i, png in evidence.images.items()}, no_images=evidence.no_images,
            timings=_timings(summary), checks=check_lines(summary), commands=_commands(summary),
            config=_config_text(summary), facts=_facts(summary),
        )  # fmt: skip


def _name(summary: Summary, dossier: Mapping[str, Any]) -> str:
    config = summary.provenance.get("config", {})
    checkpoint = config.get("model", {}).get("checkpoint")
    name = dossier.get("model") or (Path(checkpoint).name if checkpoint else "a model known by its outputs")
    return f"{name} {dossier['version']}" if dossier.get("version") else str(name)


def _with_scores(summary: Summary, metric: str) -> dict[str, tuple[float, float, float]]:
    found = {name: method.metrics.get(metric) for name, method in summary.methods.items()}
    return {name: numbers for name, each in found.items() if (numbers := _numbers(each))}


def _numbers(found: MetricSummary | None) -> tuple[float, float, float] | None:
    if found is None or found.value is None or found.low is None or found.high is None:
        return None
    return found.value, found.low, found.high


def _best(summary: Summary, rules: Sequence[tuple[str, RuleOutcome]]) -> str | None:
    """The attack that decided, if it did so by balanced accuracy; else that of the highest lower bound."""
    found = _with_scores(summary, WORST_BY)
    if rules and rules[0][1].rule == WORST_BY and rules[0][0] in found:
        return rules[0][0]
    return max(found, key=lambda name: found[name][1]) if found else None


def _needed(summary: Summary) -> str:
    found = summary.detectable
    if found is None or found.needed is None or found.never:
        return ""
    passing = f"a model without any leak passes by balanced accuracy with a probability of {found.passing:.0%}"
    return f"From {found.needed:.0f} scored samples a side on, {passing}."


def _level(summary: Summary) -> float | None:
    """Of balanced accuracy."""
    return next((rule.above for rule in summary.verdict.rules if rule.metric == WORST_BY), None)


def _overview(key: str, summary: Summary) -> Chart | None:
    found = _with_scores(summary, WORST_BY)
    title = "How well each attack tells members from non-members"
    return interval_chart(
        key, title, "balanced accuracy", found, level=_level(summary), chance=0.5
    ) if found else None  # fmt: skip


def _least(summary: Summary) -> float:
    """The lowest rate that ROC curves show: half of the smallest that there is."""
    return 0.5 / max(summary.samples.n_members, summary.samples.n_nonmembers, 1)


def _loss(key: str, evidence: Evidence) -> Chart | None:
    title = "The model's loss on members and non-members"
    return histogram_chart(key, title, "loss (nats)", evidence.loss) if evidence.loss else None


def _curve(key: str, curve: Curve) -> _Curve:
    chart = curve_chart(key, curve.title, curve.x, curve.series, labels=curve.labels, level=curve.level)
    return _Curve(chart, tuple(curve.series))


def _over_references(key: str, name: str, points: Sequence[FewerReferencesSummary]) -> _Curve:
    series = {
        label: tuple(numbers for each in points if (numbers := _numbers(each.metrics.get(metric))))
        for metric, label in OVER_REFERENCES.items()
    }  # attacks leave out points that have no value
    x, title = [each.n_references for each in points], f"{short(name, 40)} with fewer references"
    chart = curve_chart(
        key, title, x, series, labels=("reference models", "AUC, or true positive rate"), level=None, log=True
    )  # fmt: skip
    return _Curve(chart, tuple(series), words.more_references(points))


def _epsilons(summary: Summary) -> dict[str, str]:
    there = {name for method in summary.methods.values() if method.epsilon for name in method.epsilon.figures}
    return {name: figure.label for name, figure in EPSILONS.items() if name in there}


def _delta(summary: Summary) -> float:
    return next((method.epsilon.delta for method in summary.methods.values() if method.epsilon), 0.0)


def _not_run(summary: Summary) -> dict[str, list[str]]:
    """Those of the audit that have come to nothing, and those that it did not try."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, method in summary.methods.items():
        if method.reason:
            found[method.reason if method.not_run else f"not evaluable: {method.reason}"].append(name)
    for name, reason in summary.not_tried.items():
        found[reason].append(name)
    return dict(found)


def _slice_rows(summary: Summary) -> list[dict[str, Any]]:
    """Of each slice the attack of the highest lower bound; the worst slice first, those without figures last."""
    rows = [_slice_row(each) for each in (summary.slices.slices if summary.slices else ())]
    return sorted(rows, key=lambda row: -(row["found"].low if row["found"] else -1.0))


def _slice_row(each: SliceSummary) -> dict[str, Any]:
    found = {name: metrics[WORST_BY] for name, metrics in each.metrics.items() if WORST_BY in metrics}
    there = {name: metric for name, metric in found.items() if metric.low is not None}
    best = max(there, key=lambda name: there[name].low or 0.0) if there else None
    reason = each.reason or next((metric.reason for metric in found.values() if metric.reason), None)
    return {"slice": each, "attack": best, "found": there[best] if best else None, "reason": reason}


def _slices_chart(key: str, summary: Summary, rows: list[dict[str, Any]]) -> Chart | None:
    found = {row["slice"].name: _numbers(row["found"]) for row in rows[:N_DRAWN_SLICES] if row["found"]}
    drawn = {name: numbers for name, numbers in found.items() if numbers}
    if not drawn:
        return None
    title = "Balanced accuracy of the strongest attack by class and slice"
    return interval_chart(key, title, "balanced accuracy", drawn, level=_level(summary), chance=0.5)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _timings(summary: Summary) -> list[dict[str, Any]]:
    """Of each stage and attack; an attack's seconds are those of its tasks, which run beside others."""
    rows = [
        {"what": launch.get("stage", ""), "started": launch.get("started", ""), "seconds": launch.get("seconds"),
         "detail": _layout(launch)}
        for launch in summary.provenance.get("launches", [])
    ]  # fmt: skip
    for name, method in summary.methods.items():
        tasks = method.provenance.get("tasks", [])
        seconds = sum(task.get("seconds", 0.0) for task in tasks)
        started = method.provenance.get("launch", {}).get("started", "")
        detail = f"{len(tasks)} task{'s' * (len(tasks) > 1)}" if tasks else "not recorded"
        rows.append({"what": f"attack {name}", "started": started, "seconds": seconds, "detail": detail})
    return rows


def _layout(launch: Mapping[str, Any]) -> str:
    named = (("rank_size", "MPI ranks"), ("n_nodes", "nodes"))
    parts = [f"{launch[key]} {word}" for key, word in named if key in launch]
    parts += [f"on {launch['host']}"] if "host" in launch else []
    return ", ".join(parts + ([f"{launch['memory'] / 2**20:.0f} MiB a rank"] if launch.get("memory") else []))


def _commands(summary: Summary) -> str:
    """What makes the same audit again."""
    origin = summary.provenance
    config, version = origin.get("config", {}), origin.get("versions", {}).get("mia_batch", "")
    lines = [f"# the same program: it must say {version}", "mia-batch --version"] if version else []
    checkpoint = config.get("model", {}).get("checkpoint")
    files = config.get("data", {}).get("files")
    read = {"model.checkpoint": checkpoint, "data.files": files if isinstance(files, str) else None}
    for name, path in read.items():
        if path and (digest := origin.get("digests", {}).get(name)):
            lines += [f"# the same {name}: it must say OK", _sum_check(digest, path)]
    if file := origin.get("config_file"):
        words_of = ["mia-batch", "run", file, "--out", "audit-again"]
        words_of += [f"--checkpoint={checkpoint}"] if checkpoint else []
        words_of += [f"--set={change}" for change in origin.get("changes", ())]
        lines += ["# the audit; its verdict is the exit code: 0, 3 or 4", shell(*words_of)]
        lines += ["# where that file has gone: save the config below as audit.yaml", _of_saved()]
    else:
        lines += ["# in Python, with arrays of the SHA-256 below", "mia_batch.audit(logits, labels, member, ...)"]
    return "\n".join(lines)


def _sum_check(digest: str, path: str) -> str:
    return f"echo {shell(f'{digest}  {path}')} | sha256sum --check"


def _of_saved() -> str:
    """The config in force has the changes of the command line in it."""
    return "mia-batch run audit.yaml --out audit-again"


def _config_text(summary: Summary) -> str:
    config = summary.provenance.get("config", {})
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100) if config else ""


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Of the model and its data, as the configuration and the run have them."""
    config, data = summary.provenance.get("config", {}), summary.provenance.get("config", {}).get("data", {})
    model, checkpoint = config.get("model", {}), summary.provenance.get("checkpoint", {})
    samples = summary.samples
    twins = "not known" if samples.n_twins is None else f"{samples.n_twins} samples"
    found = {
        "Network": model.get("factory"), "Checkpoint": model.get("checkpoint"),
        "Checkpoint made": checkpoint.get("modified"), "Epoch": checkpoint.get("epoch_num"),
        "Step": checkpoint.get("step_num"), "Data source": data.get("source"), "Data path": data.get("path"),
        "Members": _blocks(data.get("members")), "Non-members": _blocks(data.get("nonmembers")),
        "Non-members used for": data.get("nonmembers_used_for"),
        "Inclusion drawn by coins": _yes(data.get("randomised")), "Inputs on both sides": twins,
        "Groups of samples (one alone is one)": samples.n_groups,
        "Members alone were augmented": _yes(summary.augment_members),
    }  # fmt: skip
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _blocks(blocks: Iterable[Mapping[str, Any]] | None) -> str | None:
    said = []
    for block in blocks or ():
        part = next((f"{key} {block[key]}" for key in ("num_samples", "range", "indices") if block.get(key)), "all")
        said.append(f"split {block.get('split')}, {part}")
    return "; ".join(said) or None

