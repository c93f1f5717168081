"""The audits of one training beside each other: what the page of one of them draws over the training's steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from mia_batch.errors import InputError, one_line
from mia_batch.metrics.slices import WORST_BY
from mia_batch.report.evidence import Curve
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.identity import training_run_identity
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.trainings import Numbers, audited_by, trainings

log = logging.getLogger(__name__)
Numbers3 = tuple[float, float, float]  # value, low, high


def over_training(
    paths: RunPaths, manifest: Manifest, summary: Summary, earlier: Iterable[Path] = ()
) -> tuple[Curve, ...]:
    """Leakage and accuracy of this audit and of those of the same training; none of one alone.

    Those are looked for in the same folder, and where `attack.trajectory` says that earlier checkpoints are.

    Args:
        paths: of this run, whose verdict is not written yet.
        manifest: of it.
        summary: of it.
        earlier: run directories.
    """
    own, here = training_run_identity(manifest), str(paths.root.resolve())
    manifests = {here: manifest} | _others(paths, own, earlier)
    found = trainings(audited_by(name, each, own) for name, each in manifests.items())
    audits = next(each.audits for each in found if any(a.run == here for a, _ in each.audits))
    known = [(step, _figures(summary if a.run == here else _read(a.run))) for a, step in audits]
    points = [(step, figures) for step, figures in known if step and figures]
    if len(points) < 2:
        return ()
    x = _ascending([step for step, _ in points])
    level = next((rule.above for rule in summary.verdict.rules if rule.metric == WORST_BY), None)
    leakage = Curve(
        "Leakage over the training", ("step of the training", "balanced accuracy"), x,
        {"strongest attack": tuple(figures[0] for _, figures in points)}, level,
    )  # fmt: skip
    accuracy = Curve(
        "The model's accuracy over the training", ("step of the training", "accuracy"), x,
        {"on members": tuple(f[1] for _, f in points), "on non-members": tuple(f[2] for _, f in points)},
    )  # fmt: skip
    return leakage, accuracy


def _others(paths: RunPaths, own: dict[str, object], earlier: Iterable[Path]) -> dict[str, Manifest]:
    """The finished audits of the same training, by directory; what cannot be read is none of them."""
    found, here = {}, paths.root.resolve()
    beside = [each.root.resolve() for each in runs_in(paths.root.parent)]
    for folder in dict.fromkeys([*beside, *(each.resolve() for each in earlier)]):
        each = RunPaths(folder)
        try:
            manifest = None if folder == here or not each.summary_json.exists() else read_manifest(each)
        except InputError as error:
            log.info("%s is not drawn: %s", each.root, one_line(error))
            continue
        if manifest and training_run_identity(manifest) == own:
            found[str(folder)] = manifest
    return found


def _read(run: str) -> Summary | None:
    try:
        return read_summary(RunPaths(Path(run)).summary_json)
    except InputError as error:
        log.info("%s is not drawn: %s", run, one_line(error))
        return None


def _figures(summary: Summary | None) -> tuple[Numbers3, Numbers3, Numbers3] | None:
    """Of the attack of the highest lower bound, and the accuracies; None where one is missing."""
    if summary is None or summary.audited is None:
        return None
    found = [each for method in summary.methods.values() if (each := method.metrics.get(WORST_BY))]
    there = [(m.value, m.low, m.high) for m in found if None not in (m.value, m.low, m.high)]
    sides = (summary.audited.members.accuracy, summary.audited.nonmembers.accuracy)
    if not there or None in sides:
        return None
    ours, theirs = ((value, value, value) for value in sides)
    return max(there, key=lambda each: each[1] or 0.0), ours, theirs  # type: ignore[return-value]


def _ascending(steps: list[Numbers]) -> tuple[float, ...]:
    """The last number of steps that ascends, such as the step of (epoch, step); else 1, 2, 3."""
    for number in reversed(range(min(map(len, steps)))):
        x = [step[number] for step in steps]
        if all(a < b for a, b in pairwise(x)):
            return tuple(map(float, x))
    return tuple(float(i + 1) for i in range(len(steps)))
