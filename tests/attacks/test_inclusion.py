"""The self-test of references: what it refuses, and that sound ones pass; and attacks on null data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from made_references import BY_NAME, NAMES, answers, can_be_made, pairs_by_coins, references_of, result_of, samples_of
from scipy import stats

from mia_batch.attacks.inclusion import (
    column_of_another,
    complements,
    inclusion_doubt,
    inclusion_problem,
    is_complement_of_target,
    own_areas,
)
from mia_batch.metrics.ranking import auc
from mia_batch.samples import Samples

Rng = np.random.Generator


def exact_half(n: int, k: int, rng: Rng) -> np.ndarray:
    """Each sample in exactly half of k models, not in pairs."""
    return (rng.permuted(np.tile(np.arange(k), (n, 1)), axis=1) < k // 2).astype(np.int8)


def independent_halves(n: int, k: int, rng: Rng) -> np.ndarray:
    """Each model trained on a half of its own."""
    return np.stack([rng.permutation(n) < n // 2 for _ in range(k)], axis=1).astype(np.int8)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("make", [pairs_by_coins, independent_halves])
def test_sound_references_pass(k: int, make: object) -> None:
    rng = np.random.default_rng(k)
    for _ in range(20):
        inside = make(400, k, rng)  # type: ignore[operator]
        assert inclusion_problem(inside, member=rng.integers(2, size=400)) == ""


def test_sound_references_are_refused_as_rarely_as_stated() -> None:
    """At an error of .2: at most that many of 300, up to 4 standard errors; and not never."""
    rng = np.random.default_rng(0)
    refused = [bool(inclusion_problem(rng.integers(2, size=(200, 6)), alpha=0.2)) for _ in range(300)]
    assert 0 < np.mean(refused) <= 0.2 + 4 * (0.2 * 0.8 / 300) ** 0.5


@pytest.mark.parametrize("k", [4, 8, 16])
def test_exact_balance_without_pairs_is_refused(k: int) -> None:
    found = inclusion_problem(exact_half(1000, k, np.random.default_rng(k)))
    assert found.startswith("of reference 0 the number of references trained on a sample tells the members with AUC 0")
    assert found.endswith("which must cover 0.5")


def test_complements_that_are_not_said_to_be_are_refused() -> None:
    inside = pairs_by_coins(500, 6, np.random.default_rng(0))
    assert inclusion_problem(inside) == ""
    assert inclusion_problem(inside, [(0, 1), (2, 3), (4, 5)]) == ""
    assert inclusion_problem(inside, [(0, 1), (4, 5)]).startswith("of reference 2 the number")
    assert inclusion_problem(inside, [], names=list("abcdef")).startswith("of a the number")


def test_the_target_s_complement_and_the_target_itself_are_refused() -> None:
    inside = pairs_by_coins(500, 6, np.random.default_rng(0))
    member = inside[:, 0]
    assert is_complement_of_target(inside[:, 1:], member).tolist() == [True, False, False, False, False]
    found = inclusion_problem(inside[:, 1:], member=member)
    assert found == "reference 0 was trained on exactly the samples that the target was not"
    found = inclusion_problem(inside[:, [2, 0]], member=member)
    assert found == "reference 1 was trained on exactly the samples that the target was"
    assert inclusion_problem(inside[:, 2:], member=member) == ""


def test_references_that_prefer_the_target_s_members_are_refused() -> None:
    """As of references that were trained on parts of the target's own training set alone."""
    rng = np.random.default_rng(0)
    member = np.arange(600) % 2
    inside = (rng.random((600, 4)) < 0.5) & (member[:, np.newaxis] == 1)
    found = inclusion_problem(inside.astype(np.int8), member=member)
    assert "the number of references trained on a sample tells the members with AUC" in found
    few = (rng.random((600, 4)) < np.where(member, 0.6, 0.4)[:, np.newaxis]).astype(np.int8)
    assert inclusion_problem(few[:, :1], member=member).startswith("of the target the number of references")
    assert inclusion_problem(few[:, :1]) == ""


def test_full_and_equal_columns_are_refused_and_references_of_other_data_are_not() -> None:
    inside = independent_halves(100, 4, np.random.default_rng(0))
    full, others = inside.copy(), inside.copy()
    full[:, 2] = 1
    assert inclusion_problem(full) == "reference 2 was trained on all of the 100 samples"
    others[:, 2:] = 0
    assert inclusion_problem(others) == ""
    changed = inside.copy()
    changed[:, 3] = changed[:, 1]
    assert inclusion_problem(changed) == "reference 3 was trained on the same of the samples as reference 1"


def test_unbalanced_references_pass() -> None:
    inside = (np.random.default_rng(0).random((2000, 6)) < [0.01, 0.1, 0.5, 0.9, 0.95, 0.99]).astype(np.int8)
    assert inclusion_problem(inside) == ""


