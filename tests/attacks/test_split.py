"""Splits: every row is scored once, by models that saw neither it nor its group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mia_batch.attacks.split import fit_split, make_splits, n_splits
from mia_batch.errors import InputError
from mia_batch.samples import Split

Y = np.repeat([1, 0], [60, 45]).astype(np.int8)


def splits(y: np.ndarray = Y, **options: Any) -> list[Split]:
    return make_splits(y, **{"evaluation": "cross_fit", "eval_fraction": 0.2, "seed": 3, "cv": 3, **options})


def test_cross_fitting_scores_every_row_once_and_never_by_a_model_that_saw_it() -> None:
    found = splits()
    assert len(found) == n_splits("cross_fit", 0.2) == 5
    assert sorted(np.concatenate([split.evaluated for split in found])) == list(range(105))
    for split in found:
        assert not set(split.fit) & set(split.evaluated)
        assert len(split.fit) + len(split.evaluated) == 105
        assert np.bincount(Y[split.evaluated]).tolist() == [9, 12]
        assert all(np.bincount(Y[split.fit[split.fold_of == number]]).tolist() == [12, 16] for number in range(3))


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, 2), (0.33, 3), (0.3, 3), (0.2, 5), (0.9, 2), (0.1, 10)])
def test_the_number_of_parts(fraction: float, expected: int) -> None:
    assert len(splits(eval_fraction=fraction)) == expected


@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
def test_seeded(evaluation: str) -> None:
    one, again, other = (splits(evaluation=evaluation, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a.fit, b.fit) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0].evaluated, other[0].evaluated)


@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
@pytest.mark.parametrize("size", [2, 7])
def test_groups_stay_together(evaluation: str, size: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300).astype(np.int8)
    group = rng.permutation(300) // size
    found = splits(y, evaluation=evaluation, group=group)
    for split in found:
        assert not set(group[split.fit]) & set(group[split.evaluated])
        for number in range(3):
            inside = split.fold_of == number
            assert not set(group[split.fit[inside]]) & set(group[split.fit[~inside]])
            assert abs(inside.sum() - len(split.fit) / 3) <= 2 * size
        assert abs(len(split.evaluated) - 60) <= 2 * size
        assert abs(y[split.evaluated].mean() - y.mean()) < 0.1
    if evaluation == "cross_fit":
        assert sorted(np.concatenate([split.evaluated for split in found])) == list(range(300))


@pytest.mark.parametrize("fraction", [0.2, 0.3, 0.8])
def test_a_held_out_part_of_groups_is_as_large_as_asked(fraction: float) -> None:
    rng = np.random.default_rng(2)
    y, group = rng.integers(0, 2, 1000).astype(np.int8), np.arange(1000) // 2
    (split,) = splits(y, evaluation="holdout", eval_fraction=fraction, group=group)
    assert len(split.evaluated) == pytest.approx(1000 * fraction, abs=10)


def test_a_few_twins_among_rows_that_stand_alone() -> None:
    group = np.arange(105)
    group[[0, 1, 2]] = 0
    for split in splits(group=group):
        assert len(set(split.evaluated) & {0, 1, 2}) in (0, 3)
        assert abs(len(split.evaluated) - 21) <= 3


def test_groups_of_one_row_change_nothing() -> None:
    alone = np.random.default_rng(1).permutation(105)
    for evaluation in ("cross_fit", "holdout"):
        pairs = zip(splits(evaluation=evaluation), splits(evaluation=evaluation, group=alone), strict=True)
        assert all(np.array_equal(a.fit, b.fit) and np.array_equal(a.fold_of, b.fold_of) for a, b in pairs)


@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
def test_rows_left_out_neither_fit_nor_score(evaluation: str) -> None:
    left_out = np.arange(105) % 10 == 0
    for split in splits(evaluation=evaluation, left_out=left_out):
        assert not set(np.flatnonzero(left_out)) & {*split.fit, *split.evaluated}


def test_at_most_so_many_rows_fit_and_all_are_scored() -> None:
    found = splits(max_rows=40)
    assert [len(split.fit) for split in found] == [40] * 5
    assert sum(len(split.evaluated) for split in found) == 105
    assert all(10 < Y[split.fit].sum() < 35 for split in found)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"y": np.repeat([1, 0], [50, 3]).astype(np.int8)}, "attack.eval_fraction: must leave members and non-members"),
        ({"cv": 40}, "attack.cv: must be at most 36"),
        ({"group": np.repeat([0, 1, 2, 3], [60, 15, 15, 15])}, "data.group: must leave members and non-members"),
        ({"group": np.repeat(np.arange(15), 7), "cv": 14}, "attack.cv: must leave members and non-members in every"),
    ],
)
def test_impossible_splits_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        splits(**options)


def test_all_rows_fit_for_rows_that_come_later() -> None:
    left_out, group = np.arange(105) % 7 == 0, np.arange(105) // 3
    for together in (None, group):
        split = fit_split(Y, cv=3, seed=3, group=together, left_out=left_out)
        assert sorted(split.fit) == list(np.flatnonzero(~left_out))
        assert len(split.evaluated) == 0
        assert split.n_folds == 3
        assert not np.array_equal(split.fit, np.sort(split.fit))
    for number in range(3):
        inside = split.fold_of == number
        assert not set(group[split.fit[inside]]) & set(group[split.fit[~inside]])
    with pytest.raises(InputError, match=r"attack.cv: must be at most 1, the rows of the rarer class that fit, got 3"):
        fit_split(np.array([1, 0, 0, 0], dtype=np.int8), cv=3, seed=1)
