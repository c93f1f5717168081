"""Claims about records against published numbers, slow references, SciPy and simulated false discoveries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mia_batch.metrics import records


def test_published_numbers() -> None:
    p = records.conformal_p_values(np.arange(1, 20) * 0.05, [2, 0.97, 0.9, 0.5, 0.3])
    assert p == pytest.approx([0.05, 0.05, 0.15, 0.55, 0.75])
    assert not records.benjamini_hochberg(p, q=0.1).any()
    # With q = .125 the limit of the second is .05, which both reach.
    assert records.benjamini_hochberg(p, q=0.125).tolist() == [True, True, False, False, False]


@given(st.lists(st.integers(-3, 3), max_size=12), st.lists(st.integers(-4, 4), max_size=12))
def test_p_values_are_shares_counted_one_by_one(calibration: list[int], scores: list[int]) -> None:
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert records.conformal_p_values(calibration, scores) == pytest.approx(expected)


@given(st.lists(st.integers(0, 1000), max_size=30), st.floats(0.01, 0.5))
def test_rejections_are_those_of_adjusted_p_values(thousandths: list[int], q: float) -> None:
    p = np.array(thousandths) / 1000
    rejected = records.benjamini_hochberg(p, q=q)
    if len(p):
        adjusted = stats.false_discovery_control(p)
        clear = np.abs(adjusted - q) > 1e-9
        assert (rejected == (adjusted <= q))[clear].all()
    else:
        assert rejected.shape == (0,)


def test_a_p_value_at_its_limit_is_rejected_despite_rounding() -> None:
    for m in range(1, 200):
        p = np.ones(m)
        p[: m // 2 + 1] = 0.1 * (m // 2 + 1) / m
        assert records.benjamini_hochberg(p, q=0.1).sum() == m // 2 + 1


def test_nothing_to_compare_with_claims_nothing() -> None:
    assert records.conformal_p_values([], [9.0, math.inf]).tolist() == [1.0, 1.0]
    assert not records.claimed_members([], [9.0], q=0.5).any()
    assert records.claimed_members([0.0], [], q=0.5).shape == (0,)


@pytest.mark.parametrize("decimals", [20, 0])
def test_p_values_of_nonmembers_are_as_rare_as_they_say(decimals: int) -> None:
    """Both ways without ties: at most and, as they are uniform on multiples of 1 / 40, exactly."""
    rng, trials = np.random.default_rng(0), 20_000
    calibration, scores = rng.normal(size=(trials, 39)).round(decimals), rng.normal(size=trials).round(decimals)
    p = np.array([records.conformal_p_values(c, [s])[0] for c, s in zip(calibration, scores, strict=True)])
    for u in (0.025, 0.1, 0.5):
        noise = 3 * math.sqrt(u * (1 - u) / trials)
        assert np.mean(p <= u + 1e-12) <= u + noise
        if decimals == 20:
            assert np.mean(p <= u + 1e-12) >= u - noise


def test_false_claims_are_as_rare_as_they_say() -> None:
    """A fifth of 200 records are members, far up: with q = .2 the share of false claims is .2 x .8 on average."""
    rng, trials, q = np.random.default_rng(1), 400, 0.2
    shares, found = [], []
    for _ in range(trials):
        claimed = records.claimed_members(rng.normal(size=400), rng.normal(np.repeat([3.0, 0.0], [40, 160])), q=q)
        shares.append(claimed[40:].sum() / max(1, claimed.sum()))
        found.append(claimed[:40].mean())
    error = 3 * np.std(shares) / math.sqrt(trials)
    assert abs(np.mean(shares) - 0.8 * q) <= error
    assert np.mean(found) > 0.7


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="calibration: must not be NaN, got NaN at 1"):
        records.conformal_p_values([0.0, math.nan], [0.0])
    with pytest.raises(ValueError, match="scores: must have one dimension"):
        records.conformal_p_values([0.0], [[0.0]])
    with pytest.raises(ValueError, match=r"p_values: must be in \[0, 1\], got 1.5"):
        records.benjamini_hochberg([0.5, 1.5], q=0.1)
    for q in (0.0, 1.0):
        with pytest.raises(ValueError, match="q: must be in"):
            records.benjamini_hochberg([0.5], q=q)


# --- claims among samples that are each other's calibration ----------------------------------------------------------


def naive_p(member: list[int], scores: list[float], split: list[int]) -> list[float]:
    found = []
    for i, score in enumerate(scores):
        others = [scores[j] for j in range(len(scores)) if j != i and not member[j] and split[j] == split[i]]
        found.append(float(records.conformal_p_values(others, [score])[0]))
    return found


ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 2)), max_size=25)


@given(ROWS, st.floats(0.05, 0.9))
def test_a_sample_is_compared_with_the_other_nonmembers_of_its_split(
    rows: list[tuple[int, int, int]], q: float
) -> None:
    member, scores, split = ([row[i] for row in rows] for i in range(3))
    found = records.claims(member, scores, split, q=q)
    assert found.p == pytest.approx(naive_p(member, [float(score) for score in scores], split))
    assert (found.claimed == records.benjamini_hochberg(found.p, q=q)).all()
    if found.claimed.any():
        assert found.claimed.sum() >= records.fewest_claims(member, split, q=q)
        n_false = (found.claimed & (np.array(member) == 0)).sum()
        assert n_false <= q * found.claimed.sum() * (1 - np.mean(member)) + 1e-9  # always, not on average


def test_the_published_p_values_among_members() -> None:
    member = np.repeat([0, 1], [19, 5])
    scores = np.concatenate([np.arange(1, 20) * 0.05, [2, 0.97, 0.9, 0.5, 0.3]])
    found = records.claims(member, scores, np.zeros(24, dtype=int), q=0.1)
    assert found.p[19:] == pytest.approx([0.05, 0.05, 0.15, 0.55, 0.75])
    assert found.p[:19] == pytest.approx((19 - np.arange(19)) / 19)  # each among the 18 others
    assert not found.claimed.any()


def test_scores_of_another_split_do_not_count() -> None:
    """The second split's models say more of everything."""
    member, split = np.tile([0, 0, 0, 1], 2), np.repeat([0, 1], 4)
    p = records.cross_conformal_p_values(member, [1, 2, 3, 2.5, 11, 12, 13, 12.5], split)
    assert p.tolist() == [1, 2 / 3, 1 / 3, 0.5] * 2