def test_what_is_no_inclusion_matrix_is_refused() -> None:
    for wrong in (np.zeros(5), np.full((5, 2), 2)):
        with pytest.raises(ValueError, match="reference_in: must be 0 or 1"):
            inclusion_problem(wrong)


def test_complements_are_found_wherever_they_are() -> None:
    inside = pairs_by_coins(101, 6, np.random.default_rng(0))
    assert complements(inside) == [(0, 1), (2, 3), (4, 5)]
    assert complements(inside[:, [3, 0, 4, 2, 1]]) == [(0, 3), (1, 4)]
    assert complements(independent_halves(101, 6, np.random.default_rng(0))) == []
    assert complements(inside[:, :1]) == []


# --- null data -------------------------------------------------------------------------------------------------------


def null_audit(n: int, k: int, rng: Rng) -> Samples:
    """Networks that leak, whose inclusion is permuted over samples, pairs together; the target is one of the pool."""
    pool = pairs_by_coins(n, k + 2, rng)
    phi, stated = answers(pool, rng), pool[rng.permutation(n)]
    return samples_of(
        phi[:, :, 0], phi[:, :, 2:], stated[:, 2:], stated[:, 0], rng.integers(2, size=n), evaluation="holdout",
        eval_fraction=0.5,
    )


N_TRIALS = 100


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 4, 8, 16, 64])
def test_on_null_data_attacks_find_nothing_and_call_one_percent_at_one_percent(k: int) -> None:
    """A threshold with 2 of 199 non-members of the fit rows above it is passed by any other sample with 2 / 200.

    Two-sided, by the standard error over trials; of attacks whose scores tie, one-sided. The intervals of AUC cover
    with .94 at least, as tests/bench/validity.py measures.
    """
    rng = np.random.default_rng(k)
    areas, covered, passed = ({name: [] for name in NAMES} for _ in range(3))
    for _ in range(N_TRIALS):
        samples = null_audit(800, k, rng)
        (split,) = samples.splits
        nonmembers = split.fit[samples.member[split.fit] == 0][:199]
        member = samples.member[split.evaluated]
        for name in NAMES:
            if not can_be_made(name, samples):
                continue
            everyone = _all_scores(name, samples)
            limit = np.sort(everyone[nonmembers])[-2]
            area = auc(member, everyone[split.evaluated])
            areas[name].append(area.value)
            covered[name].append(area.low <= 0.5 <= area.high)
            passed[name].append([np.mean(everyone[split.evaluated][member == side] > limit) for side in (0, 1)])
    for name in NAMES:
        if not areas[name]:
            assert (name, k) == ("lira", 2)
            continue
        assert abs(np.mean(areas[name]) - 0.5) < 4 * np.std(areas[name]) / N_TRIALS**0.5, name
        assert sum(covered[name]) >= stats.binom.ppf(1e-5, N_TRIALS, 0.94), name
        rates = np.array(passed[name])
        excess = (rates.mean(axis=0) - 0.01) / (rates.std(axis=0) / N_TRIALS**0.5 + 1e-9)
        assert (excess < 4).all(), name
        assert name == "attack_r" or (excess > -4).all(), name


def _all_scores(name: str, samples: Samples) -> np.ndarray:
    """Of fit rows, too, as the decision has them."""
    attack = BY_NAME[name]
    values = attack.score(references_of(samples)).values
    return attack.of_split(values, samples, samples.splits[0], attack.gamma.default if attack.gamma else None)


@pytest.mark.parametrize(("name", "k"), [("lira_fixed", 4), ("lira_bayes", 4), ("lira", 8)])
@pytest.mark.parametrize("make", [pairs_by_coins, exact_half])
def test_where_the_number_of_references_tells_null_data_give_leaks_and_are_refused(
    name: str, k: int, make: Callable[[int, int, Rng], np.ndarray]
) -> None:
    """Networks that do not leak at all. The first is the target, and its complement is kept."""
    rng = np.random.default_rng(k)
    pool = make(4000, k, rng)
    phi = answers(pool, rng, shift=0.0)
    found = inclusion_problem(pool[:, 1:], member=pool[:, 0])
    assert found
    if make is pairs_by_coins:
        assert found == "reference 0 was trained on exactly the samples that the target was not"
    result = result_of(name, samples_of(phi[:, :, 0], phi[:, :, 1:], pool[:, 1:], pool[:, 0], np.zeros(4000)))
    assert auc(result.member, result.scores, level=0.999).high < 0.49


