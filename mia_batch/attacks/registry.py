"""THE list of attacks: the configuration, the attack stage and the reports ask here what there is."""

from __future__ import annotations

from mia_batch.attacks.base import Attack
from mia_batch.attacks.classifiers import KNN, LR, MLP, RF

ATTACKS: dict[str, Attack] = {
    "lr": LR,
    "knn": KNN,
    "mlp": MLP,
    "rf": RF,
}
