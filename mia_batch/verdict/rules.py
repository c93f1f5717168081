"""Which attack leaks by the gate's rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mia_batch.metrics.base import Estimate

if TYPE_CHECKING:
    from mia_batch.settings.schema import GateConfig


@dataclass(frozen=True)
class MethodVerdict:
    """What the rule says of one attack: which of its metrics are above the threshold, and which have no value."""

    leak: bool
    above: tuple[str, ...]
    not_above: tuple[str, ...]
    undefined: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The audit's outcome.

    Attributes:
        leak: whether at least one method leaks.
        methods: by method, in the order of the configuration.
        sentence: in plain words, what decided it.
        cautions: what a reader must know before relying on it, a sentence each.
    """

    leak: bool
    methods: dict[str, MethodVerdict]
    sentence: str
    cautions: tuple[str, ...] = ()


def _judge(estimates: Mapping[str, Estimate], gate: GateConfig, *, bound: str | None = None) -> MethodVerdict:
    numbers = {name: estimates[name] for name in gate.metrics}
    level = {name: e.low if (bound or gate.bound) == "lower" else e.value for name, e in numbers.items()}
    undefined = tuple(name for name, estimate in numbers.items() if not estimate.defined)
    above = tuple(name for name in numbers if level[name] > gate.threshold)  # NaN is greater than nothing
    not_above = tuple(name for name in numbers if name not in above + undefined)
    leak = len(above) == len(numbers) if gate.rule == "all_above" else bool(above)
    return MethodVerdict(leak, above, not_above, undefined)
