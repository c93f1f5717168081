"""The audits in a directory as a history: by training run, each oldest first, with the change since the one before.

The run directories themselves are the record: there is no database to share or to repair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError, one_line
from mia_batch.metrics.differences import joint_reach
from mia_batch.report.best import AREA, AT_ONE_PERCENT, BALANCED, Best, best_of
from mia_batch.report.entries import Entry
from mia_batch.report.summary import MetricSummary, Summary, read_summary
from mia_batch.rundir.identity import attacks_identity, training_run_identity
from mia_batch.rundir.manifest import known_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.state import StageStatus, furthest, reduce_status
from mia_batch.rundir.trainings import Audited, Training, audited_by, trainings
from mia_batch.scheduler.queue import statuses


@dataclass(frozen=True)
class Found:
    """What the files of one run say.

    Attributes:
        entry: without what its training tells.
        audited: the checkpoint; None where run.json cannot be read.
        area: the highest AUC of its attacks; None where it cannot be compared.
        attacks: what they are, and which of them have an AUC: others are not to be compared with.
        level: of the intervals.
    """

    entry: Entry
    audited: Audited | None = None
    area: MetricSummary | None = None
    attacks: str = ""
    level: float | None = None


@dataclass(frozen=True)
class History:
    """Audits: training by training, each oldest first; those that cannot be read at the end.

    Attributes:
        entries: the audits.
        trainings: of them.
        level: of the intervals; None without a verdict.
    """

    entries: tuple[Entry, ...]
    trainings: tuple[Training, ...]
    level: float | None = None


def read_history(runs: Path) -> History:
    """The audits in `runs`.

    Raises:
        InputError: `runs` is no directory.
    """
    if not runs.is_dir():
        raise InputError(f"{runs}: RUNS: must be a directory of run directories")
    return history_of({paths.root.name: paths for paths in runs_in(runs)})


def history_of(runs: Mapping[str, RunPaths]) -> History:
    """The audits in these directories, by the name that each goes by."""
    found = {name: (paths, _by_files(name, paths)) for name, paths in runs.items()}
    undone = {run: paths for run, (paths, each) in found.items() if each.entry.state not in ("done", "damaged")}
    reached = dict(zip(undone, map(furthest, statuses(list(undone.values()))), strict=True))
    known = {run: _at(each, reached.get(run)) for run, (_, each) in found.items()}
    by_training = trainings(each.audited for each in known.values() if each.audited)
    entries = [entry for training in by_training for entry in _of_training(training, known)]
    entries += [each.entry for each in known.values() if not each.audited]
    level = next((each.level for each in known.values() if each.level is not None), None)
    return History(tuple(entries), tuple(by_training), level)


def compared(runs: Mapping[str, RunPaths]) -> list[Entry]:
    """The audits in the order given, each with the change since the first.

    Raises:
        InputError: with a line for each that is not finished.
    """
    found = [_by_files(name, paths) for name, paths in runs.items()]
    problems = [
        _unfinished(paths, each.entry)
        for paths, each in zip(runs.values(), found, strict=True) if each.entry.state != "done"
    ]
    if problems:
        raise InputError(problems)
    first, *rest = found
    return [replace(first.entry, detail=""), *(_against(first, each) for each in rest)]


def _unfinished(paths: RunPaths, entry: Entry) -> str:
    if not paths.manifest.exists():
        return entry.detail
    said = ": ".join(filter(None, (entry.state, entry.detail)))
    return f"{paths.root}: must hold a finished audit, got {said}"


def _against(first: Found, other: Found) -> Entry:
    if first.area is None or other.area is None:
        return replace(other.entry, verdict_change="", detail="not to be compared: an audit has no AUC that counts")
    if first.attacks != other.attacks:
        return replace(other.entry, verdict_change="", detail=f"by other attacks or settings than {first.entry.run}")
    return replace(other.entry, detail="", **change(first, other))


def _by_files(name: str, paths: RunPaths) -> Found:
    """An audit as its run.json and summary.json say."""
    found = Found(Entry(name))
    try:
        manifest = known_manifest(paths)
        its = audited_by(name, manifest, training_run_identity(manifest))
        verdict = reduce_status(paths, manifest)
        found = Found(Entry(
            run=name, created=manifest.created, checkpoint=its.path.name, sha256=its.sha256,
            state=verdict.state, detail=verdict.detail, modified=manifest.checkpoint.modified,
        ), its)  # fmt: skip
        if verdict.state != "done":
            return found
        return _with_verdict(found, read_summary(paths.summary_json), attacks_identity(manifest))
    except InputError as error:
        said = " ".join(str(error).split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"run.json or summary.json: must be as a run writes it, got {one_line(error)}"
    return replace(found, entry=replace(found.entry, state="damaged", detail=said))


def _with_verdict(found: Found, summary: Summary, attacks: Mapping[str, Any]) -> Found:
    verdict, area = summary.verdict, best_of(summary, AREA)
    accuracy = best_of(summary, "accuracy")
    entry = replace(
        found.entry, leak=verdict.leak, outcome=verdict.outcome, detail=verdict.sentence,
        accuracy=accuracy.metric.value if accuracy else None, **_figures(summary),
    )  # fmt: skip
    found = replace(found, entry=entry, level=summary.level)
    if area is None or (summary.audited and summary.audited.reasons):  # nothing to compare, or the model is no model
        return found
    having = [name for name, method in summary.methods.items() if _has_area(method.metrics.get(AREA))]
    return replace(found, area=area.metric, attacks=json.dumps([attacks, sorted(having)], sort_keys=True))


def _has_area(found: MetricSummary | None) -> bool:
    return found is not None and found.value is not None


def _figures(summary: Summary) -> dict[str, Any]:
    """The best attacks' and the model's own, as fields of an `Entry`."""
    model = summary.audited
    found = _fields("auc", best_of(summary, AREA)) | _fields("balanced_accuracy", best_of(summary, BALANCED))
    found |= _fields("tpr", best_of(summary, AT_ONE_PERCENT))
    sides = (model.members.accuracy, model.nonmembers.accuracy) if model else (None, None)
    return found | {"member_accuracy": sides[0], "test_accuracy": sides[1]}


def _fields(name: str, best: Best | None) -> dict[str, Any]:
    if best is None:
        return {}
    low, high = best.metric.low, best.metric.high
    return {name: best.metric.value, f"{name}_low": low, f"{name}_high": high, f"{name}_attack": best.attack}


def _at(found: Found, stage: StageStatus | None) -> Found:
    """A run without a verdict of the configuration in force, as `status` says it."""
    if stage is None:
        return found
    job = f"job {stage.job}" if stage.job else ""
    detail = " ".join(word for word in (stage.stage, stage.detail, job) if word)
    return replace(found, entry=replace(found.entry, state=stage.state, detail=detail))


def _of_training(training: Training, known: Mapping[str, Found]) -> list[Entry]:
    """Its audits, each with the change since the last one before with the same attacks."""
    before: dict[str, Found] = {}
    entries = []
    for audited, step in training.audits:
        each = known[audited.run]
        entry = replace(each.entry, training=training.id, step=" ".join(map(str, step)))
        if each.area:
            entry = replace(entry, **change(before.get(each.attacks), each))
            before[each.attacks] = each
        entries.append(entry)
    return entries


def change(before: Found | None, now: Found) -> dict[str, Any]:
    """What `now` says of itself against `before`, as fields of an `Entry`.

    The interval of the difference is made of both audits' intervals (Zou & Donner 2008) as of independent samples. The
    samples are the same, so that it is rather too wide; so it is for the highest of several AUC.
    """
    if before is None:
        return {"verdict_change": "new"}
    (was, was_low, was_high), (value, low, high) = (
        (area.value or 0.0, area.low or 0.0, area.high or 0.0) for area in (before.area, now.area) if area
    )
    difference = value - was
    down = difference - joint_reach(value - low, was_high - was)
    up = difference + joint_reach(high - value, was - was_low)
    alike = "same" if before.entry.outcome == now.entry.outcome else "unclear"
    word = "worse" if down > 0 else "better" if up < 0 else alike
    return {
        "verdict_change": word, "auc_change": difference, "auc_change_low": max(-1.0, down),
        "auc_change_high": min(1.0, up),
    }
