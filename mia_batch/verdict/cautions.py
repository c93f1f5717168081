"""What a reader must know before relying on a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.rules import Gate, MethodVerdict, judge

# Shares of members from which on accuracy and precision are called dependent on the mixture.
_UNEQUAL = (0.45, 0.55)


def mixture_caution(n_members: int, n_nonmembers: int, gate: Gate) -> str | None:
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


def _guess_passes(word: str, share: float, gate: Gate) -> bool:
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
    return judge(estimates, gate).leak


def sampling_caution(
    leaking: Sequence[str], evaluations: Mapping[str, Mapping[str, Estimate]], gate: Gate
) -> str | None:
    """A leak by the values that the lower ends of the intervals do not bear out."""
    if not leaking or gate.bound == "lower" or any(judge(evaluations[m], gate, bound="lower").leak for m in leaking):
        return None
    return (
        "the leak could be sampling error: by the lower ends of the intervals no attack passes the rule. "
        "More samples would tell."
    )


def undefined_caution(judged: Mapping[str, MethodVerdict]) -> str | None:
    """Metrics of the rule that have no value."""
    parts = [f"{', '.join(outcome.undefined)} of {method}" for method, outcome in judged.items() if outcome.undefined]
    return f"without a value, and therefore counted as not above: {'; '.join(parts)}." if parts else None


def augmentation_caution(augment_members: bool) -> str | None:
    """A difference between members and non-members that the audit has made itself."""
    if not augment_members:
        return None
    return "members were cropped and flipped, non-members were not (augment_members): the attacks may tell that apart."
