"""Which rows of outputs are one sample, and which are equal by chance."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.attacks.equal_outputs import row_keys, same_samples
from mia_batch.attacks.grouping import group_codes, twins


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(n: int, width: int = 5, seed: int = 0, surer: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(width, size=n)
    logits = rng.normal(size=(n, width)).astype(np.float32)
    logits[np.arange(n), label] += np.float32(surer)
    return logits, label


def found(logits: np.ndarray, label: np.ndarray | None, member: np.ndarray) -> np.ndarray | None:
    return same_samples(row_keys(logits, label), member, logits if logits.ndim == 2 else None)


def n_twins(logits: np.ndarray, label: np.ndarray | None, member: np.ndarray) -> int:
    return int(twins(found(logits, label, member), member).sum())


def n_groups(logits: np.ndarray, label: np.ndarray | None, member: np.ndarray) -> int:
    return len(np.unique(group_codes(found(logits, label, member), None, len(member))))


SIDES = np.repeat([1, 0], 500)


def test_equal_rows_have_equal_keys_whatever_the_sign_of_zero() -> None:
    rows = np.array([[0.0, 1], [-0.0, 1], [0, 2], [0, 1]], np.float32)
    keys = row_keys(rows, np.array([1, 1, 1, 0]))
    assert keys[0] == keys[1]
    assert len(np.unique(keys)) == 3
    assert row_keys(np.array([1.0, 1.0]), None)[0] == row_keys(np.array([1.0]), None)[0]


def test_distinct_rows_leave_nothing_to_keep() -> None:
    assert found(*drawn(1000), SIDES) is None


@pytest.mark.parametrize("width", [2, 3, 10])
def test_rows_on_both_sides_are_twins(width: int) -> None:
    z, y = drawn(1000, width)
    z[500:540], y[500:540] = z[:40], y[:40]
    assert n_twins(z, y, SIDES) == 80
    y[500:510] = (y[500:510] + 1) % width  # another label: another sample
    assert n_twins(z, y, SIDES) == 60


def test_probabilities_of_three_classes_tell_samples_apart() -> None:
    z, y = drawn(1000, 3)
    z = np.log(softmax(z)).astype(np.float32)
    z[500:520], y[500:520] = z[:20], y[:20]
    assert n_twins(z, y, SIDES) == 40


@pytest.mark.parametrize("one_number", [lambda p: np.column_stack([0 * p, p]), lambda p: np.column_stack([-p, p])])
def test_one_number_tells_too_little_of_its_sample(one_number: object) -> None:
    z = one_number(np.random.default_rng(0).normal(size=1000).astype(np.float32))  # type: ignore[operator]
    z[500:520] = z[:20]
    assert n_twins(z, np.zeros(1000, int), SIDES) == 0


@pytest.mark.parametrize("values", ["losses", "one logit", "logits", "rounded"])
def test_two_sides_of_the_same_rows_are_the_same_samples(values: str) -> None:
    z, y = drawn(500)
    rows = {"losses": z[:, 0], "one logit": np.column_stack([0 * z[:, 0], z[:, 0]]), "logits": z,
            "rounded": np.round(softmax(z), 1).astype(np.float32)}[values]  # fmt: skip
    order = np.random.default_rng(1).permutation(500)
    both, labels = np.concatenate([rows, rows[order]]), np.concatenate([y, y[order]])
    assert n_twins(both, labels % 2 if values == "one logit" else labels, SIDES) == 1000


@pytest.mark.parametrize("surer", [4.0, 12.0])
@pytest.mark.parametrize("digits", [1, 2, 4])
def test_rounded_and_saturated_outputs_are_equal_by_chance(digits: int, surer: float) -> None:
    z, y = drawn(1000, 10, surer=8)
    z[np.arange(500), y[:500]] += np.float32(surer)  # of members, who are sure to be right
    p = np.round(softmax(z), digits)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(p), -745).astype(np.float32)
    content = found(logits, y, SIDES)
    tied = 1000 - len(np.unique(row_keys(logits, y)))
    assert tied > 30
    assert twins(content, SIDES).sum() <= 4
    assert len(np.unique(group_codes(content, None, 1000))) >= 995


def test_few_answers_of_a_tree_are_given_to_many_samples() -> None:
    rng = np.random.default_rng(0)
    leaves, _ = drawn(200)
    leaf = rng.integers(200, size=2000)
    member = np.repeat([1, 0], 1000)
    assert n_twins(leaves[leaf], np.zeros(2000, int), member) == 0
    assert n_groups(leaves[leaf], np.zeros(2000, int), member) == 2000


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize("values", ["losses", "logits", "one logit"])
def test_a_side_that_was_written_several_times_is_groups(values: str, times: int) -> None:
    z, y = drawn(1000)
    rows = {"losses": z[:, 0], "one logit": np.column_stack([0 * z[:, 0], z[:, 0]]), "logits": z}[values]
    label = y % 2
    again = np.r_[np.tile(np.arange(500), times), np.arange(500, 1000)]
    member = np.repeat([1, 0], [500 * times, 500])
    assert n_groups(rows[again], label[again], member) == 1000
    assert n_twins(rows[again], label[again], member) == 0
    assert n_groups(np.tile(rows, (times, 1)[: rows.ndim]), np.tile(label, times), np.tile(SIDES, times)) == 1000


def test_samples_that_were_drawn_several_times_are_groups() -> None:
    z, y = drawn(1000)
    again = np.r_[np.random.default_rng(0).integers(500, size=800), np.arange(500, 1000)]
    member = (again < 500).astype(int)
    assert n_groups(z[again], y[again], member) == len(np.unique(again))
    assert n_twins(z[again], y[again], member) == 0


def test_a_doubled_side_that_shares_samples_has_both() -> None:
    z, y = drawn(1000)
    z[500:550], y[500:550] = z[:50], y[:50]
    member = np.tile(SIDES, 2)
    assert n_twins(np.tile(z, (2, 1)), np.tile(y, 2), member) == 200
