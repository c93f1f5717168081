"""The verdict: whether any attack tells members from non-members well enough to call the checkpoint leaking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mia_batch.metrics.base import INDEPENDENT
from mia_batch.verdict import sentences
from mia_batch.verdict.baseline import Baseline
from mia_batch.verdict.cautions import all_cautions
from mia_batch.verdict.detectable import detectable_sentences
from mia_batch.verdict.joint import cannot_clear, judge
from mia_batch.verdict.measures import Scored, apply, at_equal_sides
from mia_batch.verdict.rules import OUTCOMES, Gate, JointRule, MethodVerdict, Verdict


@dataclass(frozen=True)
class Decision:
    """An outcome by one kind of rule, in words, and what it says of each attack."""

    leak: bool | None
    judged: dict[str, MethodVerdict]
    sentence: str


def decide(
    attacks: Mapping[str, Scored],
    gate: Gate,
    *,
    methods: Sequence[str],
    reasons: Mapping[str, str] = MappingProxyType({}),
    not_evaluable: str = "",
    too_weak: Callable[[], str] = str,
    cautions: Sequence[str] = (),
    baseline: Baseline | None = None,
) -> Verdict:
    """Apply the gate to every attack.

    LEAK if a rule finds one in any attack. Else NO LEAK ABOVE the levels if every attack is evaluable and, for each
    rule that clears, has an upper bound below its level. Else INCONCLUSIVE. A joint rule decides instead, by points;
    the outcome by `gate.rules` is then said beside it.

    Args:
        attacks: what each evaluable method has said.
        gate: fixed before the attacks were made.
        methods: the configured methods; the errors are divided by their number.
        reasons: by method that is not evaluable, why.
        not_evaluable: why the whole audit is not; "" if it is.
        too_weak: says why the attacks' finding nothing cannot be trusted, so that no kind of rule may say "no leak"; ""
            if it can. Called where one of them would.
        cautions: what else a reader must know, a sentence each.
        baseline: what tells the sides apart without the model; where that confounds the outcome there is none.

    Raises:
        ValueError: a configured method has neither scores nor a reason: silence is not "no leak".
    """
    _check_all_there(methods, attacks, reasons)
    scored = {method: attacks[method] for method in methods if method not in reasons}
    failed = {method: reasons[method] for method in methods if method in reasons}
    by_rules, decision = _decisions(scored, gate, failed, too_weak)
    if not not_evaluable and baseline is not None and baseline.confounds(decision.leak):
        not_evaluable = sentences.confounded(baseline)
    if not_evaluable:
        decision = replace(decision, leak=None, sentence=f"NOT EVALUABLE: {not_evaluable}")
    found = all_cautions(scored, decision.judged, failed, gate, leak=decision.leak)
    return Verdict(
        decision.leak, _with_rules(decision.judged, by_rules.judged), decision.sentence, (*cautions, *found), failed,
        () if not_evaluable else _notes(scored, gate, by_rules, decision, n_attacks=len(methods)),
        OUTCOMES[by_rules.leak] if gate.joint else None,
    )  # fmt: skip


def _decisions(
    scored: Mapping[str, Scored], gate: Gate, failed: Mapping[str, str], too_weak: Callable[[], str]
) -> tuple[Decision, Decision]:
    """By the gate's rules, and by what decides; neither is "no leak" where that cannot be trusted."""
    by_rules = decide_by_rules(scored, gate, failed)
    decision = decide_jointly(scored, gate.joint, failed) if gate.joint else by_rules
    why = too_weak() if False in (by_rules.leak, decision.leak) else ""
    by_rules = _not_passed(by_rules, why)
    if not gate.joint:
        return by_rules, by_rules
    return by_rules, _not_passed(_either(decision, by_rules) if gate.tutorial else decision, why)


def _not_passed(decision: Decision, why: str) -> Decision:
    """The decision; where it is "no leak" and there is a reason not to trust that, inconclusive."""
    if not why or decision.leak is not False:
        return decision
    return replace(decision, leak=None, sentence=f"INCONCLUSIVE: {why}")


