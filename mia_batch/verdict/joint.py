"""The joint rule: several metrics of an attack against one threshold, as MindArmour's tutorial has it."""

from __future__ import annotations

from collections.abc import Mapping

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.measures import unequal
from mia_batch.verdict.rules import GATE_RULES, JointRule, MethodVerdict

# Neither the share of members nor an attack's own decisions move these.
FREE_OF_SIDES = frozenset({"auc", "advantage"})


def judge(estimates: Mapping[str, Estimate], rule: JointRule, *, bound: str | None = None) -> MethodVerdict:
    """What the rule says of an attack with these metrics; `bound` instead of the rule's own.

    Above means greater, not equal; a metric without a value is never above.
    """
    numbers = {name: estimates[name] for name in rule.metrics}
    level = {name: e.low if (bound or rule.bound) == "lower" else e.value for name, e in numbers.items()}
    undefined = tuple(name for name, estimate in numbers.items() if not estimate.defined)
    above = tuple(name for name in numbers if level[name] > rule.threshold)  # NaN is greater than nothing
    not_above = tuple(name for name in numbers if name not in above + undefined)
    leak = GATE_RULES[rule.rule].leaks([name in above for name in numbers])
    return MethodVerdict(leak, above, not_above, undefined)


def cannot_clear(rule: JointRule, n_members: int, n_nonmembers: int) -> str | None:
    """Why that no attack is above proves nothing; None where it counts.

    An attack that is fitted on few members and many non-members calls hardly any sample a member, however well its
    scores tell them apart.
    """
    if not unequal(n_members, n_nonmembers) or FREE_OF_SIDES.issuperset(rule.metrics):
        return None
    total = n_members + n_nonmembers
    share = f"{n_members / total:.1%} of the scored samples" if total else "none"
    return (
        f"{share} are members, and the attacks' own decisions lean to the larger side, so that no metric of them "
        "above the threshold proves nothing"
    )
