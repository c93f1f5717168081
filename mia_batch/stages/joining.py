"""Two audits of one training, sample by sample: the same ones, with the same labels and inputs, in whatever order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.rundir.features import Features

Order = NDArray[np.int64] | slice


def rows_as_in(first: Features, other: Features, file: Path, run: str) -> Order:
    """The rows of `other` in the order of `first`.

    Args:
        first: of an audit.
        other: of another one.
        file: of `other`, for messages.
        run: the name of the audit that `first` is of.

    Raises:
        InputError: they are not of the same samples, or a sample has another label or input.
    """
    order = _order(first, other)
    problem = _other_samples(first, other) if order is None else _unlike(first, other, order)
    if order is None or problem:
        raise InputError(f"{file}: samples: must be those of {run}, got {problem}")
    return order


def _order(first: Features, other: Features) -> Order | None:
    """None where they are not the same samples."""
    if len(first.loss) != len(other.loss):
        return None
    if _same_keys(first, slice(None), other, slice(None)):
        return slice(None)
    ours, theirs = (np.lexsort((each.sample_index, each.split)) for each in (first, other))
    if not _same_keys(first, ours, other, theirs):
        return None
    order = np.empty(len(ours), dtype=np.int64)
    order[ours] = theirs
    return order


def _same_keys(first: Features, ours: Order, other: Features, theirs: Order) -> bool:
    return np.array_equal(first.sample_index[ours], other.sample_index[theirs]) and np.array_equal(
        first.split[ours], other.split[theirs]
    )


def _other_samples(first: Features, other: Features) -> str:
    """How they differ, and one that does."""
    ours, theirs = (set(zip(each.split.tolist(), each.sample_index.tolist(), strict=True)) for each in (first, other))
    split, index = min(ours ^ theirs, default=("?", "that comes twice"))
    return f"{len(theirs - ours)} others and {len(ours - theirs)} missing, such as {split} {index}"


def _unlike(first: Features, other: Features, order: Order) -> str:
    """Which sample has another label or input, although its split and index are the same; "" without one."""
    for name in ("label", "content"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if ours is None or theirs is None or (name == "content" and (first.by_outputs or other.by_outputs)):
            continue
        differ = np.flatnonzero((ours != theirs[order]).reshape(len(ours), -1).any(axis=1))
        if differ.size:
            row, what = differ[0], "label" if name == "label" else "input"
            return f"another {what} of {first.split[row]} {first.sample_index[row]}"
    return ""
