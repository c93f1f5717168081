"""Epsilon's bounds against published numbers, slow references, enumeration and mechanisms whose epsilon is known."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import integrate, stats

from mia_batch.metrics import epsilon
from mia_batch.metrics.base import Counts, UndefinedMetricWarning, clopper_pearson
from mia_batch.metrics.epsilon import Guesses

COUNTS = Counts(tp=300, fn=700, fp=10, tn=990)


class TestAttackImpliedEpsilon:
    def test_published_number(self) -> None:
        assert epsilon.attack_implied_epsilon(Counts(500, 0, 0, 500), level=0.99).low == pytest.approx(
            4.541916, abs=1e-6
        )

    @pytest.mark.parametrize("delta", [0.0, 0.01])
    @pytest.mark.parametrize(
        "counts", [COUNTS, Counts(990, 10, 700, 300), Counts(60, 40, 50, 50), Counts(3, 97, 9, 91)]
    )
    def test_is_its_formula(self, counts: Counts, delta: float) -> None:
        (tpr, fpr), n, m = (counts.tp / counts.n_members, counts.fp / counts.n_nonmembers), counts.n_nonmembers, 100
        m = counts.n_members

        def formula(tpr: float, fpr: float) -> float:
            found = [0.0]
            for more, less in ((tpr, fpr), (1 - fpr, 1 - tpr)):
                found += [math.log((more - delta) / less)] if more > delta else []
            return max(found)

        estimate = epsilon.attack_implied_epsilon(counts, delta=delta, level=0.9)
        low, high = clopper_pearson(counts.tp, m, level=0.9)[0], clopper_pearson(counts.fp, n, level=0.9)[1]
        assert estimate.value == pytest.approx(formula(tpr, fpr))
        assert estimate.low == pytest.approx(formula(low, high))
        assert estimate.high == math.inf

    @pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
    def test_randomised_response_is_overstated_at_most_as_often_as_said(self, truth: float) -> None:
        """Enumerated: all outcomes of 15 answers a side, each true with probability e^eps / (1 + e^eps)."""
        n, honest = 15, 1 / (1 + math.exp(-truth))
        weight = np.outer(
            stats.binom.pmf(np.arange(n + 1), n, honest), stats.binom.pmf(np.arange(n + 1), n, 1 - honest)
        )
        over = 0.0
        for tp, fp in product(range(n + 1), repeat=2):
            low = epsilon.attack_implied_epsilon(Counts(tp, n - tp, fp, n - fp), level=0.8).low
            over += weight[tp, fp] * (low > truth)
        assert over <= 0.2

    def test_laplace_noise(self) -> None:
        """Scores with Laplace noise of scale 1 around 1 and 0 are 1-DP, and the threshold 1 shows all of it."""
        rng, n, trials = np.random.default_rng(0), 4000, 2000
        tp, fp = rng.binomial(n, 0.5, trials), rng.binomial(n, 0.5 * math.exp(-1), trials)
        lows = [
            epsilon.attack_implied_epsilon(Counts(a, n - a, b, n - b)).low
            for a, b in zip(tp.tolist(), fp.tolist(), strict=True)
        ]
        assert np.mean(np.array(lows) > 1) <= 0.05
        assert np.mean(lows) > 0.85

    def test_errors_that_were_not_observed(self) -> None:
        estimate = epsilon.attack_implied_epsilon(Counts(5, 5, 0, 10))
        assert estimate.value == math.inf
        assert math.isfinite(estimate.low)
        assert estimate.reason == epsilon.UNBOUNDED
        silent = epsilon.attack_implied_epsilon(Counts(0, 10, 0, 10))
        assert (silent.value, silent.low, silent.reason) == (0.0, 0.0, None)

    def test_one_class_has_none(self) -> None:
        with pytest.warns(UndefinedMetricWarning, match="attack-implied epsilon is undefined: no non-members"):
            assert math.isnan(epsilon.attack_implied_epsilon(Counts(5, 5, 0, 0)).value)
        with pytest.warns(UndefinedMetricWarning, match="no scored samples"):
            assert epsilon.attack_implied_epsilon(Counts(0, 0, 0, 0)).reason == "no scored samples"


class TestThresholds:
    member = np.repeat([1, 0], 1000)

    def test_is_the_largest_of_the_corrected_bounds(self) -> None:
        scores = np.random.default_rng(1).normal(self.member, 1.0).round(1)
        grid = [-1.0, 0.5, 2.0, 9.0]
        singles = []
        for threshold in grid:
            said = scores >= threshold
            tp, fp = int(said[:1000].sum()), int(said[1000:].sum())
            singles.append(epsilon.attack_implied_epsilon(Counts(tp, 1000 - tp, fp, 1000 - fp), level=1 - 0.05 / 4))
        best = max(singles, key=lambda estimate: estimate.low)
        found = epsilon.epsilon_over_thresholds(self.member, scores, grid)
        assert (found.value, found.low) == pytest.approx((best.value, best.low))

    def test_identical_distributions_seldom_show_anything(self) -> None:
        """Uncorrected, the best of all thresholds would claim an epsilon in every ninth trial."""
        rng, trials, grid = np.random.default_rng(2), 400, stats.norm.ppf(np.linspace(0.01, 0.99, 30))
        corrected = uncorrected = 0
        for _ in range(trials):
            scores = rng.normal(size=2000)
            corrected += epsilon.epsilon_over_thresholds(self.member, scores, grid).low > 0
            chosen = scores >= epsilon.choose_threshold(self.member, scores)
            tp, fp = int(chosen[:1000].sum()), int(chosen[1000:].sum())
            uncorrected += epsilon.attack_implied_epsilon(Counts(tp, 1000 - tp, fp, 1000 - fp)).low > 0
        assert corrected / trials <= 0.05
        assert uncorrected / trials > 0.05

    def test_the_threshold_chosen_has_the_largest_bound(self) -> None:
        rng = np.random.default_rng(3)
        member, scores = np.repeat([1, 0], [60, 90]), rng.normal(np.repeat([1, 0], [60, 90])).round(1)
        chosen = epsilon.choose_threshold(member, scores, delta=0.01)

        def low(threshold: float) -> float:
            tp, fp = int((scores[:60] >= threshold).sum()), int((scores[60:] >= threshold).sum())
            return epsilon.attack_implied_epsilon(Counts(tp, 60 - tp, fp, 90 - fp), delta=0.01).low

        assert low(chosen) == max(low(threshold) for threshold in scores)

    def test_wrong_arguments(self) -> None:
        member, scores = [1, 0], [0.5, 0.1]
        for thresholds, message in (([], "at least one"), ([[0.1]], "shape"), ([math.nan], "NaN")):
            with pytest.raises(ValueError, match=f"thresholds: must .*{message}"):
                epsilon.epsilon_over_thresholds(member, scores, thresholds)
        with pytest.warns(UndefinedMetricWarning, match="no members"):
            assert math.isnan(epsilon.epsilon_over_thresholds([0, 0], scores, [0.3]).value)
        with pytest.raises(ValueError, match="both classes, got no non-members"):
            epsilon.choose_threshold([1, 1], scores)


class TestGaussian:
    def test_published_numbers(self) -> None:
        low = epsilon.mu_gdp(COUNTS).low
        assert low == pytest.approx(1.48228737, abs=1e-8)
        assert epsilon.epsilon_of_mu(low, 1e-5) == pytest.approx(6.951972, abs=1e-6)
        assert epsilon.epsilon_of_mu(1.0, 1e-5) == pytest.approx(4.377178, abs=1e-6)

    @pytest.mark.parametrize(("mu", "eps"), [(0.5, 0.0), (0.5, 1.0), (2.0, 3.0), (6.0, 10.0)])
    def test_delta_is_the_mass_that_epsilon_leaves(self, mu: float, eps: float) -> None:
        """Of N(mu, 1) against N(0, 1): the integral of max(0, p - e^eps q)."""
        found, _ = integrate.quad(
            lambda x: max(0.0, stats.norm.pdf(x, mu) - math.exp(eps) * stats.norm.pdf(x)),
            eps / mu + mu / 2, mu + 12,
        )  # fmt: skip
        assert epsilon.delta_of_epsilon(mu, eps) == pytest.approx(found, rel=1e-6)

    @pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.1])
    @pytest.mark.parametrize("mu", [0.3, 1.0, 8.0, 40.0])
    def test_the_conversion_is_the_inverse_of_delta(self, mu: float, delta: float) -> None:
        eps = epsilon.epsilon_of_mu(mu, delta)
        assert epsilon.delta_of_epsilon(mu, eps) == pytest.approx(delta, rel=1e-6)

    def test_edges(self) -> None:
        assert epsilon.epsilon_of_mu(0.0, 1e-5) == 0.0
        assert epsilon.epsilon_of_mu(1e-6, 1e-5) == 0.0  # its delta at epsilon 0 is smaller
        assert epsilon.epsilon_of_mu(math.inf, 1e-5) == math.inf
        assert epsilon.delta_of_epsilon(0.0, 0.0) == 0.0
        assert epsilon.mu_gdp(Counts(0, 10, 0, 10)).value == 0.0
        assert epsilon.mu_gdp(Counts(10, 0, 10, 0)).value == 0.0
        assert epsilon.mu_gdp(Counts(5, 5, 0, 10)).value == math.inf
        assert epsilon.mu_gdp(Counts(3, 7, 9, 1)).value == 0.0  # worse than a guess
        with pytest.warns(UndefinedMetricWarning, match="mu is undefined: no members"):
            assert math.isnan(epsilon.mu_gdp(Counts(0, 0, 5, 5)).value)
        for delta in (0.0, 1.0):
            with pytest.raises(ValueError, match="delta: must be in"):
                epsilon.epsilon_of_mu(1.0, delta)
        with pytest.raises(ValueError, match="must be 0 or more"):
            epsilon.delta_of_epsilon(-1.0, 0.0)

    @pytest.mark.parametrize("mu", [0.5, 2.0])
    def test_shifted_normals(self, mu: float) -> None:
        rng, n, trials = np.random.default_rng(4), 2000, 2000
        tp, fp = rng.binomial(n, stats.norm.cdf(mu / 2), trials), rng.binomial(n, stats.norm.cdf(-mu / 2), trials)
        lows = [epsilon.mu_gdp(Counts(a, n - a, b, n - b)).low for a, b in zip(tp.tolist(), fp.tolist(), strict=True)]
        assert np.mean(np.array(lows) > mu) <= 0.05
        assert np.mean(lows) > mu - 0.15


class TestOutOfFold:
    """What is fixed for a part's samples must not know the part: else it finds leaks where there are none."""

    member, part = np.arange(600) % 2 == 0, np.arange(600) // 2 % 3
    scores = np.random.default_rng(10).normal(size=600) + member

    def test_decisions_are_by_the_threshold_of_the_other_parts(self) -> None:
        said = epsilon.out_of_fold_decisions(self.member, self.scores, self.part, delta=1e-5)
        for part in range(3):
            own = self.part == part
            threshold = epsilon.choose_threshold(self.member[~own], self.scores[~own], delta=1e-5)
            assert threshold != epsilon.choose_threshold(self.member[own], self.scores[own], delta=1e-5)
            assert np.array_equal(said[own], self.scores[own] >= threshold)

    def test_ranks_are_among_the_non_members_of_the_other_parts(self) -> None:
        ranks = epsilon.out_of_fold_ranks(self.member, self.scores, self.part)
        for i in (0, 1, 300, 599):
            others = self.scores[(self.part != self.part[i]) & ~self.member]
            assert ranks[i] == np.mean(others < self.scores[i])

    @pytest.mark.parametrize("of", [epsilon.out_of_fold_decisions, epsilon.out_of_fold_ranks])
    def test_a_parts_membership_changes_nothing_of_it(self, of: Callable[..., np.ndarray]) -> None:
        own = self.part == 1
        other = of(np.where(own, ~self.member, self.member), self.scores, self.part)
        assert np.array_equal(other[own], of(self.member, self.scores, self.part)[own])


