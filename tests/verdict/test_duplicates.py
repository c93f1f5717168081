"""How many inputs are on both sides, in words, and when that leaves nothing to audit."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.verdict.duplicates import duplicates_caution, named_duplicates, too_many_duplicates


def rows(n_members: int, n_nonmembers: int, *, twins: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    member = np.repeat([1, 0], [n_members, n_nonmembers])
    twin = np.concatenate([np.arange(n) < k for n, k in zip((n_members, n_nonmembers), twins, strict=True)])
    return twin, member


@pytest.mark.parametrize(
    ("sides", "twins", "said"),
    [
        ((100, 100), (5, 5), ""),
        ((100, 100), (6, 1), "6 of 100 members (6.0%)"),
        ((100, 100), (1, 6), "6 of 100 non-members (6.0%)"),
        ((800, 100), (400, 5), "400 of 800 members (50.0%)"),
        ((100, 800), (6, 1), "6 of 100 members (6.0%)"),
        ((800, 100), (1, 6), "6 of 100 non-members (6.0%)"),
        ((4, 4), (0, 0), ""),
        ((4, 0), (0, 0), ""),
    ],
)
def test_the_side_with_the_larger_share_counts(sides: tuple[int, int], twins: tuple[int, int], said: str) -> None:
    reason = too_many_duplicates(*rows(*sides, twins=twins), 0.05)
    assert reason.startswith(said)
    assert bool(reason) == bool(said)


def test_none_allowed_is_none_and_all_allowed_is_all() -> None:
    assert too_many_duplicates(*rows(1000, 1000, twins=(1, 1)), 0.0)
    assert not too_many_duplicates(*rows(10, 10, twins=(10, 10)), 1.0)


def test_a_share_that_is_the_limit_passes() -> None:
    """29 of 100, although .29 * 100 is below 29 in floating point."""
    assert not too_many_duplicates(*rows(100, 100, twins=(29, 29)), 0.29)


def test_they_are_counted_and_the_first_of_each_side_named_apart() -> None:
    twin, member = rows(8, 2, twins=(5, 1))
    split, index = np.where(member == 1, "train", "test"), np.arange(10) * 10
    said = "5 members and 1 non-members have an input that is on both sides, and are left out."
    assert duplicates_caution(twin, member) == said
    assert "1 non-members have outputs and a label that are on" in duplicates_caution(twin, member, outputs=True)
    named = "train sample 0, train sample 10, train sample 20, ...; test sample 80"
    assert named_duplicates(twin, member, split, index) == named
    assert duplicates_caution(twin & False, member) == ""
