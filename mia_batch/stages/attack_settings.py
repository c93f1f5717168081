"""What the section `attack` comes to: what each attack is told, what it needs, how rows are split."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.base import BLIND, REFERENCE_COLUMNS, STACK, TRAJECTORY_COLUMNS, AttackSettings
from mia_batch.attacks.registry import ATTACKS, CHECKS
from mia_batch.attacks.split import make_splits
from mia_batch.attacks.stacked import NULL
from mia_batch.samples import IN_AND_OUT, SOME_IN, SOME_OUT, TWO_IN_AND_OUT, TWO_ON_A_SIDE, Split
from mia_batch.search.folds import check_grids
from mia_batch.settings.schema import AttackConfig

# What attacks need, by what a user knows of samples.
MADE_OF = dict.fromkeys((*signals.NAMES, "features"), "logits") | {"label": "labels", BLIND: "labels"}
MADE_OF["statistics"] = "the inputs' statistics"
MADE_OF |= dict.fromkeys(REFERENCE_COLUMNS, "reference models")
MADE_OF |= dict.fromkeys((STACK, NULL), "reference models enough for one of them, or a pair, to play the target")
MADE_OF |= dict.fromkeys(TRAJECTORY_COLUMNS, "earlier checkpoints (attack.trajectory)")
MADE_OF[TRAJECTORY_COLUMNS[-1]] = "reference models of the same steps as the earlier checkpoints"
# What it needs of reference models, where there are some.
OF_REFERENCES = {
    SOME_IN: "a reference trained on some of the samples", SOME_OUT: "a reference not trained on some of the samples",
    IN_AND_OUT: "a sample with a reference trained on it and another not",
    TWO_IN_AND_OUT: "a sample with two references trained on it and two not",
    TWO_ON_A_SIDE: "a sample with two references trained on it, or two not",
}


def settings_of(attack: AttackConfig, checks: Iterable[str]) -> dict[str, AttackSettings]:
    """What each attack, and then each check, is told."""
    return {
        each.method: AttackSettings(each.params, attack.seed, attack.search, attack.n_iter) for each in attack.methods
    } | {name: AttackSettings(seed=attack.seed) for name in checks}


def needed_columns(attack: AttackConfig) -> frozenset[str]:
    """The columns of samples that the attacks, without the checks, cannot do without."""
    return frozenset[str]().union(*(ATTACKS[method.method].needs for method in attack.methods))


def lacking(name: str, known: Collection[str]) -> str:
    """Why the attack cannot be made where these columns are known, "" if it can."""
    missing = (ATTACKS | CHECKS)[name].needs - set(known)
    if named := sorted({MADE_OF.get(each, each) for each in missing - set(OF_REFERENCES)}):
        return f"it needs {' and '.join(named)}, which these samples do not have"
    return f"it needs {' and '.join(OF_REFERENCES[each] for each in sorted(missing))}: there is none" if missing else ""


def that_run(attack: AttackConfig, known: Collection[str]) -> tuple[AttackConfig, dict[str, str]]:
    """The section with the attacks that can be made where these columns are known, and why each other is not run."""
    why = {each.method: lacking(each.method, known) for each in attack.methods}
    allowed = tuple(each for each in attack.methods if not why[each.method])
    left = attack.model_copy(update={"methods": allowed or attack.methods})
    return left, {name: reason for name, reason in why.items() if reason}


def splits_of(
    attack: AttackConfig, member: NDArray[np.integer], group: NDArray[np.int64] | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> list[Split]:
    """How the rows are split.

    Args:
        attack: how, and the grids that a split must be large enough for.
        member: membership, (n_samples,).
        group: rows of one number stay together, (n_samples,); see `attacks.grouping.group_codes`.
        left_out: rows that neither fit nor score, (n_samples,).

    Raises:
        InputError: too few samples for the split, the folds or a grid.
    """
    splits = make_splits(member.astype(np.int8), group=group, left_out=left_out, **attack.splitting())
    for split in splits:
        check_grids(split, {method.method: dict(method.params) for method in attack.methods})
    return splits
