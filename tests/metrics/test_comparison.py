"""Comparisons of attacks against slow references, exact enumeration, degenerate inputs and simulations."""

import math
import time
from itertools import combinations

import numpy as np
import pytest
from metric_samples import naive_auc
from scipy import stats

from mia_batch.metrics import comparison
from mia_batch.metrics.base import UndefinedMetricWarning


def tied_attacks(n_attacks: int, n_members: int, n_nonmembers: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Membership, and scores that share a part and have ties."""
    rng, member = np.random.default_rng(seed), np.repeat([1, 0], [n_members, n_nonmembers])
    shared = rng.normal(size=len(member))
    return member, (shared + rng.normal(0.7 * member, 1.0, (n_attacks, len(member)))).round(1)


def slow_covariance(member: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """DeLong's components pair by pair."""

    def wins(row: np.ndarray) -> np.ndarray:
        return np.array([[(a > b) + 0.5 * (a == b) for b in row[member == 0]] for a in row[member == 1]])

    parts = [wins(row) for row in scores]
    of_members, of_others = (np.array([part.mean(axis=axis) for part in parts]) for axis in (1, 0))
    found = np.empty((len(scores), len(scores)))
    for i, j in np.ndindex(found.shape):
        found[i, j] = sum(
            np.sum((side[i] - side[i].mean()) * (side[j] - side[j].mean())) / (side.shape[1] - 1) / side.shape[1]
            for side in (of_members, of_others)
        )
    return found


class TestDifference:
    def test_variance_is_that_of_the_covariance(self) -> None:
        member, scores = tied_attacks(2, 300, 400)
        found = comparison.auc_difference(member, *scores)
        assert found.value == pytest.approx(naive_auc(member, scores[0]) - naive_auc(member, scores[1]))
        deviation = math.sqrt(np.array([1, -1]) @ slow_covariance(member, scores) @ np.array([1, -1]))
        # In the middle, where intervals of AUC are hardly skewed, it is DeLong's.
        assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.02)
        reach = stats.norm.isf(0.025) * deviation
        assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), abs=0.05 * reach)

    def test_the_other_way_round_it_is_mirrored(self) -> None:
        member, scores = tied_attacks(2, 30, 20)
        one, other = comparison.auc_difference(member, *scores), comparison.auc_difference(member, *scores[::-1])
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))

    @pytest.mark.parametrize("sides", [(30, 30), (60, 240)])
    @pytest.mark.parametrize(("shift", "shared"), [(0.0, 0.5), (0.4, 0.9), (1.5, 0.0), (4.0, 0.0), (4.0, 0.9)])
    def test_covers_as_often_as_it_says(self, sides: tuple[int, int], shift: float, shared: float) -> None:
        """Normal scores with a common part of variance `shared`, of AUC Phi(shift / sqrt 2), and of half that shift."""
        rng, trials, member = np.random.default_rng(1), 800, np.repeat([1, 0], sides)
        truth = stats.norm.cdf(shift / math.sqrt(2)) - stats.norm.cdf(shift / 2 / math.sqrt(2))
        covered = 0
        for _ in range(trials):
            common = math.sqrt(shared) * rng.normal(size=len(member))
            one, other = (common + rng.normal(s * member, math.sqrt(1 - shared)) for s in (shift, shift / 2))
            found = comparison.auc_difference(member, one, other)
            covered += found.low <= truth <= found.high
        assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
        assert shift > 2 or covered / trials <= 0.98  # near AUC 1 those of AUC are wider than need be

    def test_without_a_variance_it_stays_wide(self) -> None:
        member = np.repeat([1, 0], 20)
        same = comparison.auc_difference(member, np.arange(40), 2.0 * np.arange(40))
        assert (same.value, same.reason) == (0.0, comparison.NO_VARIANCE)
        reach = math.sqrt(2 * math.log(40) / 20)  # Hoeffding: exp(-n t^2 / 2) = .025
        assert (same.low, same.high) == pytest.approx((-reach, reach))
        perfect = comparison.auc_difference(member, member, 0 * member)
        assert (perfect.value, perfect.low, perfect.high) == pytest.approx((0.5, 0.5 - reach, 1.0))
        single = comparison.auc_difference([1, 0], [1, 0], [0, 1])
        assert (single.value, single.low, single.high) == (1.0, -1.0, 1.0)

    def test_one_class_has_none(self) -> None:
        with pytest.warns(UndefinedMetricWarning, match="AUC difference is undefined: no members"):
            assert math.isnan(comparison.auc_difference([0, 0], [1, 2], [2, 1]).value)


