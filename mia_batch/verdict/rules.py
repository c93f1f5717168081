"""What a gate is, the rules that it may apply, and which attack leaks by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports SciPy, which who only reads a verdict need not wait for
    from mia_batch.metrics.base import Estimate

BOUNDS = ("point", "lower")
OUTCOMES: dict[bool | None, str] = {True: "leak", False: "no leak", None: "inconclusive"}  # of an audit, by its `leak`


@dataclass(frozen=True)
class GateRule:
    """How many of a gate's metrics must be above the threshold.

    Attributes:
        leaks: told of each metric whether it is above.
        asks: what it asks for, as in "all of accuracy and recall".
        conjunction: between the names of the metrics.
    """

    leaks: Callable[[Sequence[bool]], bool]
    asks: str
    conjunction: str


GATE_RULES: dict[str, GateRule] = {
    "all_above": GateRule(all, "all of", "and"),
    "any_above": GateRule(any, "any of", "or"),
}


@dataclass(frozen=True)
class Gate:
    """What makes an attack a leak.

    Attributes:
        rule: a name of `GATE_RULES`.
        threshold: a metric is above when it is greater, in [0, 1].
        metrics: what the rule is about.
        bound: "point" compares the values, "lower" the lower ends of the intervals.

    Raises:
        ValueError: an unknown rule or bound, a threshold out of range, or no metric.
    """

    rule: str
    threshold: float
    metrics: tuple[str, ...]
    bound: str = "point"

    def __post_init__(self) -> None:
        for name, valid in (("rule", tuple(GATE_RULES)), ("bound", BOUNDS)):
            if getattr(self, name) not in valid:
                raise ValueError(f"gate.{name}: must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"gate.threshold: must be in [0, 1], got {self.threshold}")
        if not self.metrics:
            raise ValueError("gate.metrics: must name at least one metric, got none")


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
        leak: whether at least one method leaks; None where none does and one is not evaluable.
        methods: by method that is evaluable, in the order of the configuration.
        sentence: in plain words, what decided it.
        cautions: what a reader must know before relying on it, a sentence each.
        not_evaluable: by method that is not, the reason.
    """

    leak: bool | None
    methods: dict[str, MethodVerdict]
    sentence: str
    cautions: tuple[str, ...] = ()
    not_evaluable: dict[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """`leak` in a word: leak, no leak or inconclusive."""
        return OUTCOMES[self.leak]


def judge(estimates: Mapping[str, Estimate], gate: Gate, *, bound: str | None = None) -> MethodVerdict:
    """What the gate says of an attack with these metrics; `bound` instead of the gate's own."""
    numbers = {name: estimates[name] for name in gate.metrics}
    level = {name: e.low if (bound or gate.bound) == "lower" else e.value for name, e in numbers.items()}
    undefined = tuple(name for name, estimate in numbers.items() if not estimate.defined)
    above = tuple(name for name in numbers if level[name] > gate.threshold)  # NaN is greater than nothing
    not_above = tuple(name for name in numbers if name not in above + undefined)
    leak = GATE_RULES[gate.rule].leaks([name in above for name in numbers])
    return MethodVerdict(leak, above, not_above, undefined)
