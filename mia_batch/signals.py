"""Per-sample signals of membership, from the logits and labels of one forward pass.

Pure NumPy, in float64 whatever the logits' type. Every function works row by row in blocks of bounded size, so
a memory-mapped array of logits larger than memory is fine, and a row's value does not depend on its neighbours:
any split of the samples over ranks gives the same bits.
"""

from collections.abc import Callable, Collection, Iterator
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Logits converted at a time: 2 Mi values are 16 MiB in float64, a few times that with the temporaries.
_BLOCK_VALUES = 1 << 21
# MindArmour clips the softmax to [epsilon, 1 - epsilon].
_MINDARMOUR_EPSILON = 1e-12
OUTPUTS = ("logits", "probabilities")  # what a model gives a row of for each sample
SUM_TOLERANCE = 1e-3  # of probabilities, which may have been stored with three digits
# What a probability is taken for that was rounded to 0, where logits are kept as float32.
LEAST = float(np.finfo(np.float32).smallest_subnormal)


def _check_logits(logits: ArrayLike) -> NDArray[np.floating]:
    z = logits if isinstance(logits, np.memmap) else np.asarray(logits)  # one may know how to map a few rows alone
    if z.ndim != 2 or z.shape[1] < 2:
        raise ValueError(f"logits: must have shape (n_samples, n_classes) with n_classes >= 2, got {z.shape}")
    if z.dtype.kind not in "fiu":
        raise ValueError(f"logits: must be real numbers, got dtype {z.dtype}")
    return z


def _check_labels(labels: ArrayLike, n_samples: int, n_classes: int) -> Indices:
    y = np.asarray(labels)
    if y.shape != (n_samples,):
        raise ValueError(f"labels: must have shape ({n_samples},) to match logits, got {y.shape}")
    if y.dtype.kind not in "iu" and y.size:
        raise ValueError(f"labels: must be integers, got dtype {y.dtype}")
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        first = wrong[0]
        raise ValueError(f"labels: must be in 0..{n_classes - 1}, got {y[first]} at sample {first}")
    return y.astype(np.int64)


