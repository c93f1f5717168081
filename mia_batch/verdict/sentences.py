"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.rules import GATE_RULES, Gate, MethodVerdict


def leak_sentence(
    leaking: Sequence[str],
    judged: Mapping[str, MethodVerdict],
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: Gate,
) -> str:
    """What leaks, by which numbers, and the rule."""
    parts = []
    for method in leaking:
        shown = _listed([_shown(name, evaluations[method][name], gate) for name in judged[method].above])
        parts.append(f"{method} has {shown}")
    # "accuracy and recall above" says all, "accuracy or recall above" says any; what else a rule asks must be said.
    asked = "" if GATE_RULES[gate.rule].leaks in (all, any) else f"{GATE_RULES[gate.rule].asks} "
    which = f"{asked}{_names(gate)} above {gate.threshold:g}"
    return f"LEAK FOUND: {'; '.join(parts)}. The rule for a leak is {which} in any one attack{_by_bound(gate)}."


def _shown(name: str, estimate: Estimate, gate: Gate) -> str:
    value = f"{name.replace('_', ' ')} {estimate.value:.4f}"
    return f"{value} (at least {estimate.low:.4f})" if gate.bound == "lower" else value


def clear_sentence(judged: Mapping[str, MethodVerdict], gate: Gate) -> str:
    """That no attack is what the rule asks for."""
    return f"No leak found: {_none_passes(judged, gate)}."


def inconclusive_sentence(reasons: Mapping[str, str], judged: Mapping[str, MethodVerdict], gate: Gate) -> str:
    """Which attacks are not evaluable and why, and that no other passes: that is not enough for "no leak"."""
    failed = "; ".join(f"{method} is not evaluable ({reason})" for method, reason in reasons.items())
    others = f"; {_none_passes(judged, gate)}" if judged else ""
    return f"INCONCLUSIVE: {failed}{others}."


def _none_passes(judged: Mapping[str, MethodVerdict], gate: Gate) -> str:
    rule = GATE_RULES[gate.rule]
    asked = f"{rule.asks} " if rule.leaks is not any and len(gate.metrics) > 1 else ""
    attacks = f"none of the {len(judged)} attacks ({', '.join(judged)})" if len(judged) > 1 else f"{next(iter(judged))}"
    verb = "has" if len(judged) > 1 else "does not have"
    return f"{attacks} {verb} {asked}{_names(gate)} above {gate.threshold:g}{_by_bound(gate)}"


def _names(gate: Gate) -> str:
    return _listed([name.replace("_", " ") for name in gate.metrics], GATE_RULES[gate.rule].conjunction)


def _by_bound(gate: Gate) -> str:
    return ", by the lower ends of the intervals" if gate.bound == "lower" else ""


def _listed(items: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
