"""Whether "no leak" may be said of what the attacks have found: not if they miss a leak, or see it the wrong way round.

The gate's own rules are applied to two more kinds of attacks, which cost no fit:

- each attack turned round, by the negated scores. Attacks that look for higher scores of members alone say "no leak"
  where files or blocks of the sides were mixed up;
- what the model itself says of the labels (whether it is right, its confidence), where no attack was asked to look.

Their thresholds are fixed on one half of the scored samples and applied to the other. All their bounds together are
wrong with a probability of at most `gate.alpha`, so that a model without a leak is called doubtful no more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import Effects
from mia_batch.metrics.epsilon import choose_threshold
from mia_batch.metrics.ranking import best_threshold
from mia_batch.metrics.registry import evaluate
from mia_batch.verdict import sentences
from mia_batch.verdict.cautions import guess_caution
from mia_batch.verdict.evaluability import EXCHANGED
from mia_batch.verdict.joint import judge
from mia_batch.verdict.measures import Scored, apply, at_equal_sides
from mia_batch.verdict.privacy import delta_of
from mia_batch.verdict.rules import Gate, JointRule, Rule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Looks:
    """What to look at beside the attacks.

    Attributes:
        signals: by the attack that would look at it, what the model says of each scored sample, higher for members,
            shape (n_samples,).
        half: which of two halves each scored sample is in, groups whole, shape (n_samples,).
        effects: how many members, and non-members, count as one: see `metrics.base.thinned`.
    """

    signals: Mapping[str, Floats]
    half: NDArray[np.bool_]
    effects: Effects


def halves(n: int, group: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
    """Two halves of n samples by a fixed seed, shape (n,); samples of one group, numbered from 0, are in one."""
    size = n if group is None else int(group.max(initial=-1)) + 1
    coins = np.random.default_rng(1).random(size, dtype=np.float32) < 0.5
    return coins if group is None else coins[group]


def missed(attacks: Mapping[str, Scored], looks: Looks, gate: Gate) -> str:
    """Why it proves nothing that these attacks find no leak; "" if nothing speaks against it.

    Args:
        attacks: what each evaluable attack has said.
        looks: at the same scored samples.
        gate: whose rules are applied, each with a lower bound.
    """
    member = next((each.member for each in attacks.values()), np.zeros(0, dtype=bool))
    if any(member[looks.half == half].all() or not member[looks.half == half].any() for half in (True, False)):
        return ""  # too few to show anything
    others = {name: signal for name, signal in looks.signals.items() if name not in attacks}
    alpha = gate.alpha / (len(attacks) + 2 * len(others))
    for name, attack in attacks.items():
        turned = _fixed(member, -attack.scores, looks, gate)
        if shown := next(_turned_above(turned, gate, alpha), ""):
            return _wrong_way(name, shown)
    for name, signal in others.items():
        if shown := next(_above(_fixed(member, signal, looks, gate), gate, alpha), ""):
            return f"the attacks that were made miss a leak: {name} would have {shown}. Add the attack {name}."
        if shown := next(_turned_above(_fixed(member, -signal, looks, gate), gate, alpha), ""):
            return _wrong_way(name, shown)
    return ""


def _wrong_way(name: str, shown: str) -> str:
    return f"by {name} non-members look more like members than members do: turned round it has {shown}. {EXCHANGED}"


def _fixed(member: NDArray[np.bool_], scores: Floats, looks: Looks, gate: Gate) -> Scored:
    """An attack by these scores, its decisions by thresholds that were fixed on the other half."""
    predicted, extreme = np.zeros(len(member), dtype=bool), np.zeros(len(member), dtype=bool)
    for half in (True, False):
        rows, own, others = looks.half == half, member[looks.half != half], scores[looks.half != half]
        predicted[rows] = scores[rows] >= best_threshold(others, own.astype(np.int8))[0]
        extreme[rows] = scores[rows] >= choose_threshold(own, others, delta=delta_of(gate))
    return Scored(member, predicted, scores, {}, extreme, looks.effects)


def _turned_above(scored: Scored, gate: Gate, alpha: float) -> Iterator[str]:
    """What the scores of exchanged sides have above a level: by the gate's rules also where a joint one decides.

    At the level of balanced accuracy the AUC is looked at too, which no decision blurs.
    """
    own = next((rule.above for rule in gate.rules if rule.metric == "balanced_accuracy"), None)
    more = [] if own is None else [Rule("auc", own)]
    joint = _telling(scored, gate)
    yield from _by_rules(scored, [*gate.rules, *more], alpha / (2 if joint else 1))
    if joint:
        yield from _jointly(scored, joint, alpha / 2)


def _above(scored: Scored, gate: Gate, alpha: float) -> Iterator[str]:
    """What an attack has above a level by the rules that decide."""
    joint = _telling(scored, gate)
    if not joint or gate.tutorial:
        yield from _by_rules(scored, gate.rules, alpha / (2 if joint else 1))
    if joint:
        yield from _jointly(scored, joint, alpha / 2)


def _telling(scored: Scored, gate: Gate) -> JointRule | None:
    """The joint rule, unless an attack passes it that knows nothing."""
    return None if not gate.joint or guess_caution({"": scored}, gate.joint) else gate.joint


def _by_rules(scored: Scored, rules: Sequence[Rule], alpha: float) -> Iterator[str]:
    for rule in rules:
        bounded = replace(rule, bound="lower", decides="both")
        found = apply(bounded, scored, alpha_low=alpha / len(rules), alpha_high=alpha)
        if found.outcome == "leak":
            yield sentences.above(found)


def _jointly(scored: Scored, rule: JointRule, alpha: float) -> Iterator[str]:
    estimates = evaluate(
        scored.member, scored.predicted, scored.scores, names=rule.metrics, effects=scored.effects,
        level=1 - 2 * alpha / len(rule.metrics),
    )  # fmt: skip
    if judge(at_equal_sides(replace(scored, estimates=estimates)), rule, bound="lower").leak:
        shown = [
            f"{sentences.words(name)} {each.value:.4f} (at least {each.low:.4f})"
            for name, each in estimates.items() if each.low > rule.threshold
        ]
        yield f"{sentences.listed(shown)} above {rule.threshold:g}"