def _blocks(z: NDArray[np.floating]) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Cut rows into blocks of at most about _BLOCK_VALUES values (at least one row each)."""
    rows = max(1, _BLOCK_VALUES // z.shape[1])
    return ((slice(start, start + rows), z[start : start + rows]) for start in range(0, len(z), rows))


def _finite(block: NDArray[np.floating], first_row: int) -> NDArray[np.floating]:
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise ValueError(f"logits: must be finite, got NaN or infinity at sample {first_row + bad[0]}")
    # C order fixes the order of summation within a row, hence the last bit of the result.
    return np.ascontiguousarray(block)


def _signal(compute: Callable[[NDArray, Indices], NDArray]) -> Callable[[ArrayLike, ArrayLike], Floats]:
    """Check the arguments of a signal, then compute it block by block."""

    @wraps(compute)
    def checked(logits: ArrayLike, labels: ArrayLike) -> Floats:
        z = _check_logits(logits)
        y = _check_labels(labels, *z.shape)
        out = np.empty(len(z), dtype=np.float64)
        for rows, block in _blocks(z):
            out[rows] = compute(_finite(block, rows.start), y[rows])
        return out

    return checked


def _pick(values: NDArray, y: Indices) -> NDArray:
    """Value of column y[i] in row i, shape (n_samples,)."""
    return np.take_along_axis(values, y[:, None], axis=1)[:, 0]


def _log_softmax(z: NDArray[np.floating]) -> Floats:
    """log p with full relative precision even where p is 1 to the last bit: log(p_max) = -log1p(the others)."""
    shifted = z.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    others = np.exp(shifted)
    np.put_along_axis(others, z.argmax(axis=1)[:, None], 0.0, axis=1)
    shifted -= np.log1p(others.sum(axis=1, keepdims=True))
    return shifted


def _log_odds(z: NDArray[np.floating], y: Indices) -> Floats:
    """log(p_y / (1 - p_y)) from differences to z_y, in which nothing overflows and nothing is clipped."""
    others = z.astype(np.float64)
    others -= _pick(others, y)[:, None]
    np.put_along_axis(others, y[:, None], -np.inf, axis=1)
    top = others.max(axis=1)
    return -(top + np.log(np.exp(others - top[:, None]).sum(axis=1)))


@_signal
def loss(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """Cross entropy -log p_y = logsumexp(z) - z_y of each sample.

    The maximum is taken out of both terms, so the result keeps its relative precision at any magnitude: logits
    [200, 0, 0] with label 0 give 2.8e-87, not 0 and not a clipped 1e-12.

    Args:
        logits: shape (n_samples, n_classes), finite, n_classes >= 2.
        labels: true classes, integers in 0..n_classes - 1, shape (n_samples,).

    Returns:
        float64, shape (n_samples,), >= 0. Low means member.

    Raises:
        ValueError: wrong shape or type, a label out of range, logits that are not finite.
    """
    # + 0.0 turns -0.0 into 0.0.
    return 0.0 - _pick(_log_softmax(logits), labels) + 0.0


@_signal
def mindarmour_loss(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """Cross entropy as MindArmour computes it, for parity with its attacks (`features: mindarmour`).

    `_softmax_cross_entropy` of mindarmour/privacy/evaluation/membership_inference.py (repository
    mindspore-ai/mindarmour, commit 165bc089): p = softmax(z) clipped to [1e-12, 1 - 1e-12], then -log p_y, **in the
    logits' own type**. The loss therefore never exceeds 27.631; for float64 it is never under 1e-12, while for the
    float32 logits of a real run 1 - 1e-12 rounds to 1 and every confident sample gets exactly 0. Use `loss` for
    anything else.

    Args, Returns, Raises: see `loss`.
    """
    if logits.dtype.kind != "f":
        logits = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # -inf where float32 cannot hold the difference: exp gives the right 0
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    p_y = _pick(exp, labels) / exp.sum(axis=1)
    return 0.0 - np.log(np.clip(p_y, _MINDARMOUR_EPSILON, 1.0 - _MINDARMOUR_EPSILON))


@_signal
def phi(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """Logit-scaled confidence log(p_y / (1 - p_y)) = z_y - logsumexp of the other logits.

    Carlini et al. 2022, "Membership Inference Attacks From First Principles", arXiv 2112.03570, section VI-A. Exact at
    any magnitude: logits [200, 0, 0] with label 0 give 199.307.

    Args, Raises: see `loss`.

    Returns:
        float64, shape (n_samples,), any real number. High means member.
    """
    return _log_odds(logits, labels)


@_signal
def hinge(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """Margin z_y - max of the other logits; positive where the network is right.

    Args, Raises: see `loss`.

    Returns:
        float64, shape (n_samples,), any real number. High means member.
    """
    others = logits.astype(np.float64)
    own = _pick(others, labels)
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return own - others.max(axis=1)


def entropy(logits: ArrayLike) -> Floats:
    """Shannon entropy -sum p log p of the prediction, in nats; it ignores the true class.

    Args:
        logits: shape (n_samples, n_classes), finite, n_classes >= 2.

    Returns:
        float64, shape (n_samples,), in [0, log n_classes]. Low means member: negate for a score.

    Raises:
        ValueError: wrong shape or type, logits that are not finite.
    """
    z = _check_logits(logits)
    out = np.empty(len(z), dtype=np.float64)
    for rows, block in _blocks(z):
        log_p = _log_softmax(_finite(block, rows.start))
        out[rows] = 0.0 - (np.exp(log_p) * log_p).sum(axis=1) + 0.0
    return out


@_signal
def modified_entropy(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """Entropy that knows the true class: -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i), in nats.

    Song & Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", arXiv 2003.10595,
    equations 7 and 8. 0 for a certain and right prediction, unbounded for a certain and wrong one.

    Args, Raises: see `loss`.

    Returns:
        float64, shape (n_samples,), >= 0. Low means member: negate for a score.
    """
    log_p = _log_softmax(logits)
    top = logits.argmax(axis=1)
    # Only the largest p can be so close to 1 that 1 - p needs the log odds.
    log_1m = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    np.put_along_axis(log_1m, top[:, None], -np.logaddexp(0.0, _log_odds(logits, top))[:, None], axis=1)
    others = np.exp(log_p) * log_1m
    np.put_along_axis(others, labels[:, None], 0.0, axis=1)
    own = np.exp(_pick(log_1m, labels)) * _pick(log_p, labels)
    return 0.0 - own - others.sum(axis=1) + 0.0


@_signal
def correctness(logits: NDArray[np.floating], labels: Indices) -> Floats:
    """1 where the network's first largest logit is at the true class, else 0: the gap attack's score.

    Yeom et al. 2018, "Privacy Risk in Machine Learning", arXiv 1709.01604.

    Args, Raises: see `loss`.

    Returns:
        float64, shape (n_samples,), 0 or 1. High means member.
    """
    return (logits.argmax(axis=1) == labels).astype(np.float64)


def logits_of_probabilities(probabilities: ArrayLike) -> tuple[NDArray[np.floating], int]:
    """Logits whose softmax is these probabilities: log p, in the probabilities' own type.

    A probability that its type has rounded to 0 is taken for the smallest positive number of the type, so that its
    logarithm is finite.

    Args:
        probabilities: shape (n_samples, n_classes), each row at least 0 and summing to 1.

    Returns:
        Logits of the same shape, and how many probabilities were 0.

    Raises:
        ValueError: a row is not a distribution.
    """
    p = _check_logits(probabilities)
    p = p if p.dtype.kind == "f" else p.astype(np.float64)
    out, n_zero = np.empty_like(p), 0
    for rows, block in _blocks(p):
        off = abs(block.sum(axis=1, dtype=np.float64) - 1)
        wrong = np.flatnonzero(~((block >= 0).all(axis=1) & (off < SUM_TOLERANCE)))
        if wrong.size:
            where = f"sample {rows.start + wrong[0]}"
            raise ValueError(f"probabilities: must be at least 0 and sum to 1, got others at {where}")
        n_zero += int((block == 0).sum())
        out[rows] = np.log(np.maximum(block, np.finfo(p.dtype).smallest_subnormal))
    return out, n_zero


def float32_logits(probabilities: ArrayLike) -> NDArray[np.float32]:
    """The same from probabilities of any type, kept as float32: those below `LEAST` are taken for it.

    Raises:
        ValueError: as `logits_of_probabilities`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return logits_of_probabilities(np.where((p >= 0) & (p < LEAST), LEAST, p))[0].astype(np.float32)


