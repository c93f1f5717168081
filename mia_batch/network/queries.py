"""Several queries for each image: as it is, shifted, and each of these mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mia_batch.inputs import Column
from mia_batch.settings.schema import MAX_SHIFT, QueriesConfig


def offsets(queries: QueriesConfig) -> list[tuple[int, int]]:
    """How far images are shifted down and to the right, in pixels: not at all, then by `queries.shifts` others."""
    steps = range(-MAX_SHIFT, MAX_SHIFT + 1)
    others = [(down, right) for down in steps for right in steps if (down, right) != (0, 0)]
    drawn = np.random.default_rng(queries.seed).permutation(len(others))[: queries.shifts]
    return [(0, 0), *(others[i] for i in drawn)]


def views(images: Column, queries: QueriesConfig) -> Iterator[Column]:
    """The images of each query, the images as they are first."""
    for offset in offsets(queries):
        moved = images if offset == (0, 0) else _each(images, partial(shifted, by=offset))
        yield moved
        if queries.flip:
            yield _each(moved, lambda image: image[..., ::-1, :])


def shifted(image: np.ndarray, *, by: tuple[int, int]) -> np.ndarray:
    """Images (..., height, width, channels), moved down and to the right; what comes in is black."""
    moved = np.zeros_like(image)
    (to_y, from_y), (to_x, from_x) = (_overlap(each) for each in by)
    moved[..., to_y, to_x, :] = image[..., from_y, from_x, :]
    return moved


def _overlap(by: int) -> tuple[slice, slice]:
    return (slice(by, None), slice(None, -by or None)) if by >= 0 else (slice(None, by), slice(-by, None))


def _each(images: Column, change: Callable[[np.ndarray], np.ndarray]) -> Column:
    return change(images) if isinstance(images, np.ndarray) else [change(image) for image in images]