class TestPermutation:
    def test_agrees_with_all_memberships(self) -> None:
        member, scores = tied_attacks(3, 4, 5, seed=3)
        largest = max(naive_auc(member, row) for row in scores)
        reached = []
        for chosen in combinations(range(9), 4):
            other = np.isin(np.arange(9), chosen).astype(int)
            reached.append(max(naive_auc(other, row) for row in scores) >= largest - 1e-12)
        found = comparison.permutation_test(member, scores, seed=0, n_permutations=20_000)
        assert found.statistic == pytest.approx(largest)
        assert found.best == int(np.argmax([naive_auc(member, row) for row in scores]))
        assert found.p_value == pytest.approx(np.mean(reached), abs=0.012)

    def test_one_group_per_pair_agrees_with_all_memberships_of_pairs(self) -> None:
        member, scores = tied_attacks(2, 6, 8, seed=4)
        groups = np.array(["a", "a", "b", "b", "c", "c", "d", "d", "e", "f", "g", "h", "i", "i"])
        names = sorted(set(groups))
        largest, reached = max(naive_auc(member, row) for row in scores), []
        for chosen in combinations(names, 3):
            other = np.isin(groups, chosen).astype(int)
            reached.append(max(naive_auc(other, row) for row in scores) >= largest - 1e-12)
        found = comparison.permutation_test(member, scores, seed=0, groups=groups, n_permutations=20_000)
        assert found.p_value == pytest.approx(np.mean(reached), abs=0.012)

    def test_rejects_as_often_as_it_says_without_a_signal(self) -> None:
        rng, trials, member = np.random.default_rng(2), 600, np.repeat([1, 0], [30, 20])
        rejected = 0
        for trial in range(trials):
            scores = rng.normal(size=50) + rng.normal(size=(4, 50))
            rejected += comparison.permutation_test(member, scores, seed=trial, n_permutations=199).p_value <= 0.05
        assert 0.025 <= rejected / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)

    def test_twins_are_one_draw(self) -> None:
        """Ten views of each of 24 persons: alone they seem to be 240 samples and reject far too often."""
        rng, trials = np.random.default_rng(5), 200
        member, groups = np.repeat([1, 0], 120), np.repeat(np.arange(24), 10)
        rejected = {"together": 0, "alone": 0}
        for trial in range(trials):
            scores = rng.normal(size=24)[groups][np.newaxis]
            for name, known in (("together", groups), ("alone", None)):
                found = comparison.permutation_test(member, scores, seed=trial, groups=known, n_permutations=99)
                rejected[name] += found.p_value <= 0.05
        assert rejected["together"] / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
        assert rejected["alone"] / trials > 0.2

    def test_a_signal_is_found(self) -> None:
        member, scores = tied_attacks(5, 200, 200)
        found = comparison.permutation_test(member, scores, seed=0)
        assert (found.p_value, found.n_permutations) == (1 / 1000, 999)

    def test_blocks_and_repetition_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        member, scores = tied_attacks(3, 30, 30, seed=9)
        whole = comparison.permutation_test(member, scores, seed=7, n_permutations=200)
        assert whole == comparison.permutation_test(member, scores, seed=7, n_permutations=200)
        monkeypatch.setattr(comparison, "_BLOCK", 60 * 7)
        assert whole == comparison.permutation_test(member, scores, seed=7, n_permutations=200)
        assert 0.0 < whole.p_value < 1.0

    def test_scores_that_say_nothing(self) -> None:
        found = comparison.permutation_test(np.repeat([1, 0], 9), np.ones((2, 18)), seed=0)
        assert (found.statistic, found.p_value) == (0.5, 1.0)

    def test_one_class_has_none(self) -> None:
        found = comparison.permutation_test([1, 1], [[0.1, 0.2]], seed=0)
        assert math.isnan(found.p_value)
        assert found.reason == "no non-members among the scored samples"
        assert comparison.permutation_test([], np.empty((1, 0)), seed=0).reason == "no scored samples"

    def test_wrong_arguments(self) -> None:
        member, scores = [1, 0, 0], [[0.1, 0.2, 0.3]]
        with pytest.raises(ValueError, match="members or non-members alone, got both in 5"):
            comparison.permutation_test(member, scores, seed=0, groups=[5, 5, 2])
        for wrong, message in (
            ([1.0, 2.0, 3.0, 4.0], r"scores: must have shape \(1 or more, 4\)"),
            (np.empty((0, 4)), r"scores: must have shape \(1 or more, 4\)"),
            ([[1.0, 2.0, 3.0]], r"scores: must have shape \(4,\)"),
            ([[1.0, 2.0, 3.0, math.nan]], "NaN at sample 3"),
        ):
            with pytest.raises(ValueError, match=message):
                comparison.permutation_test([1, 1, 0, 0], wrong, seed=1)
        with pytest.raises(ValueError, match=r"groups: must have shape \(3,\)"):
            comparison.permutation_test(member, scores, seed=0, groups=[5, 5])
        with pytest.raises(ValueError, match="n_permutations: must be 1 or more"):
            comparison.permutation_test(member, scores, seed=0, n_permutations=0)


