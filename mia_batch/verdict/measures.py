"""THE list of what a gate's rules may measure. None of it depends on how many members there are for a non-member."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import INDEPENDENT, Effects, Estimate, count
from mia_batch.metrics.classification import balanced_accuracy, balanced_accuracy_bounds, predictive_value
from mia_batch.metrics.epsilon import Guesses, attack_implied_epsilon, extreme_guesses
from mia_batch.metrics.ranking import advantage, auc, tpr_at_fpr, tpr_at_fpr_bounds
from mia_batch.metrics.registry import Pair, bounded, views
from mia_batch.verdict.rules import Rule, RuleOutcome

# Shares of members outside which the sides are unequal: decisions and mixtures lean to the larger one.
EQUAL_SIDES = (0.45, 0.55)


@dataclass(frozen=True)
class Scored:
    """What one attack has said of the scored samples.

    Attributes:
        member: membership, shape (n_samples,).
        predicted: its own decisions, shape (n_samples,).
        scores: shape (n_samples,), higher for members.
        estimates: its metrics, as of `metrics.registry.evaluate`.
        extreme: decisions that epsilon is of, by a threshold that was fixed on other samples, shape (n_samples,); None
            for the attack's own.
        effects: how many members, and non-members, count as one in a bound: of groups, and of cross-fitted scores.
        one_split: samples that the same models have scored, shape (n_samples,); None where all are.
        ranks: of cross-fitted scores among the non-members of other splits, shape (n_samples,); None of others.
    """

    member: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    scores: NDArray[np.float64]
    estimates: Mapping[str, Estimate]
    extreme: NDArray[np.bool_] | None = None
    effects: Effects = INDEPENDENT
    one_split: NDArray[np.bool_] | None = None
    ranks: NDArray[np.float64] | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """Members and non-members."""
        return int(self.member.sum()), int((~self.member).sum())

    @property
    def said(self) -> NDArray[np.bool_]:
        """The decisions that epsilon is of."""
        return self.predicted if self.extreme is None else self.extreme

    def ends(self, values: NDArray[Any]) -> tuple[Pair, Pair]:
        """Membership and values that a lower bound is of, and an upper one: see `metrics.registry.views`."""
        pairs = views(self.member, values, self.effects)
        return pairs[min(1, len(pairs) - 1)], pairs[-1]

    def epsilon(self, figure: Callable[..., Estimate], *, delta: float, level: float) -> Estimate:
        """A figure of epsilon that is made from the counts of `said`."""
        return bounded(
            lambda member, said: figure(count(member, said), delta=delta, level=level),
            *views(self.member, self.said, self.effects),
        )

    def guesses(self, among: NDArray[np.bool_]) -> Guesses:
        """Guesses of a one-run audit `among` some of the scored samples: every one-run bound is made from these.

        Of cross-fitted scores only one split's are used: a sample of another split has fitted the models that score
        these, so that its coin would have a part in their guesses.
        """
        chosen = among if self.one_split is None else among & self.one_split
        return extreme_guesses(self.member[chosen], self.scores[chosen])


@dataclass(frozen=True)
class Bounds:
    """A value with a lower bound and an upper one, each at a level of its own; NaN where there is none."""

    value: float
    low: float
    high: float
    reason: str | None = None


Compute = Callable[[Scored, Rule, float, float], Bounds]  # with the errors of the lower and of the upper bound


@dataclass(frozen=True)
class Measure:
    """What a rule may be about.

    Attributes:
        compute: the bounds for one attack.
        decides: what a rule decides that does not say.
        needs: keys of a rule that must be given, beside `above`.
        takes: keys that may be given.
        lowest, highest: levels that a rule may set.
        has_upper: whether there is an upper bound, which alone can rule a leak out.
    """

    compute: Compute
    decides: str = "both"
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    lowest: float = 0.0
    highest: float = 1.0
    has_upper: bool = True


def unequal(n_members: int, n_nonmembers: int) -> bool:
    """Whether one side is so much larger that an attack's own decisions lean to it."""
    total = n_members + n_nonmembers
    return not total or not EQUAL_SIDES[0] <= n_members / total <= EQUAL_SIDES[1]


