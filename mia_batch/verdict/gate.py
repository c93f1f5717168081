"""The verdict: whether any attack tells members from non-members well enough to call the checkpoint leaking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.cautions import augmentation_caution, mixture_caution, sampling_caution, undefined_caution
from mia_batch.verdict.rules import Gate, Verdict, judge
from mia_batch.verdict.sentences import clear_sentence, leak_sentence


def decide(
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: Gate,
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
    judged = {method: judge(evaluations[method], gate) for method in methods}
    leaking = [method for method, outcome in judged.items() if outcome.leak]
    sentence = leak_sentence(leaking, judged, evaluations, gate) if leaking else clear_sentence(judged, gate)
    cautions = [
        mixture_caution(n_members, n_nonmembers, gate),
        sampling_caution(leaking, evaluations, gate),
        undefined_caution(judged),
        augmentation_caution(augment_members),
    ]
    return Verdict(bool(leaking), judged, sentence, tuple(text for text in cautions if text))
