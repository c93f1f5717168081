"""Claims about single records: which of them are members, with a bound on the share of false claims."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_batch.metrics.base import Floats


def conformal_p_values(calibration: ArrayLike, scores: ArrayLike) -> Floats:
    """How unusual each score is among non-members: `(1 + #{calibration >= score}) / (n + 1)`.

    Bates et al. 2023, "Testing for outliers with conformal p-values", arXiv 2104.08279. For a non-member it is at most
    u with a probability of at most u.

    Args:
        calibration: scores of non-members that neither the attack's fit nor its selection saw, shape (n,).
        scores: shape (n_samples,), higher for members; they may be infinite.

    Returns:
        In (0, 1], shape (n_samples,); all 1 without calibration.

    Raises:
        ValueError: wrong shape, or NaN.
    """
    known, values = (_check(name, x) for name, x in (("calibration", calibration), ("scores", scores)))
    return (1 + len(known) - np.searchsorted(np.sort(known), values, "left")) / (len(known) + 1)


def benjamini_hochberg(p_values: ArrayLike, *, q: float) -> NDArray[np.bool_]:
    """Which hypotheses to reject so that in expectation a share of at most q of them is true.

    Benjamini & Hochberg 1995. It holds for conformal p-values of one calibration set, which depend positively on each
    other (Bates et al. 2023).

    Args:
        p_values: shape (n_samples,), in [0, 1].
        q: in (0, 1).

    Raises:
        ValueError: wrong shape or values out of range.
    """
    p = _check("p_values", p_values)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values: must be in [0, 1], got {p[(p < 0) | (p > 1)][0]}")
    if not 0 < q < 1:
        raise ValueError(f"q: must be in (0, 1), got {q}")
    ordered = np.sort(p)
    limits = q * np.arange(1, len(p) + 1) / len(p)
    passing = np.flatnonzero(ordered <= limits * (1 + 1e-12))  # conformal p-values can equal a limit, up to rounding
    return p <= ordered[passing[-1]] if len(passing) else np.zeros(len(p), dtype=bool)


def claimed_members(calibration: ArrayLike, scores: ArrayLike, *, q: float) -> NDArray[np.bool_]:
    """Records to be called members so that in expectation a share of at most q of them are none: both of the above."""
    return benjamini_hochberg(conformal_p_values(calibration, scores), q=q)


def _check(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name}: must have one dimension, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name}: must not be NaN, got NaN at {np.flatnonzero(np.isnan(array))[0]}")
    return array
