"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mia_batch.verdict.rules import GATE_RULES, Gate, JointRule, MethodVerdict, Rule, RuleOutcome

if TYPE_CHECKING:  # they import SciPy
    from mia_batch.metrics.base import Estimate
    from mia_batch.verdict.baseline import Baseline

NO_PROOF = (
    "Passing proves neither anonymity nor differential privacy: another attack may find what these attacks have not."
)

# --- of the data -----------------------------------------------------------------------------------------------------

NONMEMBERS_USED_FOR = {
    "selection": "non-members were used for early stopping or tuning: the model is tuned to them too, and its "
    "difference between members and non-members is understated.",
    "unknown": "it is not stated whether non-members were used for early stopping or tuning "
    "(data.nonmembers_used_for): if they were, the difference between members and non-members is understated.",
}


def borrowed_preprocessing(keys: Sequence[str]) -> str:
    """Of keys of `data` that a source of the user's own leaves to CIFAR's values."""
    names = listed([f"data.{key}" for key in keys])
    return (
        f"{names} {'are' if len(keys) > 1 else 'is'} not stated: CIFAR's values are used, though the data source is "
        "another. If the network was trained with other values, this audit says nothing of it."
    )


def of_data(borrowed: Sequence[str], nonmembers_used_for: str) -> tuple[str, ...]:
    """What the configuration says, or leaves unsaid, of the data, where it bears on the verdict."""
    used = NONMEMBERS_USED_FOR.get(nonmembers_used_for)
    return (*([borrowed_preprocessing(borrowed)] if borrowed else []), *([used] if used else []))


# --- of the gate's rules ---------------------------------------------------------------------------------------------


def leak_by_rules(judged: Mapping[str, MethodVerdict]) -> str:
    """What leaks, by which numbers."""
    parts = []
    for method, outcome in judged.items():
        shown = [above(each) for each in outcome.rules if each.outcome == "leak"]
        parts += [f"{method} has {listed(shown)}"] if shown else []
    return f"LEAK FOUND: {'; '.join(parts)}."


def above(each: RuleOutcome) -> str:
    """What is above which level."""
    value = "without limit" if each.value is None else f"{each.value:.4f}"
    at_least = "" if each.low is None else f" (at least {each.low:.4f})"
    return f"{words(each.rule)} {value}{at_least} above {each.above:g}"


def no_leak_by_rules(judged: Mapping[str, MethodVerdict], gate: Gate) -> str:
    """The level that no attack exceeds, and what was tried."""
    clearing = [rule for rule in gate.rules if rule.clears]
    upper = [f"{words(rule.name)} at most {_highest(judged.values(), rule):.4f}" for rule in clearing]
    tried = f"each of the {len(judged)} attacks tried ({', '.join(judged)})" if len(judged) > 1 else next(iter(judged))
    return f"NO LEAK ABOVE {_levels(clearing)}: {tried} has {listed(upper)}."


def _levels(rules: Sequence[Rule]) -> str:
    return listed([f"{words(rule.name)} of {rule.above:g}" for rule in rules])


def _highest(judged: Iterable[MethodVerdict], rule: Rule) -> float:
    found = [each.high if rule.bound == "lower" else each.value for each in _of(judged, rule)]
    return max(number for number in found if number is not None)


def _of(judged: Iterable[MethodVerdict], rule: Rule) -> list[RuleOutcome]:
    return [each for outcome in judged for each in outcome.rules if each.rule == rule.name]


def inconclusive_by_rules(judged: Mapping[str, MethodVerdict], failed: Mapping[str, str]) -> str:
    """Which attacks are not evaluable, and which levels could be exceeded all the same."""
    parts = list(_not_evaluable(failed))
    for method, outcome in judged.items():
        shown = [_possible(each) for each in outcome.rules if each.outcome == "inconclusive"]
        parts += [f"{method} may have {listed(shown)}"] if shown else []
    return f"INCONCLUSIVE: no attack is shown to leak, but {'; '.join(parts)}."