def _check_all_there(methods: Sequence[str], *found: Mapping[str, object]) -> None:
    missing = [method for method in methods if not any(method in each for each in found)]
    if missing or not methods:
        raise ValueError(f"attacks: must hold every configured method, missing {', '.join(missing) or 'all'}")


def decide_by_rules(attacks: Mapping[str, Scored], gate: Gate, failed: Mapping[str, str]) -> Decision:
    """The three outcomes, with errors controlled over attacks and rules."""
    alpha_low = gate.leak_alpha(len(attacks) + len(failed))
    judged = {
        method: _by_rules(scored, gate, alpha_low=alpha_low, alpha_high=gate.alpha)
        for method, scored in attacks.items()
    }
    if any(each.leak for each in judged.values()):
        return Decision(True, judged, sentences.leak_by_rules(judged))
    doubts = any(each.outcome == "inconclusive" for outcome in judged.values() for each in outcome.rules)
    if failed or doubts or not judged:
        return Decision(None, judged, sentences.inconclusive_by_rules(judged, failed))
    return Decision(False, judged, sentences.no_leak_by_rules(judged, gate))


def _by_rules(scored: Scored, gate: Gate, *, alpha_low: float, alpha_high: float) -> MethodVerdict:
    outcomes = tuple(apply(rule, scored, alpha_low=alpha_low, alpha_high=alpha_high) for rule in gate.rules)
    above = tuple(each.rule for each in outcomes if each.outcome == "leak")
    undefined = tuple(each.rule for each in outcomes if each.value is None and each.low is None)
    not_above = tuple(each.rule for each in outcomes if each.rule not in above + undefined)
    return MethodVerdict(bool(above), above, not_above, undefined, outcomes)


def decide_jointly(attacks: Mapping[str, Scored], rule: JointRule, failed: Mapping[str, str]) -> Decision:
    """Leak or no leak by points, at equal sides; no leak only where decisions do not lean to one side."""
    evaluations = {method: at_equal_sides(scored) for method, scored in attacks.items()}
    judged = {method: judge(estimates, rule) for method, estimates in evaluations.items()}
    if any(each.leak for each in judged.values()):
        return Decision(True, judged, sentences.leak_by_joint(judged, evaluations, rule))
    sides = next((scored.sides for scored in attacks.values()), (0, 0))
    why = cannot_clear(rule, *sides) if judged else None
    if failed or why:
        return Decision(None, judged, sentences.inconclusive_by_joint(judged, failed, why, rule))
    return Decision(False, judged, sentences.no_leak_by_joint(judged, rule))


def _either(one: Decision, other: Decision) -> Decision:
    """A leak if one of them says so; where points cannot say it, the bounds do."""
    judged = {method: replace(each, leak=each.leak or other.judged[method].leak) for method, each in one.judged.items()}
    decides = other if (other.leak and not one.leak) or (one.leak is None and other.leak is False) else one
    return Decision(decides.leak, judged, decides.sentence)


def _with_rules(judged: Mapping[str, MethodVerdict], by_rules: Mapping[str, MethodVerdict]) -> dict[str, MethodVerdict]:
    """What decided, with the gate's rules beside it."""
    return {method: replace(outcome, rules=by_rules[method].rules) for method, outcome in judged.items()}


def _notes(
    attacks: Mapping[str, Scored], gate: Gate, by_rules: Decision, decision: Decision, *, n_attacks: int
) -> tuple[str, ...]:
    """What could have been found, and what "no leak" does not mean."""
    beside = gate.joint is not None and decision.sentence != by_rules.sentence
    first = next(iter(attacks.values()), None)
    m, n = first.sides if first else (0, 0)
    effects = first.effects if first else INDEPENDENT
    return (
        *([f"By the gate's rules instead: {by_rules.sentence}"] if beside else []),
        *([] if gate.joint and not gate.tutorial else detectable_sentences(
            gate, n_attacks=n_attacks, n_members=m, n_nonmembers=n, effects=effects
        )),
        *([] if decision.leak else [sentences.NO_PROOF]),
    )
