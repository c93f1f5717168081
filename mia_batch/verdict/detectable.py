"""What an audit can find at all, before it is made: the effect and the number of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from mia_batch.metrics.base import INDEPENDENT, Effects
from mia_batch.verdict.rules import Gate, Rule
from mia_batch.verdict.sentences import listed, words

POWER = 0.8  # with which an effect is called detectable
PASSING = 0.9  # with which a model without a leak should pass


def detectable_accuracy(
    limit: float, n_members: float, n_nonmembers: float, *, alpha: float, power: float = POWER
) -> float:
    """The balanced accuracy of one attack that is found to exceed `limit` with probability `power`.

    Args:
        limit: in (0, 1).
        n_members: scored, as many as are independent.
        n_nonmembers: likewise.
        alpha: error of the one lower bound.
        power: in (0.5, 1).

    Returns:
        It may exceed 1: then nothing is detectable.
    """
    spread = math.sqrt(limit * (1 - limit) * (1 / n_members + 1 / n_nonmembers)) / 2
    return limit + float(stats.norm.isf(alpha) + stats.norm.ppf(power)) * spread


def samples_to_pass(limit: float, *, n_attacks: int, alpha: float, probability: float = PASSING) -> float:
    """How many scored samples a side let a model without any leak pass with `probability`; infinite for a limit of .5.

    Every attack's balanced accuracy, .5 in truth, must have an upper bound at `alpha` under the limit.
    """
    if limit <= 0.5:
        return math.inf
    reach = float(stats.norm.isf(alpha) + stats.norm.isf((1 - probability) / n_attacks))
    return reach**2 / (8 * (limit - 0.5) ** 2)


def accuracy_rule(gate: Gate) -> Rule | None:
    """The rule that both are said of."""
    return next((rule for rule in gate.rules if rule.metric == "balanced_accuracy" and rule.bound == "lower"), None)


@dataclass(frozen=True)
class Detectable:
    """What the scored samples let an audit find, and when it can pass, by balanced accuracy.

    Attributes:
        effect: the balanced accuracy that one attack finds with probability `POWER`; above 1 nothing is found; None
            where the rule finds no leak.
        needed: scored samples a side from which on a model without any leak passes with probability `PASSING`; infinite
            where no number does; None where the rule rules none out.
    """

    effect: float | None
    needed: float | None


def detectable(
    gate: Gate, *, n_attacks: int, n_members: int, n_nonmembers: int, effects: Effects = INDEPENDENT
) -> Detectable | None:
    """None without a rule about balanced accuracy, or without samples of both sides."""
    rule = accuracy_rule(gate)
    if rule is None or not n_members or not n_nonmembers:
        return None
    independent, alpha = (n_members / effects[0], n_nonmembers / effects[1]), gate.leak_alpha(n_attacks)
    return Detectable(
        detectable_accuracy(rule.above, *independent, alpha=alpha) if rule.finds else None,
        max(effects) * samples_to_pass(rule.above, n_attacks=n_attacks, alpha=gate.alpha) if rule.clears else None,
    )


def detectable_sentences(
    gate: Gate, *, n_attacks: int, n_members: int, n_nonmembers: int, effects: Effects = INDEPENDENT
) -> tuple[str, ...]:
    """What the audit can find and when it can pass; empty without a rule about balanced accuracy."""
    found = detectable(gate, n_attacks=n_attacks, n_members=n_members, n_nonmembers=n_nonmembers, effects=effects)
    said = []
    if found and found.effect is not None:
        what = f"a balanced accuracy of {found.effect:.3f}" if found.effect < 1 else "no balanced accuracy at all"
        sides = f"{n_members} members and {n_nonmembers} non-members"
        said.append(f"With {sides} scored, one attack finds {what} with a probability of {POWER:.0%}.")
    if found and found.needed is not None:
        said.append(_passing_sentence(gate, found.needed))
    return tuple(said)


def _passing_sentence(gate: Gate, needed: float) -> str:
    """The formula counts the upper bounds of balanced accuracy alone: with 4 attacks, 83 % pass then and not 90 %."""
    if not math.isfinite(needed):
        return "No number of samples lets a model pass by its balanced accuracy."
    others = [words(rule.name) for rule in gate.rules if rule.clears and rule.metric != "balanced_accuracy"]
    more = f"; the level of {listed(others)} may ask for more" if others else ""
    return (
        f"By balanced accuracy alone, a model without any leak passes with a probability of {PASSING:.0%} from "
        f"{needed:.0f} scored samples a side on{more}."
    )


def unlikely_to_pass(
    gate: Gate, *, n_attacks: int, n_members: int, n_nonmembers: int, effects: Effects = INDEPENDENT
) -> str | None:
    """A warning where the samples are too few for "no leak", even without a leak."""
    rule = accuracy_rule(gate)
    if rule is None or not rule.clears:
        return None
    needed = max(effects) * samples_to_pass(rule.above, n_attacks=n_attacks, alpha=gate.alpha)
    fewest = min(n_members, n_nonmembers)
    if fewest >= needed:
        return None
    return (
        f"even a model without any leak will often be INCONCLUSIVE: {fewest} samples of a side are scored, and it "
        f"takes {needed:.0f}. Give more samples, or score more of them (attack.eval, attack.eval_fraction)."
    )