def _balanced_accuracy(scored: Scored, rule: Rule, alpha_low: float, alpha_high: float) -> Bounds:
    """With unequal sides a decision leans to the larger one: then the best threshold's accuracy bounds from above."""
    value = balanced_accuracy(scored.member, scored.predicted).value
    errors = {"alpha_low": alpha_low, "alpha_high": alpha_high}
    low, high = _ends(scored, scored.predicted, partial(balanced_accuracy_bounds, **errors))
    reason = None
    if unequal(*scored.sides):
        best = advantage(*scored.ends(scored.scores)[1], level=1 - 2 * alpha_high)
        high = max(high, (1 + best.high) / 2)
        reason = "the sides are unequal, so that the upper bound is of the best threshold instead of the decisions"
    return Bounds(value, low, high, reason)


def _tpr_at_fpr(scored: Scored, rule: Rule, alpha_low: float, alpha_high: float) -> Bounds:
    fpr = rule.fpr or 0.0
    found = tpr_at_fpr(scored.member, scored.scores, fpr)
    bounds = partial(tpr_at_fpr_bounds, fpr=fpr, alpha_low=alpha_low, alpha_high=alpha_high)
    low, high = _ends(scored, scored.scores, bounds)
    return Bounds(found.value, low, high, found.reason)


def _epsilon(scored: Scored, rule: Rule, alpha_low: float, alpha_high: float) -> Bounds:
    found = scored.epsilon(attack_implied_epsilon, delta=rule.delta or 0.0, level=1 - alpha_low)
    return Bounds(found.value, found.low, found.high, found.reason)


def _ends(
    scored: Scored, values: NDArray[Any], bounds: Callable[..., tuple[float, float]]
) -> tuple[float, float]:
    """The lower bound of what is taken against the attack, and the upper one of what is taken for it."""
    against, generous = scored.ends(values)
    return bounds(*against)[0], bounds(*generous)[1]


def _by_scores(metric: Callable[..., Estimate]) -> Compute:
    def compute(scored: Scored, rule: Rule, alpha_low: float, alpha_high: float) -> Bounds:
        value, (against, generous) = metric(scored.member, scored.scores), scored.ends(scored.scores)
        low, high = metric(*against, level=1 - 2 * alpha_low), metric(*generous, level=1 - 2 * alpha_high)
        return Bounds(value.value, low.low, high.high, value.reason)

    return compute


MEASURES: dict[str, Measure] = {
    "balanced_accuracy": Measure(_balanced_accuracy, lowest=0.5),
    "tpr_at_fpr": Measure(_tpr_at_fpr, decides="no_leak", needs=("fpr",)),
    "epsilon": Measure(_epsilon, decides="leak", takes=("delta",), highest=math.inf, has_upper=False),
    "auc": Measure(_by_scores(auc), lowest=0.5),
    "advantage": Measure(_by_scores(advantage)),
}


def apply(rule: Rule, scored: Scored, *, alpha_low: float, alpha_high: float) -> RuleOutcome:
    """What a rule says of an attack."""
    if not all(scored.sides):
        side = "no members" if scored.sides[1] else "no non-members"
        return RuleOutcome(rule.name, rule.above, None, None, None, "inconclusive", f"{side} among the scored samples")
    found = MEASURES[rule.metric].compute(scored, rule, alpha_low, alpha_high)
    low, high = (found.low, found.high) if rule.bound == "lower" else (found.value, found.value)
    leak = rule.finds and low > rule.above
    clear = high < rule.above or (rule.bound == "point" and high == rule.above)
    outcome = "leak" if leak else "not above" if not rule.clears else "no leak" if clear else "inconclusive"
    value, lower, upper = (number if math.isfinite(number) else None for number in (found.value, found.low, found.high))
    return RuleOutcome(rule.name, rule.above, value, lower, upper, outcome, found.reason)


def at_equal_sides(scored: Scored) -> dict[str, Estimate]:
    """The attack's metrics as with as many non-members as members; the same numbers where that is so.

    Accuracy and precision depend on that share: with four members to a non-member, an attack that knows nothing and
    calls every sample a member has .8 of both.
    """
    estimates = dict(scored.estimates)
    if scored.sides[0] == scored.sides[1] or not all(scored.sides):
        return estimates
    looked_at = views(scored.member, scored.predicted, scored.effects)
    estimates["accuracy"] = bounded(balanced_accuracy, *looked_at)
    if "precision" in estimates and estimates["precision"].defined:
        estimates["precision"] = bounded(partial(predictive_value, prior=0.5), *looked_at)
    return estimates
