"""Trajectories: what the checkpoints of one training run say of a sample together.

Arrays in, a number for each sample out. Of the scores only `trajectory_lira` and `update_attack` are membership tests;
`lt_iqr` and `fluctuation` say how exposed a training record is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MEASURABLE = 1e-12  # of the values' size: a spread below is rounding
RIDGE = 1e-9  # of a variance, so that checkpoints that say the same leave a covariance that can be inverted


@dataclass(frozen=True)
class PerSample:
    """A number for each sample.

    Attributes:
        values: (n_samples,), NaN where there is none.
        reason: why some or all have none; None where all have one.
    """

    values: Floats
    reason: str | None = None


def lt_iqr(losses: ArrayLike) -> PerSample:
    """Interquartile range of each sample's losses over the checkpoints, >= 0, in the losses' unit.

    Pollock et al. 2024, "Free Record-Level Privacy Risk Evaluation Through Artifact-Based Methods", arXiv 2411.05743:
    it ranks training records by how exposed they are. It is no membership test. Quartiles are NumPy's linear ones.

    Args:
        losses: (n_samples, n_checkpoints), finite, in the order of training; their order does not matter here.

    Returns:
        NaN with a reason of fewer than two checkpoints.

    Raises:
        ValueError: wrong shape, or a loss that is not finite.
    """
    return _over_checkpoints(losses, lambda found: np.subtract(*np.quantile(found, [0.75, 0.25], axis=1)))


def fluctuation(losses: ArrayLike) -> PerSample:
    """Cumulative fluctuation of each sample's losses: the sum of |difference| from checkpoint to checkpoint, >= 0.

    Args, Returns, Raises: see `lt_iqr`; the order of the checkpoints matters.
    """
    return _over_checkpoints(losses, lambda found: np.abs(np.diff(found, axis=1)).sum(axis=1))


def _over_checkpoints(losses: ArrayLike, compute: Callable[[Floats], Floats]) -> PerSample:
    found = _finite("losses", losses, 2)
    n_samples, n_checkpoints = found.shape
    if n_checkpoints < 2:
        return PerSample(np.full(n_samples, np.nan), f"a trajectory needs two checkpoints, got {n_checkpoints}")
    return PerSample(compute(found) if n_samples else np.empty(0))


def trajectory_log_ratio(phi: ArrayLike, mean_in: ArrayLike, mean_out: ArrayLike, covariance: ArrayLike) -> Floats:
    """log N(phi; mean_in, S) - log N(phi; mean_out, S) over the checkpoints, (n_samples,); high for members.

    Args:
        phi: of the target, (n_samples, n_checkpoints).
        mean_in: of references that were trained on the sample, at the same checkpoints, of the same shape.
        mean_out: of those that were not.
        covariance: S, (n_checkpoints, n_checkpoints), positive definite.

    Raises:
        ValueError: wrong shapes, or a covariance that is not positive definite.
    """
    x, inside, out = (np.asarray(each, dtype=np.float64) for each in (phi, mean_in, mean_out))
    S = np.asarray(covariance, dtype=np.float64)
    if x.ndim != 2 or x.shape != inside.shape or x.shape != out.shape or S.shape != (x.shape[1], x.shape[1]):
        shapes = f"{x.shape}, {inside.shape}, {out.shape} and {S.shape}"
        raise ValueError(f"phi, both means and covariance: must be (n, t) thrice and (t, t), got {shapes}")
    try:
        np.linalg.cholesky(S)
    except np.linalg.LinAlgError as error:
        raise ValueError("covariance: must be positive definite") from error
    # The squares of phi cancel: what is left is linear in it.
    weight = np.linalg.solve(S, (inside - out).T).T
    return np.einsum("ij,ij->i", weight, x - (inside + out) / 2)


def trajectory_lira(phi: ArrayLike, references: ArrayLike, inside: ArrayLike) -> PerSample:
    """LiRA over the checkpoints of a training run, against references at the same checkpoints; high for members.

    `trajectory_log_ratio` with each sample's means of both sides, and one covariance for all samples and both sides,
    `pooled_covariance`: Carlini et al. 2022, arXiv 2112.03570, with a vector of phi for one.

    Args:
        phi: of the target, (n_samples, n_checkpoints), finite.
        references: phi of the references, (n_samples, n_references, n_checkpoints), finite.
        inside: whether each was trained on the sample, (n_samples, n_references), 0 or 1.

    Returns:
        NaN with a reason of samples that lack references on one side, and of all samples where no side of a sample
        has two references, or where phi of the references does not vary.

    Raises:
        ValueError: wrong shape, or a value that is not finite.
    """
    x, others = _finite("phi", phi, 2), _finite("references", references, 3)
    member = np.asarray(inside).astype(bool)
    if others.shape[::2] != x.shape or member.shape != others.shape[:2]:
        shapes = f"{x.shape}, {others.shape} and {member.shape}"
        raise ValueError(f"phi, references and inside: must be (n, t), (n, k, t) and (n, k), got {shapes}")
    S, why = pooled_covariance(others, member)
    if S is None:
        return PerSample(np.full(len(x), np.nan), why)
    both = member.any(axis=1) & (~member).any(axis=1)
    values = np.full(len(x), np.nan)
    mean_in, mean_out = (_means(others[both], side) for side in (member[both], ~member[both]))
    values[both] = trajectory_log_ratio(x[both], mean_in, mean_out, S)
    missing = int((~both).sum())
    return PerSample(values, f"{missing} samples lack references on one side" if missing else None)


def pooled_covariance(references: Floats, inside: NDArray[np.bool_]) -> tuple[Floats | None, str | None]:
    """Covariance over the checkpoints within a sample's side, pooled over samples and both sides, and shrunk.

    Pooled: the sum of the products of residuals / sum (n_i - 1) over sides of at least two references. Shrunk: its
    correlations towards 0 by Ledoit & Wolf (2004), its variances left as they are, so that the scale of a checkpoint
    does not matter.

    Args:
        references: (n_samples, n_references, n_checkpoints).
        inside: (n_samples, n_references).

    Returns:
        (n_checkpoints, n_checkpoints), or None and the reason.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # takes a second

    sides = [(side, side.sum(axis=1) >= 2) for side in (inside, ~inside)]
    residuals = np.vstack([_residuals(references[pairs], side[pairs]) for side, pairs in sides])
    freedom = sum(int((side[pairs].sum(axis=1) - 1).sum()) for side, pairs in sides)
    if not freedom:
        return None, "no sample has two references on a side"
    pooled = residuals.T @ residuals / freedom
    spread = np.sqrt(np.diag(pooled))
    if not (spread > MEASURABLE * np.abs(references).max(initial=0.0)).all():
        return None, "phi of the references does not vary at every checkpoint"
    shrinkage = ledoit_wolf_shrinkage(residuals / spread, assume_centered=True)
    correlation = (1 - shrinkage) * pooled / np.outer(spread, spread)
    np.fill_diagonal(correlation, 1.0 + RIDGE)
    return correlation * np.outer(spread, spread), None


