"""Figures of a finished audit, from its attacks' scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.files import not_written
from mia_batch.metrics.ranking import fpr_name, roc_points
from mia_batch.report.best import AREA
from mia_batch.report.figures import MARKED, RocCurve, write_figures
from mia_batch.report.summary import MethodSummary, Summary
from mia_batch.rundir.identity import mark_of
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack

N_POINTS = 2000  # of a curve


def draw_figures(paths: RunPaths, summary: Summary, folder: Path) -> list[Path]:
    """Write the figures to `folder`, which is made; their names.

    Raises:
        InputError: a result is missing, damaged or not the summary's, or the folder cannot be written.
    """
    known = {name: method for name, method in summary.methods.items() if _has_scores(method)}
    curves = {name: _curve(paths, name, method) for name, method in known.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error, "--figures: must be a directory that can be written") from error
    return write_figures(folder, summary, curves)


def _has_scores(method: MethodSummary) -> bool:
    """Of both sides."""
    area = method.metrics.get(AREA)
    return area is not None and area.value is not None


def _curve(paths: RunPaths, name: str, method: MethodSummary) -> RocCurve:
    file = paths.attack(name)
    result = read_attack(file)
    if mark_of(result.provenance) != mark_of(method.provenance):
        raise InputError(f"{file}: must be the result that {paths.summary_json.name} is of; run reduce again")
    at = [method.metrics[fpr_name(fpr)].value for fpr in MARKED]
    return curve_of(result, tuple(float("nan") if value is None else value for value in at))


def curve_of(result: AttackResult, at: tuple[float, ...]) -> RocCurve:
    """Of an attack that has scores, with its TPR at each FPR of `MARKED`."""
    member, scores = result.scored(result.member), result.scored(result.scores)
    tpr, fpr = roc_points(member, scores)
    n_nonmembers = int((member == 0).sum())
    kept = _as_drawn(fpr, n_nonmembers)
    return RocCurve(fpr[kept], tpr[kept], at, n_nonmembers)


def _as_drawn(fpr: NDArray[np.float64], n_nonmembers: int) -> NDArray[np.int64]:
    """The points that a drawing can show: of very many samples the last at each step of a logarithmic axis."""
    if len(fpr) <= N_POINTS:
        return np.arange(len(fpr))
    steps = np.geomspace(1 / n_nonmembers, 1.0, N_POINTS)
    last = np.searchsorted(fpr, steps, "right") - 1
    return np.unique(np.concatenate([[0], np.maximum(last, 0), [len(fpr) - 1]]))
