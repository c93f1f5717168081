"""Trajectories: what the checkpoints of one training run say of a sample together.

Arrays in, a number for each sample out. Of the scores only `lira_trajectory` and `update_attack` are membership tests;
`lt_iqr` and `fluctuation` say how exposed a training record is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_batch.attacks.sides import LEAST_SD, UNSEEN_VARIANCE, References, Scores, sides

Floats = NDArray[np.float64]
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


def lira_trajectory(references: References) -> Scores:
    """LiRA over the checkpoints of a training run, against references at the same checkpoints; high for members.

    `trajectory_log_ratio` with each sample's means of both sides, and one covariance for all samples and both sides,
    `pooled_covariance`: Carlini et al. 2022, arXiv 2112.03570, with a vector of phi for one. A sample that lacks a side
    takes what the other side lets expect: its mean and the mean difference of the sides over the other samples.

    Args:
        references: with a checkpoint for each query, in the order of training.
    """
    inside, out = sides(references)
    S = pooled_covariance(references.others.transpose(0, 2, 1), references.inside == 1)
    complete = (inside.n >= 1) & (out.n >= 1)
    apart = (inside.centre - out.centre)[complete[:, 0]]
    gap = apart.mean(axis=0) if len(apart) else np.zeros(references.target.shape[1])
    mean_in = np.where(inside.n >= 1, inside.centre, out.centre + gap)
    mean_out = np.where(out.n >= 1, out.centre, inside.centre - gap)
    values = trajectory_log_ratio(references.target, mean_in, mean_out, S)
    return Scores(values[:, np.newaxis], ~complete[:, 0], np.zeros(len(values), dtype=bool))


def pooled_covariance(references: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Covariance over the checkpoints within a sample's side, pooled over samples and both sides, and shrunk.

    Pooled: the sum of the products of residuals / sum (n_i - 1) over sides of at least two references, no standard
    deviation below `sides.LEAST_SD`. Shrunk: its correlations towards 0 by Ledoit & Wolf (2004), its variances left as
    they are, so that the scale of a checkpoint does not matter.

    Args:
        references: (n_samples, n_references, n_checkpoints).
        inside: (n_samples, n_references).

    Returns:
        (n_checkpoints, n_checkpoints), positive definite; where no side of a sample has two references, so that nothing
        is seen of it, `sides.UNSEEN_VARIANCE` at every checkpoint.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # takes a second

    pairs = [(side, side.sum(axis=1) >= 2) for side in (inside, ~inside)]
    residuals = np.vstack([_residuals(references[enough], side[enough]) for side, enough in pairs])
    freedom = sum(int((side[enough].sum(axis=1) - 1).sum()) for side, enough in pairs)
    if not freedom:
        return np.eye(references.shape[2]) * UNSEEN_VARIANCE
    pooled = residuals.T @ residuals / freedom
    spread = np.maximum(np.sqrt(np.diag(pooled)), LEAST_SD)
    shrinkage = ledoit_wolf_shrinkage(residuals / spread, assume_centered=True) if residuals.any() else 1.0
    correlation = (1 - shrinkage) * pooled / np.outer(spread, spread)
    np.fill_diagonal(correlation, 1.0 + RIDGE)
    return np.asarray(correlation * np.outer(spread, spread))


def _residuals(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Of the chosen references from their sample's mean, a row each, (n_chosen, n_checkpoints)."""
    return (values - _means(values, chosen)[:, np.newaxis])[chosen]


def _means(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Of the chosen references, (n_samples, n_checkpoints); each sample has one at least."""
    return np.einsum("ikt,ik->it", values, chosen.astype(np.float64)) / chosen.sum(axis=1)[:, np.newaxis]


def trajectory_features(phi: ArrayLike, losses: ArrayLike) -> Floats:
    """What classifiers are told of the checkpoints, (n_samples, n_trajectory_features(n_checkpoints)).

    LT-IQR and fluctuation of the losses, phi of all checkpoints before the last, and the differences of phi from one to
    the next.

    Args:
        phi: (n_samples, n_checkpoints), finite, in the order of training, at least two.
        losses: of the same shape, finite.

    Raises:
        ValueError: wrong shapes, or a value that is not finite.
    """
    steps, found = _finite("phi", phi, 2), _finite("losses", losses, 2)
    if steps.shape != found.shape or steps.shape[1] < 2:
        raise ValueError(f"phi and losses: must be of two checkpoints or more, got {steps.shape} and {found.shape}")
    return np.column_stack([
        lt_iqr(found).values, fluctuation(found).values, steps[:, :-1], np.diff(steps, axis=1),
    ])  # fmt: skip


def n_trajectory_features(n_checkpoints: int) -> int:
    """Columns of `trajectory_features`; none of one checkpoint."""
    return 2 * n_checkpoints if n_checkpoints > 1 else 0


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