def two_classes(values: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
    """A column for each of two classes, (n, 2): of logits z of class 1, 0 and z; of its probabilities p, 1 - p and p.

    Args:
        values: shape (n,) or (n, 1).
        probabilities: what they are, if not logits.
    """
    column = values.reshape(len(values), 1)
    return np.hstack([1 - column if probabilities else np.zeros_like(column), column])


def top_logits(logits: ArrayLike, k: int) -> NDArray[np.floating]:
    """The k largest logits of each row in descending order, shape (n_samples, k), in the logits' own type.

    Raises:
        ValueError: wrong shape or type, logits that are not finite, fewer than k of them.
    """
    z = _check_logits(logits)
    if not 1 <= k <= z.shape[1]:
        raise ValueError(f"k: must be in 1..{z.shape[1]}, the classes, got {k}")
    out = np.empty((len(z), k), dtype=z.dtype)
    for rows, block in _blocks(z):
        out[rows] = np.sort(np.partition(_finite(block, rows.start), -k, axis=1)[:, -k:], axis=1)[:, ::-1]
    return out


# Signals that attacks take: what computes each, and its sign, 1 where high values mean member, -1 where low ones do.
SIGNALS: dict[str, tuple[Callable[[ArrayLike, ArrayLike], Floats], int]] = {
    "loss": (loss, -1),
    "confidence": (phi, 1),
    "hinge": (hinge, 1),
    "entropy": (lambda logits, labels: entropy(logits), -1),
    "modified_entropy": (modified_entropy, -1),
    "correctness": (correctness, 1),
}
NAMES = tuple(SIGNALS)


def signal_columns(logits: ArrayLike, labels: ArrayLike, names: Collection[str]) -> dict[str, Floats]:
    """Some of `SIGNALS` by name, float64, shape (n_samples,) each, in one pass over the logits.

    Args, Raises: see `loss`.
    """
    z = _check_logits(logits)
    y = _check_labels(labels, *z.shape)
    found = {name: np.empty(len(z)) for name in names}
    for rows, block in _blocks(z):
        _finite(block, rows.start)  # whose message counts rows from the first of all
        for name, column in found.items():
            column[rows] = SIGNALS[name][0](block, y[rows])
    return found


def signal_matrix(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """All of `SIGNALS` as they are, float64, shape (n_samples, 6), columns in the order of `NAMES`.

    Args, Raises: see `loss`.
    """
    return np.column_stack([compute(logits, labels) for compute, _ in SIGNALS.values()])
