"""What a reader must know before relying on a verdict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from mia_batch.metrics.base import UndefinedMetricWarning
from mia_batch.metrics.registry import evaluate
from mia_batch.verdict.joint import judge
from mia_batch.verdict.measures import Scored, at_equal_sides, unequal
from mia_batch.verdict.rules import Gate, JointRule, MethodVerdict


def all_cautions(
    attacks: Mapping[str, Scored],
    judged: Mapping[str, MethodVerdict],
    failed: Mapping[str, str],
    gate: Gate,
    *,
    leak: bool | None,
) -> tuple[str, ...]:
    """A sentence each; `failed` are the reasons of what is not judged."""
    cautions = [
        _sides_caution(attacks),
        guess_caution(attacks, gate.joint) if gate.joint else None,
        _sampling_caution(attacks, judged, gate.joint) if gate.joint else None,
        _undefined_caution(judged),
        _unjudged_caution(failed) if leak else None,  # else the verdict's sentence says it
    ]
    return tuple(text for text in cautions if text)


def _sides_caution(attacks: Mapping[str, Scored]) -> str | None:
    """Unequal sides move accuracy and precision; the verdict does without them."""
    m, n = next((scored.sides for scored in attacks.values()), (0, 0))
    if not attacks or not unequal(m, n):
        return None
    if not m or not n:
        return "only members or only non-members were scored: nothing can be said about telling them apart."
    return (
        f"{m / (m + n):.1%} of the scored samples are members: accuracy and precision depend on that share, and the "
        "verdict takes them as with as many non-members as members. balanced_accuracy and auc do not depend on it."
    )


def guess_caution(attacks: Mapping[str, Scored], rule: JointRule) -> str | None:
    """A rule that lets an attack pass that knows nothing, as one about recall alone does."""
    scored = next(iter(attacks.values()), None)
    if scored is None or not all(scored.sides):
        return None
    for word, said in (("member", True), ("non-member", False)):
        guess = _guess(scored, said, rule)
        if judge(at_equal_sides(guess), rule, bound="point").leak:
            return (
                f"an attack that knows nothing and calls every sample a {word} passes this rule: a leak by it proves "
                "nothing. Judge by balanced_accuracy or auc."
            )
    return None


def _guess(scored: Scored, said: bool, rule: JointRule) -> Scored:
    n = len(scored.member)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        estimates = evaluate(scored.member, np.full(n, said), np.zeros(n), names=rule.metrics)
    return Scored(scored.member, np.full(n, said), np.zeros(n), estimates)


def _sampling_caution(
    attacks: Mapping[str, Scored], judged: Mapping[str, MethodVerdict], rule: JointRule
) -> str | None:
    """A leak by the values that the lower ends of the intervals do not bear out."""
    leaking = [method for method, outcome in judged.items() if outcome.leak]
    sure = (judge(at_equal_sides(attacks[method]), rule, bound="lower").leak for method in leaking)
    if not leaking or rule.bound == "lower" or any(sure):
        return None
    return (
        "the leak could be sampling error: by the lower ends of the intervals no attack passes the rule. "
        "More samples would tell."
    )


def _undefined_caution(judged: Mapping[str, MethodVerdict]) -> str | None:
    """Metrics of the rule that have no value."""
    parts = [f"{', '.join(outcome.undefined)} of {method}" for method, outcome in judged.items() if outcome.undefined]
    return f"without a value, and therefore counted as not above: {'; '.join(parts)}." if parts else None


def _unjudged_caution(reasons: Mapping[str, str]) -> str | None:
    """Attacks beside the leaking one that the verdict knows nothing of."""
    parts = [f"{method} ({reason})" for method, reason in reasons.items()]
    return f"not evaluable, and therefore not judged: {'; '.join(parts)}." if parts else None


def inclusion_caution(doubts: Mapping[str, str]) -> str | None:
    """Attacks by whose references' own answers the stated inclusion is not theirs, and what those answers say."""
    if not doubts:
        return None
    said = "; ".join(dict.fromkeys(doubts.values()))
    return (
        f"{said}. Either references.inclusion is in another order than the samples, or references have learned nothing "
        f"of single samples: whatever the model leaks, such attacks find nothing: {', '.join(doubts)}."
    )


AUGMENTED = (
    "members were cropped and flipped, non-members were not (augment_members): the attacks may tell that apart."
)
