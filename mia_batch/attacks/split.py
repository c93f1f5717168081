"""Which rows fit an attack and which score it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from mia_batch.errors import InputError
from mia_batch.samples import Split
from mia_batch.search.folds import Indices, fold_numbers

Floats = NDArray[np.floating]
HOLDOUT_PARTS = 20  # that groups are dealt into, of which some score


def check_arrays(X: Floats, y: NDArray[Any]) -> None:
    """Refuse features that no classifier can use.

    Raises:
        InputError: wrong shapes, NaN or infinity, membership other than 0 and 1 or of one kind only.
    """
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise InputError(f"features: must have shapes (n, d) and (n,), got {X.shape} and {y.shape}")
    if not np.isfinite(X).all():
        row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
        raise InputError(f"features: must be finite, got NaN or infinity in row {row}")
    if not np.array_equal(np.unique(y), [0, 1]):
        raise InputError(f"features: member must have both 0 and 1, got {np.unique(y).tolist()[:5]}")


def n_splits(evaluation: str, eval_fraction: float) -> int:
    """How many models of a kind there are: with cross-fitting, each scores about `eval_fraction` of the rows."""
    return max(2, round(1 / eval_fraction)) if evaluation == "cross_fit" else 1


def make_splits(
    y: NDArray[np.int8], *, evaluation: str, eval_fraction: float, seed: int, cv: int, max_rows: int | None = None,
    group: NDArray[np.int64] | None = None, left_out: NDArray[np.bool_] | None = None,
) -> list[Split]:
    """The rows that fit, their folds, and the rows that score: once, or as often as every row is scored once.

    Rows of a group stay on one side of a split and in one fold. A model that has not seen a row has not seen its group.

    Args:
        y: membership, shape (n_samples,).
        evaluation: holdout scores one part of the rows; cross_fit scores every row, by models that did not see it.
        eval_fraction: share of the rows that a model scores, in (0, 1).
        seed: of the splits.
        cv: folds.
        max_rows: how many rows fit at most, drawn by `seed`; None for all.
        group: rows of one number belong together, shape (n_samples,); None for rows that stand alone.
        left_out: rows that neither fit nor score, shape (n_samples,).

    Raises:
        InputError: a side or a fold would lack members or non-members.
    """
    used = np.arange(len(y)) if left_out is None else np.flatnonzero(~left_out)
    group = None if group is None or len(np.unique(group[used])) == len(used) else group
    _check_sides(y[used], evaluation, eval_fraction)
    if evaluation == "holdout" and group is None:
        fit, evaluated = train_test_split(used, test_size=eval_fraction, stratify=y[used], random_state=seed)
        pairs = [(fit, np.sort(evaluated))]
    else:
        pairs = list(_parts(y, used, group, evaluation, eval_fraction, seed))
    return [_split(y, fit, evaluated, group, cv=cv, seed=seed, max_rows=max_rows) for fit, evaluated in pairs]


def fit_split(
    y: NDArray[np.int8], *, cv: int, seed: int, group: NDArray[np.int64] | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> Split:
    """All rows fit, for rows that come later; none is scored. Arguments as of `make_splits`.

    Raises:
        InputError: a fold would lack members or non-members.
    """
    used = np.arange(len(y)) if left_out is None else np.flatnonzero(~left_out)
    group = None if group is None or len(np.unique(group[used])) == len(used) else group
    fit = np.random.default_rng(seed).permutation(used)
    return _split(y, fit, np.empty(0, dtype=np.int64), group, cv=cv, seed=seed, max_rows=None)


def _check_sides(y: NDArray[np.int8], evaluation: str, eval_fraction: float) -> None:
    n_eval = math.ceil(eval_fraction * len(y))
    fewest = int(np.bincount(y, minlength=2).min()) if len(y) else 0
    if min(n_eval, len(y) - n_eval) < 2 or fewest < max(2, n_splits(evaluation, eval_fraction)):
        counts = f"{int(y.sum())} members and {int((1 - y).sum())} non-members"
        raise InputError(
            f"attack.eval_fraction: must leave members and non-members on both sides of {counts}, got {eval_fraction}"
        )


def _parts(
    y: NDArray[np.int8], used: Indices, group: NDArray[np.int64] | None, evaluation: str, eval_fraction: float,
    seed: int,
) -> Iterator[tuple[Indices, Indices]]:
    """Of each split: all rows that it does not score in shuffled order, and those that it scores, ascending."""
    n = n_splits(evaluation, eval_fraction)
    scored = [[part] for part in range(n)]
    if evaluation == "holdout" and group is not None:
        n = min(HOLDOUT_PARTS, len(np.unique(group[used])))
        scored = [list(range(min(max(1, round(eval_fraction * n)), n - 1)))]
    number = _dealt_alone(y[used], n, seed) if group is None else _dealt(y[used], group[used], n, seed)
    order = np.random.default_rng(seed).permutation(len(used))
    for parts in scored:
        inside = np.isin(number, parts)
        fit, evaluated = used[order[~inside[order]]], used[inside]
        if len(np.unique(y[fit])) < 2 or len(np.unique(y[evaluated])) < 2:
            raise InputError(
                "data.group: must leave members and non-members on both sides of a split; the groups are too large"
            )
        yield fit, evaluated


def _dealt_alone(y: NDArray[np.int8], n: int, seed: int) -> NDArray[np.int32]:
    """`_dealt` of rows that stand alone, which is a draw of each side, dealt in turn."""
    order, part = np.random.default_rng(seed).permutation(len(y)), np.empty(len(y), dtype=np.int32)
    for side in (0, 1):
        alone = order[y[order] == side]
        part[alone] = np.arange(len(alone)) % n
    return part


def _dealt(y: NDArray[np.int8], group: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int32]:
    """The part of `n` that each row is in: whole groups, members and non-members as even as the groups allow."""
    _, which, size = np.unique(group, return_inverse=True, return_counts=True)
    sides = np.stack([np.bincount(which, y == side, len(size)) for side in (0, 1)], axis=1)
    order = np.random.default_rng(seed).permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]  # the largest are placed while there is room
    part, held = np.empty(len(size), dtype=np.int32), np.zeros((n, 2))
    for each in order[size[order] > 1]:
        part[each] = np.argmin(held @ sides[each])
        held[part[each]] += sides[each]
    for side in (0, 1):  # rows that stand alone fill up what is lower
        alone = order[(size[order] == 1) & (sides[order, side] == 1)]
        heights = held[:, side, np.newaxis] + np.arange(len(alone))
        part[alone] = np.argsort(heights, axis=None, kind="stable")[: len(alone)] // max(1, len(alone))
    return part[which]


def _split(
    y: NDArray[np.int8], fit: Indices, evaluated: Indices, group: NDArray[np.int64] | None, *, cv: int, seed: int,
    max_rows: int | None,
) -> Split:
    fit = fit[:max_rows]  # in shuffled order: the first are a draw
    fold_of = fold_numbers(y[fit], cv)
    if group is not None:
        fold_of = _dealt(y[fit], group[fit], cv, seed)
        if any(len(np.unique(y[fit][fold_of == number])) < 2 for number in range(cv)):
            raise InputError(f"attack.cv: must leave members and non-members in every fold of whole groups, got {cv}")
    return Split(fit, fold_of, evaluated)
