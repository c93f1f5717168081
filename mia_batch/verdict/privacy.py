"""What an audit says of differential privacy: figures of epsilon, and whether they contradict a claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mia_batch.metrics.base import LEVEL, Estimate
from mia_batch.metrics.epsilon import AT_DELTA_0, Guesses, one_run_epsilon
from mia_batch.metrics.registry import EPSILONS, bounded, views
from mia_batch.verdict.measures import Bounds, Scored
from mia_batch.verdict.rules import RULES, Claim, ClaimVerdict, Gate, Verdict

FAIR_LEVEL = 0.01  # error of calling fair coins unfair
NOT_RANDOMISED = "inclusion was not randomised (data.randomised, data.canaries)"
APART = (
    "coins are said to have decided which samples are members, yet no split has samples on both sides. The train and "
    "test records of a published data set were not drawn so."
)
PROVES_NOTHING = "That proves nothing: another attack may find more."


@dataclass(frozen=True)
class Randomised:
    """Samples of which fair coins are said to have decided whether they are members.

    Attributes:
        scored: which of the scored samples they are, shape (n_scored,).
        n_members: of them all, scored or not.
        n_nonmembers: likewise.
        apart: no split has samples of both sides.
    """

    scored: NDArray[np.bool_]
    n_members: int
    n_nonmembers: int
    apart: bool = False

    @property
    def unfair(self) -> str | None:
        """Why it cannot have been fair coins (an exact binomial test at `FAIR_LEVEL`); None where it can."""
        total = self.n_members + self.n_nonmembers
        if total and stats.binomtest(self.n_members, total).pvalue > FAIR_LEVEL:
            return None
        return (
            f"{self.n_members} of the {total} samples that are said to be randomised are members, which is not by fair "
            f"coins (exact binomial test at {FAIR_LEVEL:g})"
        )


def randomised_samples(
    which: NDArray[np.bool_], member: NDArray[np.int8], split: NDArray[np.str_], scored: NDArray[np.bool_]
) -> Randomised | None:
    """Those of the audit's samples, shape (n_samples,) each; None without any."""
    if not which.any():
        return None
    sides = [member[which & (split == name)] for name in np.unique(split[which])]
    n_members = int((member[which] == 1).sum())
    apart = not any(0 < side.sum() < len(side) for side in sides)
    return Randomised(which[scored], n_members, int(which.sum()) - n_members, apart)


@dataclass(frozen=True)
class Privacy:
    """What one attack says of epsilon, each figure at `LEVEL` for itself.

    Attributes:
        delta: that the figures are at.
        figures: by name, as in `metrics.registry.EPSILONS`; of one-run bounds only `low` is known.
        guesses: of the one-run audit; None where inclusion was not randomised.
    """

    delta: float
    figures: dict[str, Estimate | Bounds]
    guesses: Guesses | None = None


@dataclass(frozen=True)
class PrivacyAudit:
    """What an audit says of epsilon.

    Attributes:
        by_method: of each evaluable attack.
        randomised: the samples whose inclusion is said to have been randomised; None without any.
        claim: what it says of a claim; None where none was made.
    """

    by_method: Mapping[str, Privacy]
    randomised: Randomised | None = None
    claim: ClaimVerdict | None = None


def delta_of(gate: Gate) -> float:
    """The delta of the gate's rule about epsilon, or of the default gate's."""
    return next(rule.delta or 0.0 for rule in (*gate.rules, *RULES) if rule.metric == "epsilon")


