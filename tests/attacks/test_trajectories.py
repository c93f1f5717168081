"""Trajectories against known answers, naive loops, closed forms and degenerate input."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from made_references import pairs_by_coins
from scipy.stats import multivariate_normal

from mia_batch.attacks.sides import References
from mia_batch.attacks.trajectories import (
    PerSample,
    fluctuation,
    lira_trajectory,
    lt_iqr,
    n_trajectory_features,
    pooled_covariance,
    trajectory_features,
    trajectory_log_ratio,
    update_attack,
)
from mia_batch.metrics.ranking import auc

LOSSES = [[2.3, 1.9, 1.2, 0.6, 0.3], [2.3, 2, 1.9, 1.8, 1.7], [2.3, 0.5, 2, 0.4, 0.1]]
OVER_CHECKPOINTS = (lt_iqr, fluctuation)


def test_known_answers() -> None:
    assert lt_iqr(LOSSES).values == pytest.approx([1.3, 0.2, 1.6], abs=1e-6)
    assert fluctuation(LOSSES).values == pytest.approx([2, 0.6, 5.2], abs=1e-6)
    found = trajectory_log_ratio([[1, 2]], [[2, 3]], [[0, 0]], [[1, 0.5], [0.5, 2]])
    assert found == pytest.approx([0.57142857], abs=1e-6)


@pytest.mark.parametrize("n_checkpoints", [2, 3, 4, 9])
def test_like_loops_over_samples(n_checkpoints: int) -> None:
    losses = np.random.default_rng(n_checkpoints).exponential(size=(40, n_checkpoints))
    quartiles = [statistics.quantiles(row, n=4, method="inclusive") for row in losses]  # NumPy's linear ones
    assert lt_iqr(losses).values == pytest.approx([high - low for low, _, high in quartiles])
    steps = [sum(abs(b - a) for a, b in pairwise(row)) for row in losses]
    assert fluctuation(losses).values == pytest.approx(steps)


def test_the_order_of_checkpoints_matters_to_fluctuation_alone() -> None:
    losses = np.random.default_rng(1).exponential(size=(9, 6))
    turned = losses[:, [3, 0, 5, 1, 4, 2]]
    assert lt_iqr(turned).values == pytest.approx(lt_iqr(losses).values)
    assert not np.allclose(fluctuation(turned).values, fluctuation(losses).values)


@pytest.mark.parametrize("compute", OVER_CHECKPOINTS)
def test_degenerate_losses(compute: Callable[[Any], PerSample]) -> None:
    one = compute([[0.5], [0.7]])
    assert np.isnan(one.values).all()
    assert one.values.shape == (2,)
    assert one.reason == "a trajectory needs two checkpoints, got 1"
    assert compute(np.empty((3, 0))).reason == "a trajectory needs two checkpoints, got 0"
    constant = compute(np.full((2, 5), 0.7))
    assert (list(constant.values), constant.reason) == ([0, 0], None)
    assert compute(np.empty((0, 4))).values.shape == (0,)
    with pytest.raises(ValueError, match="losses: must have 2 dimensions"):
        compute([0.1, 0.2])
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="losses: must be finite"):
            compute([[0.1, wrong]])


def test_the_log_ratio_is_that_of_scipys_densities() -> None:
    rng = np.random.default_rng(2)
    phi, inside, out = rng.normal(size=(3, 30, 4)) * 3
    root = rng.normal(size=(4, 4))
    S = root @ root.T + np.eye(4)
    naive = [
        multivariate_normal.logpdf(x, a, S) - multivariate_normal.logpdf(x, b, S)
        for x, a, b in zip(phi, inside, out, strict=True)
    ]
    assert trajectory_log_ratio(phi, inside, out, S) == pytest.approx(naive)


def test_of_one_checkpoint_it_is_lira_with_one_variance_for_both_sides() -> None:
    found = trajectory_log_ratio([[1.5]], [[2.0]], [[0.5]], [[4.0]])
    assert found == pytest.approx([(-0.25 + 1) / 8])


@pytest.mark.parametrize(
    ("shapes", "covariance", "rule"),
    [(((2, 3), (2, 2), (2, 3)), np.eye(3), r"must be \(n, t\) thrice"), (((3,),) * 3, np.eye(3), "must be"),
     (((2, 3),) * 3, np.eye(2), "must be"), (((2, 2),) * 3, np.zeros((2, 2)), "positive definite"),
     (((2, 2),) * 3, np.array([[1, 2], [2, 1]]), "positive definite")],
)  # fmt: skip
def test_what_the_log_ratio_refuses(shapes: Any, covariance: np.ndarray, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        trajectory_log_ratio(*(np.zeros(shape) for shape in shapes), covariance)


def trained(
    n: int = 400, k: int = 8, t: int = 5, *, shift: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Membership, phi (n, t), references (n, k, t), inclusion (n, k), and the covariance of their noise."""
    rng = np.random.default_rng(seed)
    root = np.tril(rng.uniform(0.2, 1, size=(t, t)))
    coins = np.column_stack([rng.integers(2, size=n), pairs_by_coins(n, k, rng)])
    hard = rng.normal(scale=2, size=(n, 1, t))
    phi = hard + shift * coins[:, :, np.newaxis] + rng.normal(size=(n, k + 1, t)) @ root.T
    return coins[:, 0], phi[:, 0], phi[:, 1:], coins[:, 1:], root @ root.T


