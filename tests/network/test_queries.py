"""Queries of an image: shifts and mirrors, the same for every image."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.network.queries import offsets, shifted, views
from mia_batch.settings.schema import QueriesConfig

IMAGES = np.random.default_rng(1).integers(1, 256, (3, 10, 12, 3), dtype=np.uint8)


def test_a_shift_moves_pixels_and_brings_in_black() -> None:
    assert np.array_equal(shifted(IMAGES, by=(0, 0)), IMAGES)
    moved = shifted(IMAGES, by=(2, -3))
    np.testing.assert_array_equal(moved[:, 2:, :-3], IMAGES[:, :-2, 3:])
    assert not moved[:, :2].any()
    assert not moved[:, :, -3:].any()
    np.testing.assert_array_equal(shifted(IMAGES[0], by=(-1, 4))[:-1, 4:], IMAGES[0][1:, :-4])


@pytest.mark.parametrize(("flip", "shifts"), [(False, 0), (True, 0), (False, 3), (True, 80)])
def test_there_are_as_many_as_the_config_says_and_all_differ(flip: bool, shifts: int) -> None:
    queries = QueriesConfig(flip=flip, shifts=shifts)
    found = list(views(IMAGES, queries))
    assert len(found) == queries.count == (1 + shifts) * (1 + flip)
    np.testing.assert_array_equal(found[0], IMAGES)
    assert len({np.asarray(each).tobytes() for each in found}) == len(found)
    if flip:
        np.testing.assert_array_equal(found[1], IMAGES[:, :, ::-1])
    as_list = list(views(list(IMAGES), queries))
    assert all(np.array_equal(np.stack(one), other) for one, other in zip(as_list, found, strict=True))


def test_shifts_are_drawn_by_the_seed_and_more_of_them_keep_the_first() -> None:
    assert offsets(QueriesConfig(shifts=3))[:3] == offsets(QueriesConfig(shifts=2))
    assert offsets(QueriesConfig(shifts=3)) != offsets(QueriesConfig(shifts=3, seed=2))
    assert len(set(offsets(QueriesConfig(shifts=80)))) == 81