def _possible(each: RuleOutcome) -> str:
    if each.high is None:
        return f"any {words(each.rule)} ({each.reason or 'it has no upper bound'})"
    return f"{words(each.rule)} up to {each.high:.4f} (the level is {each.above:g})"


def _not_evaluable(failed: Mapping[str, str]) -> Iterable[str]:
    return (f"{method} is not evaluable ({reason})" for method, reason in failed.items())


# --- of a joint rule -------------------------------------------------------------------------------------------------


def leak_by_joint(
    judged: Mapping[str, MethodVerdict], evaluations: Mapping[str, Mapping[str, Estimate]], rule: JointRule
) -> str:
    """What leaks, by which numbers, and the rule."""
    parts = []
    for method, outcome in judged.items():
        shown = [_shown(name, evaluations[method][name], rule) for name in outcome.above]
        parts += [f"{method} has {listed(shown)}"] if outcome.leak else []
    # "accuracy and recall above" says all, "accuracy or recall above" says any; what else a rule asks must be said.
    asked = "" if GATE_RULES[rule.rule].leaks in (all, any) else f"{GATE_RULES[rule.rule].asks} "
    which = f"{asked}{_names(rule)} above {rule.threshold:g}"
    return f"LEAK FOUND: {'; '.join(parts)}. The rule for a leak is {which} in any one attack{_by_bound(rule)}."


def _shown(name: str, estimate: Estimate, rule: JointRule) -> str:
    value = f"{words(name)} {estimate.value:.4f}"
    return f"{value} (at least {estimate.low:.4f})" if rule.bound == "lower" else value


def no_leak_by_joint(judged: Mapping[str, MethodVerdict], rule: JointRule) -> str:
    """That no attack is what the rule asks for."""
    return f"No leak found: {_none_passes(judged, rule)}."


def inconclusive_by_joint(
    judged: Mapping[str, MethodVerdict], failed: Mapping[str, str], why: str | None, rule: JointRule
) -> str:
    """Which attacks are not evaluable, or why it is not enough that no other passes."""
    parts = [*_not_evaluable(failed), *([_none_passes(judged, rule)] if judged else []), *([why] if why else [])]
    return f"INCONCLUSIVE: {'; '.join(parts)}."


def _none_passes(judged: Mapping[str, MethodVerdict], joint: JointRule) -> str:
    rule = GATE_RULES[joint.rule]
    asked = f"{rule.asks} " if rule.leaks is not any and len(joint.metrics) > 1 else ""
    attacks = f"none of the {len(judged)} attacks ({', '.join(judged)})" if len(judged) > 1 else f"{next(iter(judged))}"
    verb = "has" if len(judged) > 1 else "does not have"
    return f"{attacks} {verb} {asked}{_names(joint)} above {joint.threshold:g}{_by_bound(joint)}"


def _names(rule: JointRule) -> str:
    return listed([words(name) for name in rule.metrics], GATE_RULES[rule.rule].conjunction)


def _by_bound(rule: JointRule) -> str:
    return ", by the lower ends of the intervals" if rule.bound == "lower" else ""


def confounded(found: Baseline) -> str:
    """That the sides differ without the model, by which figures."""
    beside = "no attack is evaluable"
    if found.best_auc and found.difference:
        beside = (
            f"the best attack, {found.best}, has {found.best_auc.value:.4f}, a difference of "
            f"{found.difference.value:+.4f} (at least {found.difference.low:+.4f})"
        )
    return (
        f"members and non-members can be told apart without the model: by {known(found.statistics)} alone the AUC is "
        f"{found.auc.value:.4f} (at least {found.auc.low:.4f}), and {beside}. The audit is confounded: what it finds "
        "may be of the samples, and what it does not find may be hidden by them. Take both sides from the same source."
    )


def known(statistics: bool) -> str:
    """What the blind baseline knows of a sample."""
    return "labels and input statistics" if statistics else "labels"


# --- of both ---------------------------------------------------------------------------------------------------------


def words(name: str) -> str:
    """A metric's name as it is spoken: TPR at FPR 0.01."""
    return name.replace("tpr_at_fpr_", "TPR at FPR ").replace("_", " ")


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """a, b and c."""
    return f" {conjunction} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