def _residuals(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Of the chosen references from their sample's mean, a row each, (n_chosen, n_checkpoints)."""
    return (values - _means(values, chosen)[:, np.newaxis])[chosen]


def _means(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Of the chosen references, (n_samples, n_checkpoints); each sample has one at least."""
    return np.einsum("ikt,ik->it", values, chosen.astype(np.float64)) / chosen.sum(axis=1)[:, np.newaxis]


def update_attack(phi_before: ArrayLike, phi_now: ArrayLike) -> Floats:
    """phi_t - phi_{t-1}, (n_samples,), any number: high for samples that arrived in between.

    Args:
        phi_before: of each sample under the checkpoint before the update, (n_samples,), finite.
        phi_now: under the one after it.

    Raises:
        ValueError: wrong shape, or a value that is not finite.
    """
    before, now = _finite("phi_before", phi_before, 1), _finite("phi_now", phi_now, 1)
    if before.shape != now.shape:
        raise ValueError(f"phi_now: must have the shape of phi_before, {before.shape}, got {now.shape}")
    return now - before


def _finite(name: str, values: ArrayLike, ndim: int) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != ndim:
        raise ValueError(f"{name}: must have {ndim} dimension{'s' if ndim > 1 else ''}, got shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: must be finite, got NaN or infinity")
    return found
