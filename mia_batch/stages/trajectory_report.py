"""What is said of the checkpoints of a training: text, one JSON object, and a CSV with a line for each record."""

from __future__ import annotations

import csv
import json
import logging
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.trajectories import PerSample, fluctuation, lt_iqr
from mia_batch.errors import InputError
from mia_batch.files import atomic_path, write_text
from mia_batch.process.exit_codes import BAD_INPUT, BY_OUTCOME, INCONCLUSIVE, LEAK, OK
from mia_batch.report.media import terminal
from mia_batch.report.summary import plain
from mia_batch.report.tables import has_colours, table_text, terminal_width, wrapped
from mia_batch.stages.arguments import named_folder
from mia_batch.stages.trajectory import FirstLeak, Records, Step, Trajectory, read_trajectories
from mia_batch.stages.trajectory_attacks import SHOWN as METRICS
from mia_batch.stages.trajectory_attacks import OfScores

log = logging.getLogger(__name__)
FOLDER = "trajectories"  # in the directory of the runs
COLUMNS = ("split", "index", "member", "label", "lt_iqr", "fluctuation", "last_loss")
HEADER = ("step", "checkpoint", "run", "verdict", "best attack", "balanced acc.")
PRINTED = "tpr_at_fpr_0.01"
SHOWN = 5  # records with the largest LT-IQR
NO_TEST = "LT-IQR ranks training records by exposure; it is not a membership test."
CHOSEN = "The best attack is chosen by its value at each step: its interval does not allow for that."


def exposure_of(records: Records) -> tuple[PerSample, PerSample]:
    """LT-IQR and fluctuation of each record."""
    return lt_iqr(records.loss), fluctuation(records.loss)


def write_records(path: Path, records: Records, exposure: tuple[PerSample, PerSample]) -> None:
    """The CSV by `COLUMNS`, membership and loss of the last step; an empty field is not known."""
    n = len(records.loss)
    label: Any = [""] * n if records.label is None else records.label.tolist()
    numbers = (_fields(each) for each in (*(each.values for each in exposure), records.loss[:, -1]))
    member = records.member[:, -1].tolist()
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            zip(records.split.tolist(), records.sample_index.tolist(), member, label, *numbers, strict=True)
        )


def _fields(values: NDArray[np.float64]) -> list[float | str]:
    return ["" if math.isnan(value) else value for value in values.tolist()]


def as_object(found: Trajectory, exposure: tuple[PerSample, PerSample]) -> dict[str, Any]:
    """What `--json` prints: JSON types alone, null where there is no number."""
    first = found.first_leak
    most = [_named(found.records, row) | {"lt_iqr": exposure[0].values[row]} for row in most_exposed(found, exposure)]
    return plain({
        "training": found.training,
        "level": found.level,
        "steps": [_step_object(step) for step in found.steps],
        "first_leak": first and {
            "run": first.step.run, "step": first.step.step, "after_run": first.after and first.after.run,
            "after_step": first.after and first.after.step, "n_inconclusive": first.n_inconclusive,
        },
        "n_samples": len(found.records.loss),
        "n_members": int(found.records.member[:, -1].sum()),
        "most_exposed": most,
        "reason": exposure[0].reason,
        "updates": [
            {"before": before.run, "now": now.run, "n_arrived": update.n_members, "n_stayed": update.n_nonmembers,
             "n_twins": update.n_twins} | _metrics_object(update)
            for before, now, update in _updates(found)
        ],
        "lira": {
            name: getattr(found.lira, name) for name in ("n_members", "n_nonmembers", "n_twins", "n_left_out")
        } | _metrics_object(found.lira),
        "left_out": dict(found.left_out),
        "cautions": found.cautions,
    })  # fmt: skip


def _step_object(step: Step) -> dict[str, Any]:
    interval = step.balanced_accuracy.model_dump() if step.balanced_accuracy else None
    return asdict(step) | {"balanced_accuracy": interval}


def _metrics_object(found: OfScores) -> dict[str, Any]:
    return {name: asdict(found.metrics[name]) if found.metrics else None for name in METRICS} | {
        "reason": found.reason or None
    }  # fmt: skip


def _updates(found: Trajectory) -> Iterator[tuple[Step, Step, OfScores]]:
    """Each update with the step before and after it."""
    for (before, now), update in zip(pairwise(found.steps), found.updates, strict=True):
        yield before, now, update


def most_exposed(found: Trajectory, exposure: tuple[PerSample, PerSample]) -> list[int]:
    """Rows of the members at the last step with the largest LT-IQR, largest first."""
    rows = np.flatnonzero(found.records.member[:, -1] == 1)
    values = exposure[0].values[rows]
    return [] if exposure[0].reason else [int(row) for row in rows[np.argsort(-values, kind="stable")][:SHOWN]]


def _named(records: Records, row: int) -> dict[str, Any]:
    return {"split": str(records.split[row]), "index": int(records.sample_index[row])}