def lira(phi: np.ndarray, references: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Scores against references (n, k, t)."""
    found = lira_trajectory(References(phi, references.transpose(0, 2, 1), inside.astype(np.int8)))
    assert found.values.shape == (len(phi), 1)
    return found.values[:, 0]


def test_the_pooled_covariance_is_that_of_a_loop_but_for_its_shrinkage() -> None:
    _, _, references, inside, truth = trained(n=3000)
    S = pooled_covariance(references, inside.astype(bool))
    products, freedom = np.zeros((5, 5)), 0
    for values, chosen in zip(references, inside, strict=True):
        for side in (values[chosen == 1], values[chosen == 0]):
            if len(side) >= 2:
                products += np.cov(side.T) * (len(side) - 1)
                freedom += len(side) - 1
    assert np.diag(S) == pytest.approx(np.diag(products / freedom))
    assert pytest.approx(products / freedom, rel=0.01, abs=0.01) == S  # many rows: hardly shrunk
    assert pytest.approx(truth, rel=0.1, abs=0.1) == S


def test_fewer_rows_than_checkpoints_leave_a_covariance_that_can_be_inverted() -> None:
    _, phi, references, inside, _ = trained(n=2, k=4, t=12)
    inside[:] = [1, 1, 0, 0]
    S = pooled_covariance(references, inside.astype(bool))
    assert np.linalg.eigvalsh(S).min() > 0
    assert np.isfinite(lira(phi, references, inside)).all()


def test_a_checkpoint_that_comes_twice_adds_nothing() -> None:
    member, phi, references, inside, _ = trained()
    once = lira(phi, references, inside)
    twice = lira(phi[:, [0, 1, 2, 3, 4, 4]], references[:, :, [0, 1, 2, 3, 4, 4]], inside)
    assert np.isfinite(twice).all()
    assert auc(member, twice).value == pytest.approx(auc(member, once).value, abs=0.02)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_a_checkpoint_does_not_matter(scale: float) -> None:
    _, phi, references, inside, _ = trained()
    factors = np.array([1, scale, 1, 1, 1])
    scaled = lira(phi * factors, references * factors, inside)
    assert scaled == pytest.approx(lira(phi, references, inside), rel=1e-5, abs=1e-8)


def test_lira_over_checkpoints_finds_members_and_more_than_the_last_checkpoint_does() -> None:
    """And where membership leaves no trace its AUC covers .5."""
    member, phi, references, inside, _ = trained(n=2000)
    whole = auc(member, lira(phi, references, inside))
    last = auc(member, lira(phi[:, -1:], references[:, :, -1:], inside))
    assert whole.low > 0.5
    assert whole.value > last.value
    member, phi, references, inside, _ = trained(n=2000, shift=0.0, seed=4)
    null = auc(member, lira(phi, references, inside), level=0.999)
    assert null.low < 0.5 < null.high


def test_a_missing_side_is_what_the_other_lets_expect() -> None:
    """A loop over samples, with the mean difference of the sides of samples that have both."""
    _, phi, references, inside, _ = trained(n=40)
    inside[:] = [1, 1, 1, 1, 0, 0, 0, 0]
    inside[0], inside[1] = 0, 1
    found = lira_trajectory(References(phi, references.transpose(0, 2, 1), inside.astype(np.int8)))
    assert list(np.flatnonzero(found.offline)) == [0, 1]
    assert not found.neutral.any()
    S = pooled_covariance(references, inside.astype(bool))
    gap = np.mean([r[i == 1].mean(0) - r[i == 0].mean(0) for r, i in zip(references[2:], inside[2:], strict=True)], 0)
    for row, (values, chosen) in enumerate(zip(references, inside, strict=True)):
        mean_in = values[chosen == 1].mean(0) if chosen.any() else values.mean(0) + gap
        mean_out = values[chosen == 0].mean(0) if not chosen.all() else values.mean(0) - gap
        naive = multivariate_normal.logpdf(phi[row], mean_in, S) - multivariate_normal.logpdf(phi[row], mean_out, S)
        assert found.values[row, 0] == pytest.approx(naive)


def test_references_that_show_no_variance() -> None:
    """One on each side, answers that are all the same, and no sample with both sides."""
    _, phi, references, inside, _ = trained(n=6)
    pair = np.tile([1, 0], (6, 1))
    assert pooled_covariance(references[:, :2], pair == 1) == pytest.approx(np.eye(5))
    apart, middle = references[:, 0] - references[:, 1], references[:, :2].mean(axis=1)
    assert lira(phi, references[:, :2], pair) == pytest.approx(np.einsum("ij,ij->i", apart, phi - middle))
    flat = pooled_covariance(np.ones_like(references), inside == 1)
    assert flat == pytest.approx(1e-12 * np.eye(5), rel=1e-6)
    assert (lira(phi, np.ones_like(references), inside) == 0).all()
    assert (lira(phi, references, np.ones_like(inside)) == 0).all()


def test_the_features_of_a_trajectory() -> None:
    found = trajectory_features([[1.0, 4.0, 2.0]], [LOSSES[0][:3]])
    assert found.tolist() == pytest.approx(np.array([[(2.1 - 1.55), 1.1, 1.0, 4.0, 3.0, -2.0]]))
    assert found.shape[1] == n_trajectory_features(3)
    assert n_trajectory_features(1) == 0
    for phi, losses in (([[1.0]], [[1.0]]), ([[1.0, 2.0]], [[1.0]])):
        with pytest.raises(ValueError, match="phi and losses: must be of two checkpoints or more"):
            trajectory_features(phi, losses)


def test_the_update_attack_is_a_difference() -> None:
    assert list(update_attack([1.0, 2.0], [4.0, 1.5])) == [3.0, -0.5]
    assert update_attack([], []).shape == (0,)
    with pytest.raises(ValueError, match="phi_now: must have the shape"):
        update_attack([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="phi_before: must be finite"):
        update_attack([np.nan], [1.0])