def privacy(
    scored: Scored, *, delta: float, randomised: Randomised | None = None, names: Collection[str] = EPSILONS
) -> Privacy:
    """Every figure of epsilon of one attack, or those asked for.

    Args:
        scored: what the attack has said.
        delta: in [0, 1).
        randomised: whose inclusion was by coins; one-run bounds are made where the coins can have been fair.
        names: of `metrics.registry.EPSILONS`.

    Warns:
        UndefinedMetricWarning: with one class only.
    """
    guesses = scored.guesses(randomised.scored) if randomised and not randomised.unfair else None
    figures: dict[str, Estimate | Bounds] = {}
    for name, figure in EPSILONS.items():
        if name not in names:
            continue
        if figure.of_counts:
            figures[name] = scored.epsilon(figure.of_counts, delta=delta, level=LEVEL)
        elif figure.of_ranks and scored.ranks is not None:
            compute = partial(figure.of_ranks, delta=delta, level=LEVEL)
            figures[name] = bounded(compute, *views(scored.member, scored.ranks, scored.effects))
        elif figure.of_guesses and guesses:
            nothing = Bounds(math.nan, math.nan, math.nan, AT_DELTA_0)
            figures[name] = nothing if figure.needs_delta and not delta else _one_run(figure.of_guesses, guesses, delta)
    return Privacy(delta, figures, guesses)


def _one_run(bound: Callable[..., float], guesses: Guesses, delta: float) -> Bounds:
    return Bounds(math.nan, bound(guesses, delta=delta, level=LEVEL), math.inf)


def judge_claim(
    claim: Claim, attacks: Mapping[str, Scored], randomised: Randomised | None, *,
    n_attacks: int, alpha: float, not_evaluable: bool = False,
) -> ClaimVerdict:
    """Whether the largest one-run bound of the attacks, each at alpha / n_attacks, exceeds the claimed epsilon.

    The bound of Steinke et al. 2023 decides, which holds for every algorithm; the attacks' other figures do not bound
    what one training run has done.

    Args:
        claim: made before the audit.
        attacks: what each evaluable attack has said.
        randomised: whose inclusion was by coins; None where nobody says so.
        n_attacks: how many were to be made, evaluable or not.
        alpha: how often a true claim may be contradicted.
        not_evaluable: the whole audit means nothing.
    """
    said = f"epsilon {claim.epsilon:g} at delta {claim.delta:g}"
    why = _cannot_judge(attacks, randomised, not_evaluable)
    if why or randomised is None:
        return ClaimVerdict(claim, None, None, None, f"The claim of {said} cannot be judged: {why}.")
    level = 1 - alpha / n_attacks
    guesses = {name: scored.guesses(randomised.scored) for name, scored in attacks.items()}
    lows = {name: one_run_epsilon(each, delta=claim.delta, level=level) for name, each in guesses.items()}
    best = max(lows, key=lambda name: lows[name])
    low, each = lows[best], guesses[best]
    found = (
        f"epsilon is at least {low:.4f} by {best} ({each.n_right} of {each.n_guesses} guesses right, one run, "
        f"{each.n_canaries} randomised samples, error {alpha:g} over {n_attacks} attack{'s' * (n_attacks > 1)})"
    )
    if low > claim.epsilon:
        return ClaimVerdict(claim, True, low, best, f"CLAIM CONTRADICTED: {found}, and {said} is claimed.")
    sentence = f"The claim of {said} is not contradicted: {found}. {PROVES_NOTHING}"
    return ClaimVerdict(claim, False, low, best, sentence)


def _cannot_judge(attacks: Mapping[str, Scored], randomised: Randomised | None, not_evaluable: bool) -> str | None:
    if not_evaluable or not attacks:
        return "the audit is not evaluable"
    if randomised is None:
        return NOT_RANDOMISED
    return randomised.unfair or (None if randomised.scored.any() else "no randomised sample is scored")


def with_privacy(verdict: Verdict, audit: PrivacyAudit) -> Verdict:
    """The verdict where a claim was made: a contradiction is a finding like a leak, whatever the gate says.

    One that cannot be judged leaves no clean audit, as an attack does that is not evaluable.
    """
    if audit.randomised and audit.randomised.apart:
        verdict = replace(verdict, cautions=(*verdict.cautions, APART))
    found = audit.claim
    if found is None:
        return verdict
    if verdict.leak or found.contradicted is False or (verdict.leak is None and not found.contradicted):
        return replace(verdict, notes=(found.sentence, *verdict.notes))
    doubt = "" if found.contradicted else "INCONCLUSIVE: "
    return replace(
        verdict, leak=found.contradicted, sentence=f"{doubt}{found.sentence} By the gate: {verdict.sentence}",
        by_rules=verdict.by_rules or verdict.outcome,
    )  # fmt: skip