class TestBayesian:
    def test_published_number(self) -> None:
        found = epsilon.bayesian_epsilon(COUNTS)
        assert (found.low, found.high) == pytest.approx((2.823, 4.070), abs=5e-4)

    @pytest.mark.parametrize("delta", [0.0, 0.02])
    @pytest.mark.parametrize(
        "counts", [COUNTS, Counts(5, 5, 0, 10), Counts(52, 48, 50, 50), Counts(90_000, 10_000, 3, 9)]
    )
    def test_agrees_with_draws_from_the_posterior(self, counts: Counts, delta: float) -> None:
        rng, n = np.random.default_rng(5), 1_000_000
        fpr, fnr = rng.beta(0.5 + counts.fp, 0.5 + counts.tn, n), rng.beta(0.5 + counts.fn, 0.5 + counts.tp, n)
        ratios = [(1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr]
        drawn = np.log(np.maximum(np.maximum(*ratios), 1.0))
        found = epsilon.bayesian_epsilon(counts, delta=delta, level=0.9)
        for q, value in ((0.05, found.low), (0.5, found.median), (0.95, found.high)):
            if value > 0:
                assert np.mean(drawn <= value) == pytest.approx(q, abs=2e-3)
            else:
                assert np.mean(drawn == 0) >= q - 2e-3

    def test_without_samples(self) -> None:
        found = epsilon.bayesian_epsilon(Counts(0, 0, 0, 0))
        assert math.isnan(found.median)
        assert found.reason == "no scored samples"
        assert epsilon.bayesian_epsilon(Counts(5, 5, 0, 0)).reason == "no non-members among the scored samples"


def slow_p_value(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """The formula read aloud, with a sum of its own for every i."""
    q = 1 / (1 + math.exp(-eps))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    steepest = max((sum(mass[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return min(1.0, sum(mass[v:]) + 2 * m * delta * steepest)


class TestOneRun:
    def test_published_numbers(self) -> None:
        assert epsilon.one_run_p_value(Guesses(1000, 100, 90), 1.0) == pytest.approx(2.7358128e-05, rel=1e-7)
        assert epsilon.one_run_p_value(Guesses(10, 10, 10), 0.0) == pytest.approx(0.0009765625)
        assert epsilon.one_run_epsilon(Guesses(1000, 100, 90)) == pytest.approx(1.630823, abs=1e-6)
        assert epsilon.one_run_epsilon_fdp(Guesses(1000, 100, 90), delta=1e-5) == pytest.approx(2.456405, abs=1e-6)
        assert epsilon.one_run_epsilon_fdp(Guesses(1000, 1000, 750), delta=1e-5) == pytest.approx(1.818896, abs=1e-6)

    @pytest.mark.parametrize("delta", [0.0, 1e-3, 0.05])
    @pytest.mark.parametrize(("m", "r", "v"), [(30, 30, 25), (50, 20, 20), (40, 10, 0), (9, 0, 0), (60, 50, 20)])
    def test_p_value_of_a_slow_sum(self, m: int, r: int, v: int, delta: float) -> None:
        found = epsilon.one_run_p_value(Guesses(m, r, v), 0.7, delta=delta)
        assert found == pytest.approx(slow_p_value(m, r, v, 0.7, delta))

    def test_the_bound_is_where_the_p_value_crosses(self) -> None:
        guesses = Guesses(500, 200, 170)
        bound = epsilon.one_run_epsilon(guesses, delta=1e-5, level=0.9)
        assert epsilon.one_run_p_value(guesses, bound, delta=1e-5) == pytest.approx(0.1, rel=1e-6)

    @pytest.mark.parametrize("truth", [0.0, 1.0, 2.5])
    def test_randomised_response_is_overstated_about_as_often_as_said(self, truth: float) -> None:
        """Enumerated over the number of right guesses, each right with probability e^eps / (1 + e^eps)."""
        m = 300
        mass = stats.binom.pmf(np.arange(m + 1), m, 1 / (1 + math.exp(-truth)))
        lows = np.array([epsilon.one_run_epsilon(Guesses(m, m, v)) for v in range(m + 1)])
        assert 0.025 <= mass[lows > truth].sum() <= 0.05
        assert not truth or mass @ lows > 0.7 * truth

    @pytest.mark.parametrize("mu", [0.5, 1.5])
    @pytest.mark.parametrize("guessed", [200, 60])
    def test_gaussian_noise_is_seldom_overstated(self, mu: float, guessed: int) -> None:
        """Canaries' scores are N(+-mu / 2, 1), which is mu-GDP; those that are farthest from 0 are guessed."""
        rng, m, trials = np.random.default_rng(6), 200, 1000
        included = rng.random((trials, m)) < 0.5
        scores = rng.normal(np.where(included, mu / 2, -mu / 2))
        farthest = np.argsort(-np.abs(scores), axis=1)[:, :guessed]
        right = np.take_along_axis((scores > 0) == included, farthest, axis=1).sum(axis=1)
        bound = {v: epsilon.one_run_mu(Guesses(m, guessed, v)) for v in set(right.tolist())}
        lows = np.array([bound[v] for v in right.tolist()])
        assert np.mean(lows > mu) <= 0.05
        assert np.mean(lows) > 0.15 * mu  # the method gives much away, and is not trivial

    @pytest.mark.parametrize("v", [70, 90, 100])
    def test_the_gaussian_version_is_tighter(self, v: int) -> None:
        guesses = Guesses(1000, 100, v)
        assert epsilon.one_run_epsilon_fdp(guesses, delta=1e-5) > epsilon.one_run_epsilon(guesses, delta=1e-5)

    def test_nothing_guessed_or_nothing_right_shows_nothing(self) -> None:
        for guesses in (Guesses(100, 0, 0), Guesses(100, 50, 0), Guesses(0, 0, 0), Guesses(100, 100, 50)):
            assert epsilon.one_run_epsilon(guesses, delta=1e-5) == 0.0
            assert epsilon.one_run_epsilon_fdp(guesses, delta=1e-5) == 0.0

    def test_wrong_arguments(self) -> None:
        for counts in ((5, 6, 1), (5, 3, 4), (5, 3, -1)):
            with pytest.raises(ValueError, match="guesses: must have"):
                Guesses(*counts)
        guesses = Guesses(10, 10, 9)
        with pytest.raises(ValueError, match="epsilon: must be 0 or more"):
            epsilon.one_run_p_value(guesses, -1.0)
        with pytest.raises(ValueError, match="delta: must be in"):
            epsilon.one_run_epsilon(guesses, delta=1.0)
        with pytest.raises(ValueError, match="level: must be in"):
            epsilon.one_run_mu(guesses, level=1.0)
        with pytest.raises(ValueError, match="delta: must be in"):
            epsilon.one_run_epsilon_fdp(guesses, delta=0.0)
