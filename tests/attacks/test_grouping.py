"""Rows that belong together, against a naive search of every pair."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.attacks.grouping import group_codes, twins
from mia_batch.inputs import NO_GROUP


def hashes(*values: int) -> np.ndarray:
    """Contents that differ only in their last bytes, a zero among them."""
    return np.array([[7] * 15 + [value] for value in values], dtype=np.uint8)


def naive_codes(content: np.ndarray | None, group: np.ndarray | None, n: int) -> list[int]:
    """Walk from each row that has no number yet to all that any pair reaches."""
    codes = [-1] * n
    for row in range(n):
        if codes[row] >= 0:
            continue
        number, reached = max(codes, default=-1) + 1, [row]
        while reached:
            here = reached.pop()
            codes[here] = number
            reached += [
                other for other in range(n) if codes[other] < 0 and (
                    (content is not None and (content[other] == content[here]).all())
                    or (group is not None and group[here] != NO_GROUP and group[other] == group[here])
                )
            ]
    return codes


def test_twins_are_the_rows_whose_input_is_on_both_sides() -> None:
    member = np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
    assert twins(hashes(5, 0, 0, 5, 9, 9, 5), member).tolist() == [True, False, False, True, False, False, True]


def test_without_contents_there_are_no_twins() -> None:
    assert not twins(None, np.array([1, 0], dtype=np.int8)).any()


@pytest.mark.parametrize("seed", range(20))
def test_twins_as_by_every_pair(seed: int) -> None:
    draw = np.random.default_rng(seed)
    content, member = hashes(*draw.integers(0, 30, 40)), draw.integers(0, 2, 40).astype(np.int8)
    naive = [any((a == b).all() and m != o for b, o in zip(content, member, strict=True))
             for a, m in zip(content, member, strict=True)]
    assert twins(content, member).tolist() == naive
    assert 0 < sum(naive) < 40


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("given", ["both", "content", "group", "neither"])
def test_groups_as_by_every_pair(seed: int, given: str) -> None:
    draw = np.random.default_rng(seed)
    content = hashes(*draw.integers(0, 60, 40)) if given in ("both", "content") else None
    group = draw.integers(NO_GROUP, 25, 40) if given in ("both", "group") else None
    assert group_codes(content, group, 40).tolist() == naive_codes(content, group, 40)


def test_a_chain_of_equal_inputs_and_declared_groups_is_one_group() -> None:
    group = np.array([3, 8, 8, NO_GROUP, NO_GROUP, 3], dtype=np.int64)
    assert group_codes(hashes(1, 1, 2, 2, 4, 5), group, 6).tolist() == [0, 0, 0, 0, 1, 0]


def test_rows_without_a_declared_group_stay_alone() -> None:
    assert group_codes(None, np.full(4, NO_GROUP), 4).tolist() == [0, 1, 2, 3]
    assert group_codes(None, None, 0).tolist() == []


@pytest.mark.parametrize(("content", "group"), [(hashes(1, 2), None), (None, np.zeros(2, np.int64))])
def test_arrays_of_another_length_are_refused(content: np.ndarray | None, group: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="must be of shape"):
        group_codes(content, group, 3)