def test_what_references_know_of_their_own_training_shows_inclusion_that_is_not_theirs() -> None:
    """Right, turned round, of samples in another order; and none of a reference of other data."""
    rng = np.random.default_rng(0)
    inside = independent_halves(2000, 3, rng)
    phi = rng.normal(size=(2000, 2, 3)) + inside[:, np.newaxis, :]
    assert all(each.low > 0.5 for each in own_areas(phi, inside).values())
    assert all(each.high < 0.5 for each in own_areas(phi, 1 - inside).values())
    assert all(each.low <= 0.5 <= each.high for each in own_areas(phi, rng.permutation(inside)).values())
    assert list(own_areas(phi, np.column_stack([inside[:, :1], np.zeros(2000, np.int8), inside[:, 2:]]))) == [0, 2]
    assert inclusion_doubt(phi, inside) == inclusion_doubt(phi, np.zeros_like(inside)) == ""
    assert inclusion_doubt(phi, np.column_stack([inside[:, 0], rng.permutation(inside[:, 1:])])) == ""
    told = "the references' phi tells what they were trained on with AUC 0."
    assert inclusion_doubt(phi, rng.permutation(inside)).startswith(told)


@pytest.mark.parametrize("size", [1, 6, 30])
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_samples_of_a_group_neither_bear_inclusion_out_by_chance_nor_hide_that_references_do(
    size: int, alike: float
) -> None:
    """Groups are drawn whole. Alike: their part of the variance that a group's answers share."""
    n, k, alpha, n_runs = 1500, 2, 0.1, 60
    rng, group = np.random.default_rng(size), np.arange(n) // size
    passed = dict.fromkeys((0.0, 0.8), 0)
    for shift in [*passed] * n_runs:
        inside = rng.integers(2, size=(n // size, k))[group].astype(np.int8)
        shared = rng.normal(size=(n // size, k))[group]
        phi = rng.normal(size=(n, k)) * (1 - alike) ** 0.5 + shared * alike**0.5 + shift * inside
        passed[shift] += inclusion_doubt(phi[:, np.newaxis, :], inside, group=group, alpha=alpha) == ""
    assert passed[0.0] / n_runs <= alpha + 4 * (alpha * (1 - alpha) / n_runs) ** 0.5
    assert passed[0.8] / n_runs >= (0.8 if size < 30 or alike == 0 else 0.5)


def test_columns_in_another_order_than_the_references_are_found() -> None:
    rng = np.random.default_rng(0)
    inside = independent_halves(2000, 4, rng)
    phi = rng.normal(size=(2000, 1, 4)) + inside[:, np.newaxis, :]
    turned = inside[:, [0, 3, 1, 2]]
    for k, own in ((1, 2), (2, 3), (3, 1)):
        column, area = column_of_another(phi, turned, k) or (None, None)
        assert column == own
        assert area == auc(turned[:, own], phi[:, 0, k], level=1 - 0.001 / 16)
    assert column_of_another(phi, turned, 0) is None
    assert column_of_another(phi, rng.permutation(inside), 1) is None


def test_another_column_is_said_to_fit_as_rarely_as_stated() -> None:
    """References that have learned nothing, at an error of .2: at most that many of 200, up to 4 standard errors."""
    rng, said = np.random.default_rng(0), []
    for _ in range(200):
        inside = independent_halves(200, 4, rng)
        said.append(column_of_another(rng.normal(size=(200, 1, 4)), inside, 0, alpha=0.2) is not None)
    assert 0 < np.mean(said) <= 0.2 + 4 * (0.2 * 0.8 / 200) ** 0.5


@pytest.mark.parametrize("k", [2, 8])
def test_pairs_that_resemble_the_target_give_leaks_on_null_data_and_are_refused(k: int) -> None:
    """Networks that do not leak: the first of each pair, like the target, is surer of everything than the second."""
    rng = np.random.default_rng(k)
    member = rng.integers(2, size=2000).astype(np.int8)
    first = np.where(rng.random((k // 2, 2000)) < 0.8, member, 1 - member)
    inside = np.stack([first, 1 - first], axis=1).reshape(k, 2000).T.astype(np.int8)
    phi = answers(np.zeros((2000, k + 1)), rng) + np.array([1.0, *[1.0, 0.0] * (k // 2)])
    result = result_of("lira_fixed", samples_of(phi[:, :, 0], phi[:, :, 1:], inside, member, np.zeros(2000)))
    assert auc(member, result.scores).low > 0.53
    assert inclusion_problem(inside) == ""
    found = inclusion_problem(inside, member=member)
    assert found.startswith("of the target the training set of reference 0 tells the members with AUC 0.")


@pytest.mark.parametrize("size", [1, 20])
def test_samples_that_were_drawn_in_groups_are_not_refused(size: int) -> None:
    """Of independent halves of 100 groups of 20 samples most would be, if each sample counted."""
    rng, refused = np.random.default_rng(size), []
    for _ in range(30):
        group = np.repeat(np.arange(100), size)
        member, inside = rng.integers(2, size=100)[group], rng.integers(2, size=(100, 4))[group]
        assert inclusion_problem(inside, member=member, group=group) == ""
        phi = np.repeat(rng.normal(size=(100, 1, 4)), size, axis=0)
        assert all(each.low <= 0.5 <= each.high for each in own_areas(phi, inside, group=group).values())
        refused.append(bool(inclusion_problem(inside, member=member)))
    assert np.mean(refused) > 0.5 if size > 1 else not any(refused)
