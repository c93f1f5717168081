"""Preprocessed samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mia_batch.data.selection import Selection, read_images
from mia_batch.data.sources import Images, Source, open_source
from mia_batch.inputs import describe
from mia_batch.network.datasets import open_dataset
from mia_batch.network.preprocess import Preprocess, augmented
from mia_batch.settings.schema import DataConfig

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Reader = Callable[[np.ndarray], tuple[Images, np.ndarray]]


def reader(
    data: DataConfig, selection: Selection, *, source: Source | None = None, seed: int = 1
) -> Reader:
    """What reads the images of given rows, and describes them (`inputs.describe`) as their source gives them.

    Members are augmented after that if `data` says so.

    Args:
        data: where samples are.
        selection: what row numbers mean.
        source: of `data`, if it is open already.
        seed: of `augment_members`.
    """
    opened = source or open_source(data, open_dataset)

    def read(rows: np.ndarray) -> tuple[Images, np.ndarray]:
        images = read_images(opened, selection, rows)
        inputs = describe(images)
        return _augment_members(images, selection, rows, seed) if data.augment_members else images, inputs

    return read


def batches(
    data: DataConfig, selection: Selection, rows: np.ndarray, batch_size: int, *, read: Reader | None = None
) -> Iterator[Batch]:
    """Preprocessed samples, read only when their batch is asked for.

    Args:
        data: where samples are, and the preprocessing.
        selection: what row numbers mean.
        rows: row numbers wanted, ascending.
        batch_size: rows of a batch at most. A batch never crosses a multiple of it, as `Predictor` wants.
        read: gives the images of rows, and what is kept of them; default: from the source.

    Yields:
        rows int64 (n,), images float32 (n, 3, height, width), labels int32 (n,), inputs (n,) of `INPUT_DTYPE`, in the
        order of `rows`.

    Raises:
        InputError: a sample that cannot be read, is no image, or has another label than was selected.
    """
    read = read or reader(data, selection)
    preprocess = Preprocess(data.image_size, data.mean, data.std)
    rows = np.asarray(rows, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(rows // batch_size)) + 1
    for part in np.split(rows, cuts) if len(rows) else ():
        images, inputs = read(part)
        yield part, preprocess(images), selection.label[part], inputs


def _augment_members(
    images: Images, selection: Selection, rows: np.ndarray, seed: int
) -> list[np.ndarray]:
    changed = augmented(images, selection.split[rows], selection.sample_index[rows], seed)
    member = selection.member[rows] == 1
    return [new if inside else old for new, old, inside in zip(changed, images, member, strict=True)]
