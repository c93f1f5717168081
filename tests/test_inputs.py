"""What is kept of an image: against plain formulas, and the same bits in whatever company."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.inputs import GRID, N_PROJECTIONS, STATISTICS, content, describe


def images(n: int, *, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def statistic(described: np.ndarray, name: str) -> np.ndarray:
    return described["statistics"][:, STATISTICS.index(name)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("side", [8, 32, 50])
def test_statistics_are_those_of_numpy(dtype: type, side: int) -> None:
    some = images(20, side=side).astype(dtype)
    found, flat = describe(some), some.reshape(20, -1).astype(float)
    for name, naive in (
        ("mean", flat.mean(1)), ("variance", flat.var(1)), ("minimum", flat.min(1)), ("maximum", flat.max(1)),
        ("height", np.full(20, side)), ("width", np.full(20, side)),
    ):
        np.testing.assert_allclose(statistic(found, name), naive, rtol=1e-6, err_msg=name)


def test_floats_count_in_sixteenths() -> None:
    some = images(5).astype(np.float32) / 255 * 254 + np.float32(0.3)
    found = describe(some)
    assert abs(statistic(found, "mean") - some.mean((1, 2, 3))).max() < 1 / 32
    np.testing.assert_allclose(statistic(found, "variance"), some.reshape(5, -1).var(1), rtol=1e-3)


def test_projections_keep_distances() -> None:
    """Johnson-Lindenstrauss: a squared distance over 32 projections has a relative error of sqrt(2 / 32)."""
    some = images(200)
    found = describe(some)["statistics"][:, -N_PROJECTIONS:]
    there = ((found[:100] - found[100:]) ** 2).sum(1) / N_PROJECTIONS
    ratio = there / ((some[:100].astype(float) - some[100:]) ** 2).reshape(100, -1).mean(1)
    assert 0.9 < ratio.mean() < 1.1
    assert 0.15 < ratio.std() < 0.35


def test_a_value_is_in_one_projection_with_one_of_two_signs() -> None:
    image = np.full((GRID, GRID, 3), 100, np.uint8)
    changed = [image.copy() for _ in range(200)]
    for position, other in enumerate(changed):
        other.reshape(-1)[position * 15] += 1
    found = describe([image, *changed])["statistics"][:, -N_PROJECTIONS:]
    assert (found[0] == 0).all()  # as many values are added as taken
    moved = found[1:] * np.sqrt(GRID * GRID * 3 / N_PROJECTIONS)
    np.testing.assert_allclose(abs(moved).sum(1), 1, rtol=1e-6)
    assert ((moved != 0).sum(1) == 1).all()
    assert 60 < (moved > 0).any(1).sum() < 140


def test_projections_of_another_size_are_of_its_nearest_pixels() -> None:
    small = images(3)
    large = small.repeat(3, axis=1).repeat(2, axis=2)
    assert large.shape[1:3] == (3 * GRID, 2 * GRID)
    np.testing.assert_array_equal(
        describe(large)["statistics"][:, -N_PROJECTIONS:], describe(small)["statistics"][:, -N_PROJECTIONS:]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("side", [32, 40, 300])
def test_an_image_has_the_same_bits_in_any_company(dtype: type, side: int) -> None:
    some = (images(70, side=side) * np.float32(0.77)).astype(dtype)
    together, other = describe(some), images(1, side=9)[0]
    channel_major = np.ascontiguousarray(some.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(describe(channel_major), together)
    np.testing.assert_array_equal(describe(list(some)), together)
    np.testing.assert_array_equal(describe([some[5], other, some[6], some[7]])[[0, 2, 3]], together[5:8])
    np.testing.assert_array_equal(np.concatenate([describe(some[:33]), describe(some[33:])]), together)


def test_a_hash_is_of_shape_dtype_and_values() -> None:
    image = images(1)[0]
    changed = image.copy()
    changed[31, 31, 2] ^= 1
    others = [changed, image.reshape(16, 64, 3), image.astype(np.float32), image[::-1], image.transpose(1, 0, 2)]
    hashes = content([image, image.copy(), *others])
    assert (hashes[0] == hashes[1]).all()
    assert len(np.unique(hashes, axis=0)) == 1 + len(others)


def test_no_image_at_all() -> None:
    assert describe([]).shape == (0,)
    assert content([]).shape == (0, 16)
