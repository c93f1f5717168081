"""What a reader must know before relying on a verdict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import Estimate, UndefinedMetricWarning
from mia_batch.metrics.registry import evaluate
from mia_batch.verdict.rules import Gate, MethodVerdict, judge

# Shares of members from which on accuracy and precision are called dependent on the mixture.
_UNEQUAL = (0.45, 0.55)


def all_cautions(
    leaking: Sequence[str],
    judged: Mapping[str, MethodVerdict],
    failed: Mapping[str, str],
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: Gate,
    *,
    sides: tuple[int, int],
    augment_members: bool,
) -> tuple[str, ...]:
    """A sentence each; `sides` are the scored members and non-members, `failed` the reasons of what is not judged."""
    cautions = [
        _mixture_caution(*sides, gate) if judged else None,
        _sampling_caution(leaking, evaluations, gate),
        _undefined_caution(judged),
        _unjudged_caution(failed) if leaking else None,  # else the verdict's sentence says it
        _augmentation_caution(augment_members),
    ]
    return tuple(text for text in cautions if text)


def _mixture_caution(n_members: int, n_nonmembers: int, gate: Gate) -> str | None:
    """Unequal sides move accuracy and precision; enough of it lets an attack pass that knows nothing."""
    if not n_members or not n_nonmembers:
        return "only members or only non-members were scored: nothing can be said about telling them apart."
    share = n_members / (n_members + n_nonmembers)
    member = np.repeat([1, 0], [n_members, n_nonmembers])
    guess = next((word for word, said in (("member", 1), ("non-member", 0)) if _guess_passes(member, said, gate)), None)
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


def _guess_passes(member: NDArray[np.int_], said: int, gate: Gate) -> bool:
    """Whether an attack passes that says the same of every sample; a metric without a value is not above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        estimates = evaluate(member, np.full(len(member), said), np.zeros(len(member)), names=gate.metrics)
    return judge(estimates, gate, bound="point").leak


def _sampling_caution(
    leaking: Sequence[str], evaluations: Mapping[str, Mapping[str, Estimate]], gate: Gate
) -> str | None:
    """A leak by the values that the lower ends of the intervals do not bear out."""
    if not leaking or gate.bound == "lower" or any(judge(evaluations[m], gate, bound="lower").leak for m in leaking):
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


def _augmentation_caution(augment_members: bool) -> str | None:
    """A difference between members and non-members that the audit has made itself."""
    if not augment_members:
        return None
    return "members were cropped and flipped, non-members were not (augment_members): the attacks may tell that apart."
