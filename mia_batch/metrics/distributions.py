"""How a number is distributed over members and over non-members."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mia_batch.metrics.base import Floats, check_binary, check_scores

N_BINS = 40
OUTER = 0.001  # share of the samples at either end that may lie beyond the bins
LEAST = 1e-8  # of a logarithmic axis


@dataclass(frozen=True)
class Histogram:
    """Shares of each side by bin: of all its samples, those beyond the bins in the outermost ones.

    Attributes:
        edges: of the bins, ascending, shape (n_bins + 1,).
        members: of the members, shape (n_bins,), which sum to 1; all 0 without any.
        nonmembers: of the non-members.
        log: whether the bins are equal on a logarithmic axis.
    """

    edges: Floats
    members: Floats
    nonmembers: Floats
    log: bool = False


def histogram(member: ArrayLike, values: ArrayLike, *, log: bool = False, n_bins: int = N_BINS) -> Histogram:
    """Of both sides in the same bins, which the most extreme values of either end do not stretch.

    Args:
        member: membership, 0 or 1, shape (n_samples,), at least one.
        values: shape (n_samples,), any number except NaN.
        log: logarithmic bins; values that are not above 0 are in the first.
        n_bins: 1 or more; values that are all the same have one bin.

    Raises:
        ValueError: wrong shape, NaN, or no samples.
    """
    truth = check_binary("member", member)
    numbers = check_scores(values, len(truth))
    if not len(truth):
        raise ValueError("values: must hold a sample, got none")
    edges = _edges(numbers, log, n_bins)
    inner = edges[1:-1]
    bins = np.searchsorted(inner, numbers, "right")
    members, others = (
        np.bincount(bins[side], minlength=len(inner) + 1) / max(1, side.sum()) for side in (truth, ~truth)
    )
    return Histogram(edges, members, others, log)


def _edges(numbers: Floats, log: bool, n_bins: int) -> Floats:
    there = numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]
    if not len(there):
        return np.array([LEAST, 1.0]) if log else np.array([0.0, 1.0])
    low, high = np.quantile(there, [OUTER, 1 - OUTER], method="nearest")
    if log:
        low, high = max(low, LEAST), max(high, LEAST)
    if low == high:
        half = max(0.5, abs(low) / 2)
        return np.array([low / 2, low * 2]) if log else np.array([low - half, low + half])
    return np.geomspace(low, high, n_bins + 1) if log else np.linspace(low, high, n_bins + 1)