class TestCrossFittedPermutation:
    @staticmethod
    def scores(X: np.ndarray, member: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Each part's by the difference of means of the others."""
        found = np.empty(len(member))
        for number in np.unique(part):
            inside, known = part == number, member == 1
            found[inside] = X[inside] @ (X[~inside & known].mean(axis=0) - X[~inside & ~known].mean(axis=0))
        return found

    def test_one_part_is_the_plain_test(self) -> None:
        member, scores = tied_attacks(3, 30, 30, seed=9)
        plain = comparison.permutation_test(member, scores, seed=(7, 0), n_permutations=99)
        crossed = comparison.cross_fitted_permutation_test(member, scores, np.zeros(60), seed=7, n_permutations=99)
        assert crossed == plain

    def test_twice_the_mean_of_the_parts(self) -> None:
        member, scores, part = np.tile([1, 0], 40), np.random.default_rng(0).normal(size=(3, 80)), np.repeat([0, 1], 40)
        scores[1] += 0.5 * member
        apart = [
            comparison.permutation_test(member[rows], scores[:, rows], seed=(7, number))
            for number in (0, 1) for rows in [part == number]
        ]
        found = comparison.cross_fitted_permutation_test(member, scores, part, seed=7)
        assert found.p_value == pytest.approx(min(1.0, sum(each.p_value for each in apart)))
        assert found.statistic == pytest.approx(np.mean([each.statistic for each in apart]))
        assert (found.best, found.n_permutations) == (1, 999)

    def test_it_is_valid_where_permuting_all_rows_is_not(self) -> None:
        """Membership of one part has fitted the models of the others: with few rows pooled scores vary far more."""
        rng, trials, n = np.random.default_rng(1), 600, 100
        part, rejected = np.arange(n) % 5, {"by part": 0, "pooled": 0}
        for trial in range(trials):
            member = rng.permutation(np.repeat([1, 0], n // 2))
            scores = self.scores(rng.normal(size=(n, 2)), member, part)[np.newaxis]
            by_part = comparison.cross_fitted_permutation_test(member, scores, part, seed=trial, n_permutations=99)
            pooled = comparison.permutation_test(member, scores, seed=trial, n_permutations=99)
            rejected["by part"] += by_part.p_value <= 0.05
            rejected["pooled"] += pooled.p_value <= 0.05
        allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
        assert rejected["by part"] / trials <= allowed
        assert rejected["pooled"] / trials > allowed

    def test_a_signal_is_found(self) -> None:
        member = np.arange(400) % 2
        scores = np.random.default_rng(0).normal(size=(3, 400)) + member
        found = comparison.cross_fitted_permutation_test(member, scores, np.arange(400) // 80, seed=0)
        assert found.p_value == pytest.approx(0.002)

    def test_groups_are_permuted_within_their_part(self) -> None:
        """Ten views of each of 24 persons, as `test_twins_are_one_draw` has them."""
        rng, trials = np.random.default_rng(5), 100
        member, groups = np.repeat(np.tile([1, 0], 12), 10), np.repeat(np.arange(24), 10)
        part, rejected = (groups // 12), 0
        for trial in range(trials):
            scores = rng.normal(size=24)[groups][np.newaxis]
            rejected += comparison.cross_fitted_permutation_test(
                member, scores, part, seed=trial, groups=groups, n_permutations=99
            ).p_value <= 0.05
        assert rejected / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)

    def test_a_part_of_one_class_has_none(self) -> None:
        found = comparison.cross_fitted_permutation_test([1, 1, 0, 1], [[1, 2, 3, 4]], [0, 0, 1, 1], seed=0)
        assert (math.isnan(found.p_value), found.reason) == (True, "no non-members among the scored samples")
        none = comparison.cross_fitted_permutation_test([], np.empty((1, 0)), [], seed=0)
        assert none.reason == "no scored samples"

    def test_twenty_attacks_on_ten_thousand_rows_take_a_moment(self) -> None:
        """In seconds of sorting them once per permutation, which a machine under load slows down as much."""
        rng, member = np.random.default_rng(0), np.arange(10_000) % 2
        scores, part = rng.normal(size=(20, 10_000)), np.arange(10_000) // 2000
        begun = time.process_time()
        comparison.cross_fitted_permutation_test(member, scores, part, seed=0)
        took, begun = time.process_time() - begun, time.process_time()
        np.argsort(scores, axis=1)
        assert took < 999 * (time.process_time() - begun) / 5
