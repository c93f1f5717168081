"""The verdict: whether any attack tells members from non-members well enough to call the checkpoint leaking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mia_batch.metrics import Estimate

if TYPE_CHECKING:
    from mia_batch.config import GateConfig

# Shares of members from which on accuracy and precision are called dependent on the mixture.
_UNEQUAL = (0.45, 0.55)


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


def decide(
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: GateConfig,
    *,
    methods: Sequence[str],
    n_members: int,
    n_nonmembers: int,
    augment_members: bool = False,
) -> Verdict:
    """Apply the rule to every method; the audit leaks if any method does.

    MindArmour's tutorial calls a model leaking when accuracy, precision and recall of an attack are all above 0.6: rule
    `all_above`. `any_above` asks for one of them. With bound `lower` the lower end of the interval counts instead of
    the value. Above means greater, not equal; a metric without a value is never above.

    Args:
        evaluations: metrics by method, as of `metrics.evaluate`.
        gate: rule, threshold, metrics and bound.
        methods: the configured methods.
        n_members: scored members.
        n_nonmembers: scored non-members.
        augment_members: whether members, and only they, were cropped and flipped.

    Raises:
        ValueError: a configured method has no evaluation: silence is not "no leak".
    """
    missing = [method for method in methods if method not in evaluations]
    if missing or not methods:
        raise ValueError(f"evaluations: must hold every configured method, missing {', '.join(missing) or 'all'}")
    judged = {method: _judge(evaluations[method], gate) for method in methods}
    leaking = [method for method, outcome in judged.items() if outcome.leak]
    sentence = _leak_sentence(leaking, judged, evaluations, gate) if leaking else _clear_sentence(judged, gate)
    cautions = [
        _mixture_caution(n_members, n_nonmembers, gate),
        _sampling_caution(leaking, evaluations, gate),
        _undefined_caution(judged),
        _augmentation_caution(augment_members),
    ]
    return Verdict(bool(leaking), judged, sentence, tuple(text for text in cautions if text))


def _judge(estimates: Mapping[str, Estimate], gate: GateConfig, *, bound: str | None = None) -> MethodVerdict:
    numbers = {name: estimates[name] for name in gate.metrics}
    level = {name: e.low if (bound or gate.bound) == "lower" else e.value for name, e in numbers.items()}
    undefined = tuple(name for name, estimate in numbers.items() if not estimate.defined)
    above = tuple(name for name in numbers if level[name] > gate.threshold)  # NaN is greater than nothing
    not_above = tuple(name for name in numbers if name not in above + undefined)
    leak = len(above) == len(numbers) if gate.rule == "all_above" else bool(above)
    return MethodVerdict(leak, above, not_above, undefined)


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


def _mixture_caution(n_members: int, n_nonmembers: int, gate: GateConfig) -> str | None:
    """Unequal sides move accuracy and precision; enough of it lets an attack pass that knows nothing."""
    if not n_members or not n_nonmembers:
        return "only members or only non-members were scored: nothing can be said about telling them apart."
    share = n_members / (n_members + n_nonmembers)
    guess = next((word for word in ("member", "non-member") if _guess_passes(word, share, gate)), None)
    if guess:
        return (
            f"with {share:.1%} members among the scored samples, an attack that knows nothing and calls every sample a "
            f"{guess} passes this rule: a leak by it proves nothing. "
            "Score as many non-members as members, or judge by balanced_accuracy or auc."
        )
    if not _UNEQUAL[0] <= share <= _UNEQUAL[1]:
        return (
            f"{share:.1%} of the scored samples are members: accuracy and precision depend on that share. "
            "balanced_accuracy and auc do not."
        )
    return None


def _guess_passes(word: str, share: float, gate: GateConfig) -> bool:
    said_member = word == "member"
    values = {
        "accuracy": share if said_member else 1 - share,
        "precision": share if said_member else 0.0,
        "recall": 1.0 if said_member else 0.0,
        "balanced_accuracy": 0.5,
        "auc": 0.5,
        "advantage": 0.0,
    }
    estimates = {name: Estimate(value, value, value) for name, value in values.items()}
    return _judge(estimates, gate).leak


def _sampling_caution(
    leaking: Sequence[str], evaluations: Mapping[str, Mapping[str, Estimate]], gate: GateConfig
) -> str | None:
    if not leaking or gate.bound == "lower" or any(_judge(evaluations[m], gate, bound="lower").leak for m in leaking):
        return None
    return (
        "the leak could be sampling error: by the lower ends of the intervals no attack passes the rule. "
        "More samples would tell."
    )


def _undefined_caution(judged: Mapping[str, MethodVerdict]) -> str | None:
    parts = [f"{', '.join(outcome.undefined)} of {method}" for method, outcome in judged.items() if outcome.undefined]
    return f"without a value, and therefore counted as not above: {'; '.join(parts)}." if parts else None


def _augmentation_caution(augment_members: bool) -> str | None:
    if not augment_members:
        return None
    return "members were cropped and flipped, non-members were not (augment_members): the attacks may tell that apart."
