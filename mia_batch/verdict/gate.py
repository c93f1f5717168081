"""The verdict: whether any attack tells members from non-members well enough to call the checkpoint leaking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mia_batch.metrics.base import Estimate
from mia_batch.verdict.cautions import all_cautions
from mia_batch.verdict.rules import Gate, Verdict, judge
from mia_batch.verdict.sentences import clear_sentence, inconclusive_sentence, leak_sentence


def decide(
    evaluations: Mapping[str, Mapping[str, Estimate]],
    gate: Gate,
    *,
    methods: Sequence[str],
    n_members: int,
    n_nonmembers: int,
    augment_members: bool = False,
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Apply the rule to every method; the audit leaks if any method does, and else cannot say if one is not evaluable.

    MindArmour's tutorial calls a model leaking when accuracy, precision and recall of an attack are all above 0.6: rule
    `all_above`. `any_above` asks for one of them. With bound `lower` the lower end of the interval counts instead of
    the value. Above means greater, not equal; a metric without a value is never above.

    Args:
        evaluations: metrics by method that is evaluable, as of `metrics.registry.evaluate`.
        gate: rule, threshold, metrics and bound.
        methods: the configured methods.
        n_members: scored members.
        n_nonmembers: scored non-members.
        augment_members: whether members, and only they, were cropped and flipped.
        reasons: by method that is not evaluable, why.

    Raises:
        ValueError: a configured method has neither evaluation nor reason: silence is not "no leak".
    """
    missing = [method for method in methods if method not in evaluations and method not in reasons]
    if missing or not methods:
        raise ValueError(f"evaluations: must hold every configured method, missing {', '.join(missing) or 'all'}")
    judged = {method: judge(evaluations[method], gate) for method in methods if method not in reasons}
    failed = {method: reasons[method] for method in methods if method in reasons}
    leaking = [method for method, outcome in judged.items() if outcome.leak]
    cautions = all_cautions(
        leaking, judged, failed, evaluations, gate, sides=(n_members, n_nonmembers), augment_members=augment_members
    )
    if leaking:
        return Verdict(True, judged, leak_sentence(leaking, judged, evaluations, gate), cautions, failed)
    if failed:
        return Verdict(None, judged, inconclusive_sentence(failed, judged, gate), cautions, failed)
    return Verdict(False, judged, clear_sentence(judged, gate), cautions)
