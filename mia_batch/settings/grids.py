"""Grids as users write them: lists or generators of values, made explicit and each value once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_VALUES = 10_000  # of one parameter that a generator gives; more is a slip, and would fill the memory


def normalise_grid(method: str, params: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, Any], list[str]]:
    """Read `max_features: auto` as `sqrt` and drop repeated values; returns the grid and what was changed."""
    grid: dict[str, Any] = {}
    notes = []
    for name, values in params.items():
        if name == "max_features" and "auto" in values:
            values = tuple("sqrt" if value == "auto" else value for value in values)
            notes.append(f"{method}: max_features: auto is read as sqrt, which it means for classifiers")
        firsts: dict[tuple[str, str], Any] = {}
        for value in values:
            firsts.setdefault(_mark(value), value)
        distinct = tuple(firsts.values())
        if len(distinct) < len(values):
            notes.append(f"{method}: {name}: {len(values) - len(distinct)} repeated value(s) searched once")
        grid[name] = distinct
    return grid, notes


def _mark(value: Any) -> tuple[str, str]:
    """Equal for equal values of one type: 1 and 1.0, or 0 and false, are others to an estimator."""
    return type(value).__name__, repr(value)


def expand_values(values: Any) -> tuple[Any, ...]:
    """The values of one grid parameter: a list, or a mapping with one of logspace, linspace, range.

    Raises:
        ValueError: neither of these, or empty.
    """
    if isinstance(values, Mapping):
        values = _expand_generator(values)
    if not isinstance(values, list):
        raise ValueError(f"must be a list, or {{logspace|linspace|range: [first, last, count]}}, got {values!r}")
    if not values:
        raise ValueError("must have at least one value, got []")
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _expand_generator(spec: Mapping[str, Any]) -> list[Any]:
    kinds: dict[str, Callable[..., Any]] = {"logspace": _logspace, "linspace": _linspace, "range": range}
    kind, arguments = next(iter(spec.items()), (None, None))
    if len(spec) != 1 or kind not in kinds:
        raise ValueError(f"must be a mapping with one of {', '.join(kinds)}, got {dict(spec)!r}")
    try:
        if not isinstance(arguments, list) or not all(type(argument) in (int, float) for argument in arguments):
            raise TypeError
        values = kinds[kind](*arguments)
        n_values = len(values)
    except (TypeError, ValueError, OverflowError):
        form = "[end], [first, end] or [first, end, step]" if kind == "range" else "[first, last, count]"
        raise ValueError(f"{kind} must be {form} in numbers, got {arguments!r}") from None
    if n_values > MAX_VALUES:
        raise ValueError(f"{kind} must give at most {MAX_VALUES} values, got {arguments!r}")
    expanded = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not all(map(math.isfinite, expanded)):
        raise ValueError(f"{kind} must give finite values, got {arguments!r}")
    return expanded


def _linspace(first: float, last: float, count: int) -> NDArray[np.float64]:
    return np.linspace(first, last, min(count, MAX_VALUES + 1))  # one too many is enough to be refused


def _logspace(first: float, last: float, count: int) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        powers = np.logspace(first, last, min(count, MAX_VALUES + 1))
    # The last bits of a power depend on the processor, and all nodes of a cluster must see one grid.
    return np.array([float(f"{power:.12g}") for power in powers])
