"""Which rows of outputs are one sample, where nothing is known of the inputs: those that are equal bit for bit.

Rounded or saturated outputs of different samples are equal too. So equal rows are one sample only if

- their numbers are so rare, each in its column, that another sample would not have them all (`N_BITS`), and
- there are few of them, or they are not spread over and within the sides as chance spreads them (`_by_chance`).

Whatever the outputs are, two sides that hold the same rows are the same samples, and a side whose every row is there
k times was written k times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 8  # two of 10,000,000 different rows have one key with probability 3e-6
N_BITS = 7  # of 2^7 rows one is called equal to another of its n rows by chance, at the most
N_SAMPLED, MOST_SAMPLED = 1 << 16, 1 << 22  # rows, and numbers in them, that say how rare a number is
BLOCK_VALUES = 1 << 21
FEW = 0.1  # of the rows
FEWEST = 10  # different rows of a side; fewer have equal counts by chance
LOG_SUM, ROW_SUM = 1e-3, 1e-5  # the last column follows from the others where these are the same in every row


def row_keys(outputs: NDArray[np.floating], label: NDArray[np.integer] | None) -> NDArray[np.uint64]:
    """A number for each row, (n,), equal for equal rows: a hash of its outputs, (n,) or (n, n_columns), and label."""
    n = len(outputs)
    columns: list[NDArray[Any]] = [outputs.reshape(n, -1) + 0.0]  # -0 is 0
    columns += [] if label is None else [np.asarray(label, np.int32)[:, np.newaxis]]
    rows = np.hstack([np.ascontiguousarray(column).view(np.uint8) for column in columns])
    width, data = rows.shape[1], rows.tobytes()
    keys = (hashlib.blake2b(data[i * width : (i + 1) * width], digest_size=KEY_BYTES).digest() for i in range(n))
    return np.frombuffer(b"".join(keys), np.uint64)


def same_samples(keys: NDArray[np.uint64], member: NDArray[np.integer], outputs: Any) -> NDArray[np.uint8] | None:
    """What stands for the hash of each row's input, (n, 8): equal for rows of one sample. None if no two rows are.

    Args:
        keys: of `row_keys`, (n,).
        member: 1 member, 0 non-member, (n,).
        outputs: logits, (n, n_classes), read in slices; None of losses, one of which says too little of its sample.
    """
    n, ordered = len(keys), np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    del ordered
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    sides = [np.bincount(number[np.asarray(member) == side], minlength=len(first)) for side in (1, 0)]
    times = [_times(counts) for counts in sides]
    members, nonmembers = (counts // k for counts, k in zip(sides, times, strict=True))
    if len(first) >= FEWEST and np.array_equal(members, nonmembers):
        return _as_bytes(first[number])
    one = np.zeros(len(first), dtype=bool)
    if outputs is not None:
        tied = np.flatnonzero(sides[0] + sides[1] > 1)
        one[tied] = _rare(outputs, first[tied])
        n_once = int(members.sum() + nonmembers.sum())
        one &= not _by_chance(np.where(one, members, 0), np.where(one, nonmembers, 0), n_once)
    code = np.where(one[number], first[number], np.arange(n))
    for side, k in zip((1, 0), times, strict=True):
        if k > 1:  # which of equal rows are a sample is all the same
            rows = np.flatnonzero((np.asarray(member) == side) & ~one[number])
            rows = rows[np.argsort(number[rows], kind="stable")]
            code[rows] = np.repeat(rows[::k], k)
    return None if np.array_equal(code, np.arange(n)) else _as_bytes(code)


def _as_bytes(code: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(code, np.int64).view(np.uint8).reshape(-1, KEY_BYTES)


def _times(counts: NDArray[np.int64]) -> int:
    """How often a side was written, by how often each of its rows is there."""
    there = counts[counts > 0]
    return int(np.gcd.reduce(there)) if len(there) >= FEWEST else 1


def _by_chance(members: NDArray[np.int64], nonmembers: NDArray[np.int64], n: int) -> bool:
    """Whether so many pairs of equal rows are across the sides as chance leads to, by those within them.

    Where a row is p of the members and q of the non-members by chance, pairs across come from p q, those within from
    p^2 / 2 and q^2 / 2. A model that gives each of its few answers to many samples has such pairs.

    Args:
        members: how many of them have each row, 0 where it is rare enough to count as one sample's.
        nonmembers: likewise.
        n: all rows.
    """
    both = members + nonmembers
    if both[both > 1].sum() <= FEW * n:
        return False
    within = [float((counts * (counts - 1.0)).sum() / 2) for counts in (members, nonmembers)]
    chance = 2 * float(np.sqrt(within[0] * within[1]))
    across = float((members * 1.0 * nonmembers).sum())
    return chance > 0 and chance / 2 <= across <= 2 * chance


def _rare(outputs: Any, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these rows have numbers that no other sample would have all, (len(rows),).

    A number that k of m sampled rows have in its column tells log2(m / k) bits. A row of n must tell log2(n) + N_BITS;
    its most telling number does not count where the columns depend on each other, as probabilities do.
    """
    n, width = outputs.shape
    n_sampled = min(n, N_SAMPLED, max(MOST_SAMPLED // width, 1 << 10))
    drawn = np.unique(np.linspace(0, n - 1, n_sampled).astype(np.int64))
    sample = np.concatenate([block for _, block in _blocks(outputs, drawn)])
    dependent = _are_dependent(sample)
    columns = np.sort(sample, axis=0).T.copy()
    wanted, rare = np.log2(n) + N_BITS, np.zeros(len(rows), dtype=bool)
    order = np.argsort(rows, kind="stable")
    for part, block in _blocks(outputs, rows[order]):
        told, most, left = np.zeros(len(block)), np.zeros(len(block)), np.arange(len(block))
        for column, values in zip(columns, block.T, strict=True):
            asked = values[left]
            found = np.searchsorted(column, asked, "right") - np.searchsorted(column, asked, "left")
            bits = np.log2(len(column)) - np.log2(np.maximum(found, 1))
            told[left] += bits
            most[left] = np.maximum(most[left], bits if dependent else 0)
            left = left[(told - most)[left] < wanted]
            if not len(left):
                break
        rare[order[part]] = told - most >= wanted
    return rare


def _are_dependent(sample: NDArray[np.floating]) -> bool:
    """Whether a column of logits follows from the others: they are logarithms of probabilities, or z and -z."""
    values = np.asarray(sample, np.float64)
    most = values.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(values - most).sum(axis=1)) + most[:, 0]
    sums = values.sum(axis=1)
    return bool((abs(log_sum) < LOG_SUM).all() or np.ptp(sums) <= ROW_SUM * max(1.0, abs(values).max()))


def _blocks(outputs: Any, rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Some rows, in ascending order, a few at a time, and which of them these are."""
    n, height = len(outputs), max(1, BLOCK_VALUES // outputs.shape[1])
    ends = np.searchsorted(rows, np.arange(0, n + height, height))
    for block, (begin, end) in enumerate(pairwise(ends)):
        if end > begin:
            start = block * height
            yield slice(begin, end), np.asarray(outputs[start : start + height])[rows[begin:end] - start]
