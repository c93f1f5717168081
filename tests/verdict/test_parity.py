"""Members beside non-members: closed forms, a plain permutation, and how often chance is called a difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mia_batch.verdict.parity import Mix, Parity, mix

COUNTS: dict[str, Any] = {"configured": (4, 4), "left_out": (0, 0), "scored": (4, 4), "augment_members": False}
ALIKE = Mix(0.0, 0.0, 1.0)


def sides(m: int, n: int) -> np.ndarray:
    return np.repeat([True, False], [m, n])


def test_closed_forms() -> None:
    apart = mix(sides(30, 50), np.repeat([7, -2], [30, 50]), seed=0)
    assert apart is not None
    assert (apart.total_variation, apart.p_value, apart.differs) == (pytest.approx(1.0), 0.001, True)
    equal = mix(sides(4, 8), np.array([0, 1, 2, 3] * 3), seed=0)
    assert equal is not None
    assert (equal.total_variation, equal.p_value, equal.differs) == (pytest.approx(0.0), 1.0, False)
    some = mix(sides(4, 4), np.array([0, 0, 0, 1, 0, 1, 1, 1]), seed=0)
    assert some is not None
    assert some.total_variation == pytest.approx(0.5)
    assert mix(sides(4, 0), np.zeros(4, int), seed=0) is None


def test_as_a_plain_permutation_says() -> None:
    rng = np.random.default_rng(0)
    member, kind = sides(60, 40), rng.integers(0, 6, 100) * (rng.random(100) < 0.8)

    def variation(truth: np.ndarray) -> float:
        shares = [np.bincount(kind[truth == side], minlength=6) / (truth == side).sum() for side in (True, False)]
        return float(abs(shares[0] - shares[1]).sum() / 2)

    plain = np.array([variation(rng.permutation(member)) for _ in range(4000)])
    found = mix(member, kind, seed=1)
    assert found is not None
    assert found.total_variation == pytest.approx(variation(member))
    assert found.by_chance == pytest.approx(plain.mean(), abs=0.006)
    assert found.p_value == pytest.approx((plain >= variation(member) - 1e-12).mean(), abs=0.05)


@pytest.mark.parametrize(("n", "n_classes"), [(1000, 100), (100, 100), (60, 3)])
def test_chance_is_a_difference_in_about_one_of_a_hundred(n: int, n_classes: int) -> None:
    """The p-values of many classes with few samples each, which a chi-square table would not give."""
    rng, found = np.random.default_rng(0), []
    for seed in range(400):
        each = mix(sides(n, n), rng.integers(0, n_classes, 2 * n), seed=seed)
        assert each is not None
        found.append(each.p_value)
    assert np.mean(np.array(found) <= 0.01) <= 0.03
    assert 0.06 <= np.mean(np.array(found) <= 0.1) <= 0.14 or n_classes == 3  # few values of a small table
    assert np.mean(np.array(found) <= 0.1) <= 0.14


def test_a_difference_is_a_caution_with_its_figures() -> None:
    differs = Parity(**COUNTS, classes=Mix(0.3, 0.1, 0.001))
    (said,) = differs.cautions
    assert "the classes of members and non-members differ: 30.0% of a side would have to change, 10.0% by" in said
    assert Parity(**COUNTS, classes=Mix(0.12, 0.1, 0.001)).cautions == ()  # found in many samples, and small
    assert Parity(**COUNTS, classes=Mix(0.3, 0.1, 0.05)).cautions == ()
    assert Parity(**COUNTS, classes=None).cautions == ()


def test_sizes_and_scales_are_compared() -> None:
    sizes = Parity(**COUNTS, classes=ALIKE, sizes=Mix(1.0, 0.1, 0.001))
    assert "the sizes of members and non-members differ" in sizes.cautions[0]
    scales = Parity(**COUNTS, classes=ALIKE, ranges=((0.0, 255.0), (0.0, 1.0)))
    assert "values from 0 to 255, those of non-members from 0 to 1" in scales.cautions[0]
    assert Parity(**COUNTS, classes=ALIKE, ranges=((0.0, 255.0), (3.0, 250.0))).cautions == ()