def test_fewer_than_so_many_at_once_cannot_be_claimed() -> None:
    """99 non-members and 99 members: a member's smallest p is .01, so that at .1 20 of 198 must have about that.

    The highest non-member has 1 / 99, which 20 are just enough for.
    """
    member, split = np.repeat([0, 1], 99), np.zeros(198, dtype=int)
    assert records.fewest_claims(member, split, q=0.1) == 20
    for n_above, n_claimed in ((18, 0), (19, 20), (20, 21)):
        scores = np.concatenate([np.linspace(0, 1, 99), np.full(n_above, 2.0), np.full(99 - n_above, -1.0)])
        assert records.claims(member, scores, split, q=0.1).claimed.sum() == n_claimed
    assert records.fewest_claims([1, 1], [0, 0], q=0.1) == 20  # p is 1 without calibration: never
    assert records.fewest_claims([], [], q=0.1) == 1


def test_without_a_difference_hardly_anything_is_claimed() -> None:
    """The share of trials with any claim is the false discovery rate among new samples: at most q."""
    rng, trials = np.random.default_rng(5), 400
    member, split = np.repeat([0, 1], [200, 20]), np.zeros(220, dtype=int)
    any_claim = [records.claims(member, rng.normal(size=220), split, q=0.5).claimed[200:].any() for _ in range(trials)]
    assert np.mean(any_claim) <= 0.5 + 3 * math.sqrt(0.25 / trials)


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_ranks_count_who_is_above(scores: list[int]) -> None:
    assert records.ranks(scores).tolist() == [1 + sum(other > score for other in scores) for score in scores]
    assert records.ranks(scores, last=True).tolist() == [sum(other >= score for other in scores) for score in scores]


def test_the_highest_rows_of_any_attack() -> None:
    one, two = np.array([1, 2, 3, 4, 0]), np.array([4, 3, 2, 1, 0])
    assert records.highest_rows([one], 5, 2).tolist() == [0, 1]
    assert records.highest_rows([one, two], 5, 2).tolist() == [0, 3]
    assert records.highest_rows(iter([one, two]), 5, 3).tolist() == [0, 1, 3]  # of equal ones the first
    assert records.highest_rows([one], 5, 9).tolist() == [0, 1, 2, 3, 4]
    assert records.highest_rows([], 3, 2).tolist() == [0, 1]
    assert records.highest_rows([one], 5, 0).tolist() == []


def test_columns_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="scores: must be as many as member and scored_by, got 1"):
        records.claims([0, 1], [0.0], [0, 0], q=0.1)
    with pytest.raises(ValueError, match="member: must be 0 or 1"):
        records.claims([2], [0.0], [0], q=0.1)


def test_exposure_is_that_of_a_naive_count() -> None:
    rng, n = np.random.default_rng(4), 60
    member = rng.integers(0, 2, n)
    found, said = records.Exposure(n), []
    for _ in range(4):
        rank = np.where(rng.random(n) < 0.8, rng.integers(1, n + 1, n), 0)
        claimed, p = rng.random(n) < 0.2, rng.random(n)
        said.append((rank, claimed, p))
        found.add(rank, claimed, p)
    expected = []
    for row in range(n):
        own = [(rank[row], number, p[row]) for number, (rank, _, p) in enumerate(said) if rank[row]]
        n_claims = sum(bool(claimed[row]) for rank, claimed, _ in said if rank[row])
        assert found.n_claims[row] == n_claims
        if own:
            best = min(own, key=lambda each: each[0])
            assert (found.rank[row], found.attack[row], found.p[row]) == best
            expected += [(-n_claims, best[0], row)] if member[row] else []
    assert found.most(member, 10).tolist() == [row for *_, row in sorted(expected)[:10]]


def test_nobody_is_exposed_by_attacks_without_scores() -> None:
    nothing = records.Exposure(3)
    nothing.add(np.zeros(3, dtype=np.int64), np.ones(3, dtype=bool), np.ones(3))
    assert nothing.most([1, 1, 0], 5).tolist() == []
    assert nothing.n_claims.tolist() == [0, 0, 0]
