"""What is kept of an image: against plain formulas, and the same bits in whatever company."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.inputs import GRID, N_PROJECTIONS, STATISTICS, Inputs, content, content_of, describe, describe_inputs


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


# --- of other arrays -------------------------------------------------------------------------------------------------


def vectors(*columns: np.ndarray | list[np.ndarray], kind: str = "tuple") -> Inputs:
    return Inputs(kind, tuple("abc"[: len(columns)]), columns)


def test_general_statistics_are_those_of_numpy_over_all_values() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 30)), rng.integers(-50, 50, (7, 4, 5))
    found, flat = describe_inputs(vectors(a, b)), np.concatenate([a, b.reshape(7, -1)], axis=1)
    for name, naive in (
        ("mean", flat.mean(1)), ("variance", flat.var(1)), ("minimum", flat.min(1)), ("maximum", flat.max(1)),
        ("height", np.full(7, 50)), ("width", np.full(7, 30)),
    ):
        np.testing.assert_allclose(statistic(found, name), naive, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f4", "f8"])
def test_a_sample_of_any_type_has_the_same_bits_in_any_company(dtype: str) -> None:
    values = (np.random.default_rng(1).normal(size=(40, 33)) * 9).astype(dtype)
    together = describe_inputs(vectors(values, values[:, :3]))
    listed = [list(values), [row[:3] for row in values]]
    for order in (np.arange(40), np.arange(40)[::-1], np.array([7]), np.array([3, 9, 3])):
        some = describe_inputs(vectors(*([column[i] for i in order] for column in listed)))
        np.testing.assert_array_equal(some, together[order])


def test_general_projections_keep_distances() -> None:
    values = np.random.default_rng(2).normal(size=(400, 5000))
    found = describe_inputs(vectors(values, kind="array"))["statistics"][:, -N_PROJECTIONS:]
    there = ((found[:200] - found[200:]) ** 2).sum(1) / N_PROJECTIONS
    ratio = there / ((values[:200] - values[200:]) ** 2).mean(1)
    assert 0.9 < ratio.mean() < 1.1
    assert 0.15 < ratio.std() < 0.35


def test_every_value_of_a_short_vector_is_looked_at() -> None:
    for n in (2, 3, 30, 1000):
        changed = np.eye(n) + 5
        found = describe_inputs(vectors(np.concatenate([np.full((1, n), 5.0), changed]), kind="array"))["statistics"]
        assert (found[1:, -N_PROJECTIONS:] != found[0, -N_PROJECTIONS:]).any(axis=1).all(), n


def test_numbers_beyond_the_statistics_count_as_the_largest() -> None:
    found = describe_inputs(vectors(np.array([[1e300, -1e300, 0.0]]), kind="array"))
    assert np.isfinite(found["statistics"]).all()
    assert statistic(found, "maximum") == np.float32(1e18)


def test_a_hash_is_of_all_arrays_with_their_names() -> None:
    a, b = np.arange(6.0), np.arange(6)
    samples = [
        vectors([a], [b]), vectors([b], [a]), vectors([a], [b + 1]), vectors([a, ], [b[:5]]),
        vectors([a.astype("f4")], [b]), vectors([a.reshape(2, 3)], [b]), Inputs("dict", ("x", "y"), ([a], [b])),
        vectors([a], kind="array"), Inputs("dict", ("x",), ([a],)),
    ]  # fmt: skip
    assert len(np.unique(np.concatenate([content_of(sample) for sample in samples]), axis=0)) == len(samples)
    assert (content_of(vectors([a], kind="array")) == content([a])).all()
    assert (describe_inputs(vectors([a], [b]))["content"] == content_of(vectors([a], [b]))).all()


def test_an_image_is_kept_as_before() -> None:
    some = images(3)
    np.testing.assert_array_equal(describe_inputs(Inputs("image", ("image",), (some,))), describe(some))
    grey = some[..., :1]
    assert describe(grey).shape == (3,)
