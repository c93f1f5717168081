"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.rules import MethodVerdict

if TYPE_CHECKING:
    from mia_batch.settings.schema import GateConfig


def _leak_sentence(
    leaking: Sequence[str],
    judged: Mapping[str, MethodVerdict],
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: GateConfig,
) -> str:
    parts = []
    for method in leaking:
        shown = _listed([_shown(name, evaluations[method][name], gate) for name in judged[method].above])
        parts.append(f"{method} has {shown}")
    rule = _listed([name.replace("_", " ") for name in gate.metrics], "and" if gate.rule == "all_above" else "or")
    which = f"{rule} above {gate.threshold:g}"
    return f"LEAK FOUND: {'; '.join(parts)}. The rule for a leak is {which} in any one attack{_by_bound(gate)}."


def _shown(name: str, estimate: Estimate, gate: GateConfig) -> str:
    value = f"{name.replace('_', ' ')} {estimate.value:.4f}"
    return f"{value} (at least {estimate.low:.4f})" if gate.bound == "lower" else value


def _clear_sentence(judged: Mapping[str, MethodVerdict], gate: GateConfig) -> str:
    names = _listed([name.replace("_", " ") for name in gate.metrics], "and" if gate.rule == "all_above" else "or")
    quantifier = "all of " if gate.rule == "all_above" and len(gate.metrics) > 1 else ""
    attacks = f"none of the {len(judged)} attacks ({', '.join(judged)})" if len(judged) > 1 else f"{next(iter(judged))}"
    verb = "has" if len(judged) > 1 else "does not have"
    return f"No leak found: {attacks} {verb} {quantifier}{names} above {gate.threshold:g}{_by_bound(gate)}."


def _by_bound(gate: GateConfig) -> str:
    return ", by the lower ends of the intervals" if gate.bound == "lower" else ""


def _listed(items: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
