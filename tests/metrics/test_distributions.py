"""Histograms of both sides: counts by hand, extreme and degenerate values."""

import numpy as np
import pytest

from mia_batch.metrics.distributions import LEAST, histogram


def test_shares_by_hand() -> None:
    found = histogram([1, 1, 1, 1, 0, 0], [0.0, 1.0, 3.9, 4.0, 2.0, 3.0], n_bins=4)
    assert found.edges.tolist() == [0, 1, 2, 3, 4]
    assert found.members.tolist() == [0.25, 0.25, 0, 0.5]
    assert found.nonmembers.tolist() == [0, 0, 0.5, 0.5]


def test_each_side_sums_to_one_and_the_bins_are_numpys() -> None:
    rng = np.random.default_rng(0)
    member, values = rng.integers(0, 2, 5000), rng.normal(size=5000)
    found = histogram(member, values)
    inside = np.clip(values, found.edges[0], found.edges[-1])
    for side, shares in ((1, found.members), (0, found.nonmembers)):
        expected = np.histogram(inside[member == side], found.edges)[0] / (member == side).sum()
        assert shares == pytest.approx(expected, abs=1e-12)
        assert shares.sum() == pytest.approx(1)


def test_extreme_values_do_not_stretch_the_bins() -> None:
    member, values = np.arange(10_000) % 2, np.linspace(0, 1, 10_000)
    values[[0, 1]] = -1e9, np.inf
    found = histogram(member, values)
    assert -0.01 < found.edges[0] < found.edges[-1] < 1.01
    assert found.members.sum() == pytest.approx(1)
    assert found.nonmembers.sum() == pytest.approx(1)


def test_logarithmic_bins_take_zero_into_the_first() -> None:
    found = histogram([1, 1, 0, 0], [0.0, 0.001, 1.0, 10.0], log=True, n_bins=4)
    assert found.edges == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert found.members.tolist() == [1, 0, 0, 0]
    assert found.nonmembers.tolist() == [0, 0, 0, 1]
    assert histogram([1, 0], [0.0, 0.0], log=True).edges.tolist() == [LEAST, 1]
    assert histogram([1, 0], [1e-300, 1e-300], log=True).edges.tolist() == [LEAST / 2, LEAST * 2]


@pytest.mark.parametrize("value", [0.0, 1e300, -np.inf])
def test_equal_values_have_one_bin(value: float) -> None:
    found = histogram([1, 0, 0], [value] * 3)
    assert found.members.tolist() == [1]
    assert found.nonmembers.tolist() == [1]
    assert found.edges[0] < found.edges[1]


def test_one_side_alone_and_what_is_refused() -> None:
    assert histogram([1, 1], [0.0, 1.0]).nonmembers.sum() == 0
    for member, values, said in (([], [], "must hold a sample"), ([1], [np.nan], "NaN"), ([1, 0], [1.0], "shape")):
        with pytest.raises(ValueError, match=said):
            histogram(member, values)
