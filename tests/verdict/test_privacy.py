"""Figures of epsilon and claims: known answers, coins that are none, and how often a true claim is contradicted."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from simulated_attacks import decisions, scored, verdict_of

from mia_batch.metrics import epsilon
from mia_batch.metrics.epsilon import Guesses
from mia_batch.metrics.registry import EPSILONS
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.privacy import (
    APART,
    PrivacyAudit,
    Randomised,
    delta_of,
    judge_claim,
    privacy,
    randomised_samples,
    with_privacy,
)
from mia_batch.verdict.rules import Claim, ClaimVerdict, Gate, Rule

DELTA = 1e-5


def exact(tp: int, fn: int, fp: int, tn: int) -> Scored:
    """An attack with these counts."""
    member = np.repeat([True, False], [tp + fn, fp + tn])
    return scored(member, np.repeat([True, False, True, False], [tp, fn, fp, tn]))


def coins(n: int, *, n_members: int | None = None) -> Randomised:
    """All of `n` scored samples, and no others."""
    m = n // 2 if n_members is None else n_members
    return Randomised(np.ones(n, dtype=bool), m, n - m)


def sides(n: int) -> np.ndarray:
    return np.repeat([True, False], [n // 2, n - n // 2])


def response(rng: np.random.Generator, member: np.ndarray, eps: float) -> Scored:
    """Randomised response with a sure sign and a random size, which is eps-DP for each sample."""
    right = rng.random(len(member)) < 1 / (1 + math.exp(-eps))
    return scored(member, member == right, np.where(member == right, 1, -1) * (1 + rng.random(len(member))))


def test_the_figures_are_the_known_answers() -> None:
    found = privacy(exact(300, 700, 10, 990), delta=DELTA)
    assert found.guesses is None
    assert list(found.figures) == [name for name, figure in EPSILONS.items() if figure.of_counts]
    assert found.figures["mu"].low == pytest.approx(1.48228737, abs=1e-8)
    assert found.figures["epsilon_gaussian"].low == pytest.approx(6.951972, abs=1e-6)
    credible = privacy(exact(300, 700, 10, 990), delta=0.0).figures["epsilon_credible"]
    assert (credible.low, credible.high) == pytest.approx((2.823, 4.070), abs=5e-4)
    low = stats.beta.ppf(0.025, 300, 701)
    high = stats.beta.ppf(0.975, 11, 990)
    assert found.figures["epsilon"].low == pytest.approx(math.log((low - DELTA) / high), abs=1e-9)
    assert found.figures["epsilon"].value == pytest.approx(math.log((0.3 - DELTA) / 0.01), abs=1e-9)


def test_one_run_bounds_are_of_the_extremes_of_the_randomised() -> None:
    member = np.tile([True, False], 500)
    ranks = np.argsort(np.argsort(-member.astype(float) + 1e-9 * np.arange(1000)))
    attack = scored(member, member, -ranks)
    found = privacy(attack, delta=DELTA, randomised=coins(1000))
    assert found.guesses == Guesses(1000, 200, 200)
    assert found.figures["epsilon_one_run"].low == epsilon.one_run_epsilon(Guesses(1000, 200, 200), delta=DELTA)
    gaussian = epsilon.one_run_epsilon_fdp(Guesses(1000, 200, 200), delta=DELTA)
    assert found.figures["epsilon_one_run_gaussian"].low == gaussian
    some = replace(coins(1000), scored=np.arange(1000) < 300)
    assert privacy(attack, delta=DELTA, randomised=some).guesses == Guesses(300, 60, 60)


def test_without_fair_coins_there_is_no_one_run_bound() -> None:
    assert coins(1000, n_members=458).unfair is not None
    assert coins(1000, n_members=459).unfair is None
    assert stats.binomtest(458, 1000).pvalue < 0.01 < stats.binomtest(459, 1000).pvalue
    found = privacy(exact(300, 700, 10, 990), delta=DELTA, randomised=coins(2000, n_members=1100))
    assert found.guesses is None
    assert "epsilon_one_run" not in found.figures


def test_at_delta_0_a_gaussian_has_no_epsilon() -> None:
    found = privacy(exact(300, 700, 10, 990), delta=0.0, randomised=coins(2000))
    for name in ("epsilon_gaussian", "epsilon_one_run_gaussian"):
        assert math.isnan(found.figures[name].low)
        assert found.figures[name].reason == "at delta 0 no Gaussian mechanism has an epsilon"
    assert not math.isnan(found.figures["epsilon_one_run"].low)


def test_the_delta_is_that_of_the_gates_rule() -> None:
    balanced = Rule("balanced_accuracy", 0.6)
    assert delta_of(Gate((balanced, Rule("epsilon", 1, delta=1e-3)))) == 1e-3
    assert delta_of(Gate((balanced, Rule("epsilon", 1)))) == 0.0
    assert delta_of(Gate((balanced,))) == DELTA


class TestGuesses:
    def test_highest_are_members_and_lowest_are_not(self) -> None:
        member = np.array([1, 1, 0, 0, 1, 0, 0, 1, 1, 0])
        scores = np.array([9, 8, 7, 0, 1, 2, 4, 4.1, 4.2, 4.3])
        assert epsilon.extreme_guesses(member, scores, share=0.3) == Guesses(10, 6, 4)
        assert epsilon.extreme_guesses(member, scores) == Guesses(10, 2, 2)
        assert epsilon.extreme_guesses(member[:9], scores[:9]) == Guesses(9, 0, 0)
        assert epsilon.extreme_guesses([], []) == Guesses(0, 0, 0)

    @pytest.mark.parametrize("n", [100, 1000, 4000])
    @pytest.mark.parametrize("first", [True, False])
    def test_equal_scores_know_nothing_whatever_the_order_of_rows(self, n: int, first: bool) -> None:
        found = epsilon.extreme_guesses(sides(n) == first, np.zeros(n))
        assert abs(found.n_right / found.n_guesses - 0.5) < 4 * 0.5 / math.sqrt(found.n_guesses)

    @pytest.mark.parametrize("share", [0.0, 0.6, math.nan])
    def test_a_share_that_is_none(self, share: float) -> None:
        with pytest.raises(ValueError, match="share: must be in"):
            epsilon.extreme_guesses([1, 0], [1.0, 0.0], share=share)

    @pytest.mark.parametrize("m", [40, 80, 200, 1000])
    def test_a_stratified_split_keeps_the_error(self, m: int) -> None:
        """As many members as non-members are scored, not a coin for each: enumerated where scores know nothing."""
        k, mass = m // 10, np.zeros(m // 5 + 1)
        for top in range(k + 1):
            low = np.arange(k + 1)
            share = stats.hypergeom.pmf(top, m, m // 2, k) * stats.hypergeom.pmf(low, m - k, m // 2 - top, k)
            mass[top + k - low] += share
        assert mass.sum() == pytest.approx(1)
        wrong = [epsilon.one_run_epsilon(Guesses(m, 2 * k, v)) > 0 for v in range(2 * k + 1)]
        assert 0.02 < mass[wrong].sum() <= 0.05


def judged(attacks: Mapping[str, Scored], claim: Claim, randomised: Randomised | None = None) -> ClaimVerdict:
    n = len(next(iter(attacks.values())).member)
    return judge_claim(claim, attacks, randomised or coins(n), n_attacks=len(attacks), alpha=0.05)


class TestClaims:
    @pytest.mark.parametrize("truth", [0.0, 1.0])
    def test_randomised_response_is_contradicted_seldom_at_its_epsilon_and_mostly_far_below(self, truth: float) -> None:
        rng, trials = np.random.default_rng(8), 600
        found = [
            judged({name: response(rng, sides(400), truth) for name in "ab"}, Claim(truth, 0.0)).contradicted
            for _ in range(trials)
        ]
        assert np.mean(found) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
        weak = [judged({"a": response(rng, sides(400), truth + 2)}, Claim(truth, 0.0)).contradicted for _ in range(50)]
        assert np.mean(weak) > 0.9

    @pytest.mark.parametrize("truth", [0.5, 2.0])
    def test_laplace_noise_is_contradicted_seldom_at_its_epsilon(self, truth: float) -> None:
        """Counts 0 or 1 with noise of scale 1 / eps, coins as they fall."""
        rng, trials = np.random.default_rng(9), 600
        wrong, lows = 0, []
        for _ in range(trials):
            member = rng.random(300) < 0.5
            attack = scored(member, member, member + rng.laplace(scale=1 / truth, size=300))
            found = judged({"a": attack}, Claim(truth, DELTA), coins(300, n_members=int(member.sum())))
            if found.contradicted is not None:
                wrong += found.contradicted
                lows.append(found.low)
        assert wrong / trials <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
        assert len(lows) > 0.97 * trials
        assert truth < 1 or np.mean(lows) > 0.3 * truth

    def test_the_error_is_split_over_the_attacks(self) -> None:
        rng = np.random.default_rng(1)
        attacks = {name: response(rng, sides(1000), 3.0) for name in "abcd"}
        found = judged(attacks, Claim(1.0, DELTA))
        lows = {
            name: epsilon.one_run_epsilon(each.guesses(np.ones(1000, bool)), delta=DELTA, level=1 - 0.05 / 4)
            for name, each in attacks.items()
        }
        assert found.low == max(lows.values())
        assert found.method == max(lows, key=lambda name: lows[name])
        assert found.contradicted is True
        assert found.sentence.startswith(f"CLAIM CONTRADICTED: epsilon is at least {found.low:.4f} by {found.method} (")
        assert "error 0.05 over 4 attacks" in found.sentence
        assert judged(attacks, Claim(found.low, DELTA)).contradicted is False
        assert "proves nothing" in judged(attacks, Claim(9.0, DELTA)).sentence

    def test_what_cannot_be_judged_says_why(self) -> None:
        attacks = {"a": exact(300, 700, 10, 990)}
        claim = Claim(1.0, DELTA)
        none = replace(coins(2000), scored=np.zeros(2000, bool))
        cases = [
            (attacks, None, False, "inclusion was not randomised (data.randomised, data.canaries)"),
            (attacks, coins(2000, n_members=1200), False, "1200 of the 2000 samples that are said to be randomised"),
            (attacks, none, False, "no randomised sample is scored"),
            (attacks, coins(2000), True, "the audit is not evaluable"),
            ({}, coins(2000), False, "the audit is not evaluable"),
        ]
        for given, randomised, fault, why in cases:
            found = judge_claim(claim, given, randomised, n_attacks=1, alpha=0.05, not_evaluable=fault)
            assert (found.contradicted, found.low, found.method) == (None, None, None)
            start = "The claim of epsilon 1 at delta 1e-05 cannot be judged: "
            assert found.sentence.startswith(start + why)


@pytest.mark.parametrize(
    ("accuracy", "contradicted", "outcome"),
    [(0.5, True, "leak"), (0.5, False, "no leak"), (0.5, None, "inconclusive"), (0.7, True, "leak"),
     (0.7, None, "leak"), (0.6, False, "inconclusive"), (0.6, None, "inconclusive"), (0.6, True, "leak")],
)
def test_a_contradiction_is_a_finding_and_doubt_is_no_clean_audit(
    accuracy: float, contradicted: bool | None, outcome: str
) -> None:
    gate = verdict_of(decisions(np.random.default_rng(2), 2000, accuracy, 2))
    claim = ClaimVerdict(Claim(1, DELTA), contradicted, None, None, "Said of the claim.")
    verdict = with_privacy(gate, PrivacyAudit({}, None, claim))
    assert verdict.outcome == outcome
    assert "Said of the claim." in " ".join([verdict.sentence, *verdict.notes])
    assert gate.sentence in verdict.sentence
    assert (verdict.by_rules or outcome) == gate.outcome
    assert with_privacy(gate, PrivacyAudit({})) == gate


def test_samples_of_separate_splits_are_a_caution() -> None:
    member, every = np.repeat([1, 0], 50).astype(np.int8), np.ones(100, dtype=bool)
    apart = randomised_samples(every, member, np.repeat(["train", "test"], 50), every)
    mixed = randomised_samples(every, member, np.repeat(["train"], 100), np.arange(100) % 2 == 0)
    assert apart is not None
    assert mixed is not None
    assert (apart.apart, mixed.apart) == (True, False)
    assert (len(mixed.scored), mixed.n_members, mixed.n_nonmembers) == (50, 50, 50)
    assert randomised_samples(~every, member, np.repeat(["train"], 100), every) is None
    verdict = verdict_of({"a": exact(50, 50, 50, 50)})
    assert APART in with_privacy(verdict, PrivacyAudit({}, apart)).cautions
    assert with_privacy(verdict, PrivacyAudit({}, mixed)) == verdict