def as_text(
    found: Trajectory, exposure: tuple[PerSample, PerSample], *, width: int | None = None, colours: bool = False
) -> str:
    """A table of the steps, and what is to be said of them, in lines of at most `width` if that is given."""
    header = (*HEADER[:-1], f"{HEADER[-1]} and {found.level:.0%} interval")
    judging = HEADER.index("verdict")
    table = table_text(list(map(_cells, found.steps)), header=header, width=width, judging=judging, colours=colours)
    blocks = [
        [leak_sentence(found.first_leak, found.steps), *_exposure_lines(found, exposure)],
        list(_attack_lines(found)),
        [*found.cautions, *(f"left out: {run}: {why}" for run, why in found.left_out.items())],
    ]
    said = ["\n".join(wrapped(terminal(line), width, 0) for line in block) for block in blocks if block]
    return "\n\n".join([f"{table}\n{wrapped(CHOSEN, width, 0)}", *said])


def _cells(step: Step) -> tuple[str, ...]:
    best = step.balanced_accuracy
    numbers = f"{best.value:.4f} {best.low:.4f}-{best.high:.4f}" if best else "none"
    return step.step or "-", step.checkpoint, step.run, step.outcome, step.attack or "-", numbers


def leak_sentence(first: FirstLeak | None, steps: tuple[Step, ...]) -> str:
    """Where the leak began, as far as the audits can tell."""
    if first is None:
        unsure = sum(step.outcome == "inconclusive" for step in steps)
        return f"No audit found a leak{f'; {unsure} of {len(steps)} cannot say' if unsure else ''}."
    best = first.step.balanced_accuracy
    numbers = f", balanced accuracy {best.value:.4f} ({best.low:.4f} to {best.high:.4f})" if best else ""
    said = f"First leak found: {first.step.name} ({first.step.run}){numbers}"
    if first.after is None:
        return f"{said}; no audit before it found none, so that it may have begun at any time."
    between = f"; {first.n_inconclusive} between them cannot say" if first.n_inconclusive else ""
    return f"{said}; after {first.after.name} ({first.after.run}), the last that found none{between}."


def _exposure_lines(found: Trajectory, exposure: tuple[PerSample, PerSample]) -> Iterator[str]:
    if exposure[0].reason:
        yield f"LT-IQR and fluctuation: not made, because {exposure[0].reason}."
        return
    most = most_exposed(found, exposure)
    if most:  # without their names: a job's log has this text
        values = ", ".join(f"{exposure[0].values[row]:.4f}" for row in most)
        yield f"Largest LT-IQR among the members of the last step: {values}. The JSON and the CSV name the records."
    yield NO_TEST


def _attack_lines(found: Trajectory) -> Iterator[str]:
    n_steps = len(found.steps)
    lira = f"LiRA over {n_steps} checkpoint{'s' if n_steps != 1 else ''}"
    if found.lira.reason:
        yield f"{lira}: not run, because {found.lira.reason}."
    else:
        n = found.lira
        left_out = f", without {n.n_left_out} that were not the same at all steps" if n.n_left_out else ""
        yield f"{lira}: {_figures(n)}, {n.n_members} members against {n.n_nonmembers} non-members{left_out}."
    reasons: Mapping[str, None] = dict.fromkeys(update.reason for update in found.updates)
    if not found.updates or (len(reasons) == 1 and all(update.reason for update in found.updates)):
        yield f"Update attack: not run, because {next(iter(reasons), 'there is one checkpoint')}."
        return
    for before, now, update in _updates(found):
        yield f"Update attack, {before.name} to {now.name}: {_of_update(update)}"


def _of_update(update: OfScores) -> str:
    if update.reason:
        return f"not run, because {update.reason}."
    twins = f", without {update.n_twins} whose input is in both" if update.n_twins else ""
    return (
        f"{_figures(update)}, {update.n_members} samples that arrived against {update.n_nonmembers} that stayed "
        f"outside{twins}."
    )


def _figures(found: OfScores) -> str:
    """AUC and TPR at the FPR that is resolved, with their intervals."""
    area, tpr = found.metrics["auc"], found.metrics[PRINTED]
    said = f"AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f})"
    return said if tpr.reason else f"{said}, TPR at FPR 0.01 {tpr.value:.4f} ({tpr.low:.4f} to {tpr.high:.4f})"



# --- every training of a directory -----------------------------------------------------------------------------------


def join_all(args: Namespace) -> int:
    """Print and write a trajectory for each training whose audits are in a directory.

    Returns:
        The exit code of the worst verdict of a last step; of bad input if a training cannot be joined and none leaks.
    """
    runs = named_folder("--out", args.out)
    codes = {_join(training, found, runs / FOLDER) for training, found in read_trajectories(runs).items()}
    return next((code for code in (LEAK, BAD_INPUT, INCONCLUSIVE) if code in codes), OK)


def _join(training: str, found: Trajectory | InputError, folder: Path) -> int:
    if isinstance(found, InputError):
        for problem in found.problems:
            log.error("training %s: %s", training, problem)
        return BAD_INPUT
    exposure = exposure_of(found.records)
    folder.mkdir(exist_ok=True)
    write_text(folder / f"{training}.json", json.dumps(as_object(found, exposure), indent=1) + "\n")
    write_records(folder / f"{training}.csv", found.records, exposure)
    text = as_text(found, exposure, width=terminal_width(), colours=has_colours())
    print(f"{terminal(title(found))}\n{text}\n", flush=True)
    return BY_OUTCOME[found.steps[-1].outcome]


def title(found: Trajectory) -> str:
    """Which training it is."""
    return f"Training {found.training}, {len(found.steps)} checkpoints"
