"""THE list of attacks: the configuration, the attack stage and the reports ask here what there is."""

from __future__ import annotations

from mia_batch.attacks.base import BLIND, REFERENCE_COLUMNS, Attack
from mia_batch.attacks.blind import BlindAttack
from mia_batch.attacks.classifiers import HGB, KNN, LR, MLP, RF
from mia_batch.attacks.population import ATTACK_P
from mia_batch.attacks.quantile import QMIA
from mia_batch.attacks.references import ON_REFERENCES, ON_TRAJECTORIES
from mia_batch.attacks.stacked import STACKED
from mia_batch.attacks.thresholds import CORRECTNESS, ON_ALL, ON_CLASSES

ATTACKS: dict[str, Attack] = {
    "lr": LR,
    "knn": KNN,
    "mlp": MLP,
    "rf": RF,
    "hgb": HGB,
    **{attack.name: attack for attack in ON_ALL},
    "correctness": CORRECTNESS,
    **{attack.name: attack for attack in ON_CLASSES},
    "attack_p": ATTACK_P,
    "qmia": QMIA,
    **{attack.name: attack for attack in (*ON_REFERENCES, *ON_TRAJECTORIES)},
    **{attack.name: attack for attack in STACKED},
}
# Made in every audit beside its attacks. They know nothing of the model: no configuration names them, no gate judges
# them, no table has them.
CHECKS: dict[str, Attack] = {BLIND: BlindAttack()}


def needs_references(name: str) -> bool:
    """Whether an attack, or a check, is made of what references say."""
    return not (ATTACKS | CHECKS)[name].needs.isdisjoint(REFERENCE_COLUMNS)


def classifier_of(name: str) -> str | None:
    """The classifier, of `search.estimators.METHODS`, whose grid an attack searches; None of one that searches none."""
    method: str | None = getattr(ATTACKS[name], "method", None)
    return method
