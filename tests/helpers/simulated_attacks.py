"""Attacks whose balanced accuracy is known, correlated as attacks on one model are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from mia_batch.metrics.base import INDEPENDENT, Effects, Estimate
from mia_batch.metrics.epsilon import choose_threshold
from mia_batch.verdict.gate import decide
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.rules import Gate, Verdict

CORRELATION = 0.7


def scored(
    member: np.ndarray, predicted: np.ndarray, scores: np.ndarray | None = None, *,
    estimates: Mapping[str, Estimate] | None = None, threshold: float | None = None, effects: Effects = INDEPENDENT,
) -> Scored:
    """An attack's part of a verdict."""
    said = np.asarray(predicted, dtype=bool)
    values = said.astype(float) if scores is None else np.asarray(scores, dtype=float)
    extreme = None if threshold is None else values >= threshold
    return Scored(np.asarray(member, dtype=bool), said, values, dict(estimates or {}), extreme, effects)


def decisions(rng: np.random.Generator, n: int, accuracy: float, n_attacks: int) -> dict[str, Scored]:
    """Attacks whose TPR and TNR are both `accuracy`; among those decided alike the scores are noise."""
    member = np.repeat([True, False], n)
    shared = rng.normal(size=2 * n)
    made = {}
    for i in range(n_attacks):
        latent = math.sqrt(CORRELATION) * shared + math.sqrt(1 - CORRELATION) * rng.normal(size=2 * n)
        right = latent < stats.norm.ppf(accuracy)
        said = np.where(member, right, ~right)
        made[f"a{i}"] = scored(member, said, said + rng.random(2 * n))
    return made


def exposed(rng: np.random.Generator, n: int, share: float) -> Scored:
    """An attack that knows `share` of the members for sure and nothing of the rest, by a threshold of other rows."""
    member = np.repeat([True, False], n)

    def draw() -> np.ndarray:
        return rng.normal(size=2 * n) + 6 * (member & (rng.random(2 * n) < share))

    threshold = choose_threshold(member, draw(), delta=1e-5)
    scores = draw()
    return scored(member, scores > 0, scores, threshold=threshold)


def verdict_of(attacks: Mapping[str, Scored], gate: Gate | None = None) -> Verdict:
    """By the default gate."""
    return decide(attacks, gate or Gate(), methods=list(attacks))
