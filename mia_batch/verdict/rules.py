"""What a gate is, and what it says of an attack and of an audit: words and numbers, nothing computed.

Nothing here imports SciPy: code that only reads a verdict need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BOUNDS = ("point", "lower")
DECIDES = ("both", "leak", "no_leak")  # what a rule may decide
OUTCOMES: dict[bool | None, str] = {True: "leak", False: "no leak", None: "inconclusive"}  # of an audit, by its `leak`


def _check_choice(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"{name}: must be one of {', '.join(valid)}, got {value!r}")


@dataclass(frozen=True)
class Rule:
    """One metric and the level that an attack must not exceed.

    Attributes:
        metric: a name of `measures.MEASURES`.
        above: the level; a leak is greater.
        fpr: of `tpr_at_fpr`.
        delta: of `epsilon`.
        bound: "lower" compares the ends of the interval, "point" the value.
        decides: "leak" can find one, "no_leak" can rule one out, "both" does both.

    Raises:
        ValueError: an unknown bound or decision, or a number out of range.
    """

    metric: str
    above: float
    fpr: float | None = None
    delta: float | None = None
    bound: str = "lower"
    decides: str = "both"

    def __post_init__(self) -> None:
        _check_choice("gate.rules.bound", self.bound, BOUNDS)
        _check_choice("gate.rules.decides", self.decides, DECIDES)
        if not self.above >= 0:
            raise ValueError(f"gate.rules.above: must be at least 0, got {self.above}")
        if self.fpr is not None and not 0 < self.fpr < 1:
            raise ValueError(f"gate.rules.fpr: must be in (0, 1), got {self.fpr}")
        if self.delta is not None and not 0 <= self.delta < 1:
            raise ValueError(f"gate.rules.delta: must be in [0, 1), got {self.delta}")

    @property
    def name(self) -> str:
        """Such as tpr_at_fpr_0.01."""
        return self.metric if self.fpr is None else f"{self.metric}_{self.fpr:g}"

    @property
    def finds(self) -> bool:
        """Whether it can decide that there is a leak."""
        return self.decides != "no_leak"

    @property
    def clears(self) -> bool:
        """Whether there is no leak above its level only if this rule says so."""
        return self.decides != "leak"


@dataclass(frozen=True)
class JointRuleKind:
    """How many of a joint rule's metrics must be above the threshold.

    Attributes:
        leaks: told of each metric whether it is above.
        asks: what it asks for, as in "all of accuracy and recall".
        conjunction: between the names of the metrics.
    """

    leaks: Callable[[Sequence[bool]], bool]
    asks: str
    conjunction: str


GATE_RULES: dict[str, JointRuleKind] = {
    "all_above": JointRuleKind(all, "all of", "and"),
    "any_above": JointRuleKind(any, "any of", "or"),
}


@dataclass(frozen=True)
class JointRule:
    """One threshold for several metrics at once, as MindArmour's tutorial has it, without control of errors.

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
        _check_choice("gate.rule", self.rule, tuple(GATE_RULES))
        _check_choice("gate.bound", self.bound, BOUNDS)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"gate.threshold: must be in [0, 1], got {self.threshold}")
        if not self.metrics:
            raise ValueError("gate.metrics: must name at least one metric, got none")


TUTORIAL = JointRule("all_above", 0.6, ("accuracy", "precision", "recall"))
RULES = (
    Rule("balanced_accuracy", 0.6),
    Rule("tpr_at_fpr", 0.1, fpr=0.01, decides="no_leak"),
    Rule("epsilon", 1.0, delta=1e-5, decides="leak"),
)


@dataclass(frozen=True)
class Gate:
    """What makes a checkpoint leaking, or not.

    Attributes:
        rules: each about one metric of every attack.
        alpha: the error of the whole audit by `rules`: the probability of "leak" where none is above the levels, and
            that of "no leak" where one is, are each at most this.
        joint: decides instead of `rules`, which then are said beside it.
        tutorial: with `joint`, a leak by `rules` is one too.

    Raises:
        ValueError: alpha out of range, or rules that cannot tell a leak, or none.
    """

    rules: tuple[Rule, ...] = RULES
    alpha: float = 0.05
    joint: JointRule | None = None
    tutorial: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"gate.alpha: must be in (0, 0.5), got {self.alpha}")
        for word, can in (("leak", [r.finds for r in self.rules]), ("no_leak", [r.clears for r in self.rules])):
            if not any(can):
                raise ValueError(f"gate.rules: must have a rule that decides {word} or both, got none among {len(can)}")

    @property
    def level(self) -> float | None:
        """Of balanced accuracy, by `rules` or the joint rule alone where that decides; None without one."""
        own = next((rule.above for rule in self.rules if rule.metric == "balanced_accuracy"), None)
        return own if own is None or not self.by_joint_alone else max(own, self.joint.threshold if self.joint else own)

    @property
    def by_joint_alone(self) -> bool:
        """Whether a joint rule decides, whatever `rules` say."""
        return self.joint is not None and not self.tutorial

    def leak_alpha(self, n_attacks: int) -> float:
        """Error of each attack's lower bound by each rule, so that all together keep `alpha`."""
        return self.alpha / (n_attacks * sum(rule.finds for rule in self.rules))


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule says of one attack.

    Attributes:
        rule: its name.
        above: its level.
        value: what the attack has; None where it has none.
        low: lower bound, at the level that finds a leak; None where the metric has none.
        high: upper bound, at the level that rules one out; None where the metric has none.
        outcome: "leak", "no leak", "inconclusive", or "not above" of a rule that cannot rule a leak out.
        reason: why there is no value, or what limits it.
    """

    rule: str
    above: float
    value: float | None
    low: float | None
    high: float | None
    outcome: str
    reason: str | None = None


@dataclass(frozen=True)
class MethodVerdict:
    """What the gate says of one attack: which metrics are above, which have no value, and each of the `rules`."""

    leak: bool
    above: tuple[str, ...]
    not_above: tuple[str, ...]
    undefined: tuple[str, ...]
    rules: tuple[RuleOutcome, ...] = ()


@dataclass(frozen=True)
class Claim:
    """That training was (epsilon, delta)-differentially private."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class ClaimVerdict:
    """What an audit says of a claim.

    Attributes:
        claim: what was claimed.
        contradicted: whether the audit shows it to be false; None where that cannot be judged.
        low: the audit's lower bound of epsilon, at the claim's delta; None where it has none.
        method: the attack that the bound is of.
        sentence: in plain words.
    """

    claim: Claim
    contradicted: bool | None
    low: float | None
    method: str | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The audit's outcome.

    Attributes:
        leak: whether at least one method leaks, or a claim is contradicted; None where that cannot be said.
        methods: by method that is evaluable, in the order of the configuration.
        sentence: in plain words, what decided it.
        cautions: what a reader must know before relying on it, a sentence each.
        not_evaluable: by method that is not, the reason.
        notes: what could have been detected, and what the verdict is not, a sentence each.
        by_rules: outcome of the gate's rules, where another rule decides, or a claim.
    """

    leak: bool | None
    methods: dict[str, MethodVerdict]
    sentence: str
    cautions: tuple[str, ...] = ()
    not_evaluable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by_rules: str | None = None

    @property
    def outcome(self) -> str:
        """`leak` in a word: leak, no leak or inconclusive."""
        return OUTCOMES[self.leak]
