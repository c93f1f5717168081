"""Made-up targets with references."""

from __future__ import annotations

from typing import Any

import numpy as np

from mia_batch.attacks.base import AttackResult, AttackSettings
from mia_batch.attacks.references import ON_REFERENCES, ReferenceAttack
from mia_batch.attacks.sides import References
from mia_batch.attacks.split import make_splits
from mia_batch.samples import Samples

BY_NAME: dict[str, ReferenceAttack] = {attack.name: attack for attack in ON_REFERENCES}
NAMES = list(BY_NAME)
OFFLINE = ["lira_offline", "rmia_offline", "log_ratio_offline", "attack_r", "calibration", "pmia", "pmia_class"]
ONLINE = [name for name in NAMES if name not in OFFLINE]


def pairs_by_coins(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Inclusion of k models, model 2j + 1 the complement of 2j, (n, k)."""
    first = rng.integers(2, size=(n, (k + 1) // 2))
    return np.stack([first, 1 - first], axis=2).reshape(n, -1)[:, :k].astype(np.int8)


def answers(inside: np.ndarray, rng: np.random.Generator, *, shift: float = 2.0, n_queries: int = 1) -> np.ndarray:
    """Phi of models, (n, n_queries, k): samples differ in how hard they are, and models are surer of what they know."""
    n, k = inside.shape
    hard = rng.normal(2.0, 2.0, size=(n, 1, 1)) + rng.normal(scale=0.3, size=(n, n_queries, 1))
    return hard + shift * inside[:, np.newaxis, :] + rng.normal(size=(n, n_queries, k))


def audit(
    n: int = 200, k: int = 6, *, n_queries: int = 1, shift: float = 2.0, seed: int = 0,
    inside: np.ndarray | None = None, **splitting: Any,
) -> Samples:
    """A target whose members are fair coins, with k references in pairs, or of this inclusion."""
    rng = np.random.default_rng(seed)
    member = rng.integers(2, size=n).astype(np.int8)
    inside = pairs_by_coins(n, k, rng) if inside is None else inside
    phi = answers(np.column_stack([member, inside]), rng, shift=shift, n_queries=n_queries)
    return samples_of(phi[:, :, 0], phi[:, :, 1:], inside, member, label=rng.integers(3, size=n), **splitting)


def samples_of(
    target: np.ndarray, others: np.ndarray, inside: np.ndarray, member: np.ndarray, label: np.ndarray, **splitting: Any
) -> Samples:
    """As the stage makes them."""
    options = {"evaluation": "cross_fit", "eval_fraction": 0.2, "seed": 1, "cv": 3} | splitting
    columns = {"query_phi": target, "reference_phi": others, "reference_in": inside, "label": label.astype(np.int32)}
    return Samples(member, make_splits(member, **options), **columns)


def references_of(samples: Samples) -> References:
    """What its attacks see."""
    return References.of(samples)


def result_of(name: str, samples: Samples, **params: float) -> AttackResult:
    """As a worker and the stage make it."""
    settings = AttackSettings({key: (value,) for key, value in params.items()})
    (task,) = BY_NAME[name].tasks(samples, settings)
    return BY_NAME[name].result(samples, settings, {task.key: task.work.run(samples)})  # type: ignore[union-attr]


def can_be_made(name: str, samples: Samples) -> bool:
    """Whether the samples have what the attack needs."""
    return BY_NAME[name].needs <= samples.known
