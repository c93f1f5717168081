"""The network's inputs, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mia_batch.data.forms import Form
from mia_batch.data.selection import Selection, form_of, read_inputs
from mia_batch.data.sources import Source, open_source
from mia_batch.data.user_preprocess import UserPreprocess
from mia_batch.inputs import Batch, Column, Inputs, describe_inputs
from mia_batch.network.datasets import open_dataset
from mia_batch.network.input_side import Arrays, bind
from mia_batch.network.preprocess import Preprocess, augmented
from mia_batch.network.queries import views
from mia_batch.settings.schema import DataConfig, QueriesConfig

if TYPE_CHECKING:
    from mindspore import nn

Reader = Callable[[np.ndarray], tuple[Inputs, np.ndarray]]
ToNetwork = Callable[[Inputs, np.ndarray], Arrays]


def reader(
    data: DataConfig, selection: Selection, *, source: Source | None = None, form: Form | None = None, seed: int = 1
) -> Reader:
    """What reads the inputs of given rows, and describes them (`inputs.describe_inputs`) as their source gives them.

    After that arrays are padded and stacked. Images stay as they are, but for members, if `data` says to augment them.

    Args:
        data: where samples are.
        selection: what row numbers mean.
        source: of `data`, if it is open already.
        form: what every sample must have, if it is known already.
        seed: of `augment_members`.
    """
    opened = source or open_source(data, open_dataset)
    held = form or form_of(data, opened, selection)

    def read(rows: np.ndarray) -> tuple[Inputs, np.ndarray]:
        inputs = read_inputs(opened, selection, rows, held)
        kept = describe_inputs(inputs)
        if not data.is_image:
            return held.stack(inputs), kept
        if data.augment_members:
            inputs = replace(inputs, columns=(_augment_members(inputs.columns[0], selection, rows, seed),))
        return inputs, kept

    return read


def to_network(data: DataConfig, batch_size: int, network: nn.Cell) -> ToNetwork:
    """What makes the network's arguments of the inputs that a reader gives, and of their places in the batch.

    Args:
        data: the preprocessing.
        batch_size: rows of a batch.
        network: that takes them, a dictionary's by the names of its parameters.
    """
    order: tuple[str, ...] = ()
    if data.is_image:
        preprocess = Preprocess(data.image_size, data.mean, data.std)
        return lambda inputs, _places: (preprocess(inputs.columns[0]),)
    if data.preprocess == "none":
        order = data.columns.named() if data.columns else ()
        change: Callable[[Inputs, np.ndarray], Inputs] = lambda inputs, _places: inputs  # noqa: E731
    else:
        change = UserPreprocess(data.preprocess, batch_size)

    def convert(inputs: Inputs, places: np.ndarray) -> Arrays:
        return bind(change(inputs, places), network, order)

    return convert


def batches(
    data: DataConfig, selection: Selection, rows: np.ndarray, batch_size: int, *, network: nn.Cell,
    read: Reader | None = None, queries: QueriesConfig | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Preprocessed samples, read only when their batch is asked for.

    Args:
        data: where samples are, and the preprocessing.
        selection: what row numbers mean.
        rows: row numbers wanted, ascending.
        batch_size: rows of a batch at most. A batch never crosses a multiple of it, as `Predictor` wants.
        network: as of `to_network`.
        read: gives the inputs of rows, and what is kept of them; default: from the source.
        queries: of images; then the inputs are those of each query, instead of the network's arguments.

    Yields:
        rows int64 (n,), the network's inputs (n, ...), labels int32 (n,), what is kept (n,) of `INPUT_DTYPE`, in the
        order of `rows`. Images are float32 (n, channels, height, width).

    Raises:
        InputError: a sample that cannot be read, is not as the first is, or has another label than was selected, or
            inputs that the network has no parameters for.
    """
    read = read or reader(data, selection)
    convert = to_network(data, batch_size, network)
    rows = np.asarray(rows, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(rows // batch_size)) + 1
    for part in np.split(rows, cuts) if len(rows) else ():
        inputs, kept = read(part)
        asked = [inputs]
        if queries:
            asked = [replace(inputs, columns=(images,)) for images in views(inputs.columns[0], queries)]
        arrays = tuple(array for each in asked for array in convert(each, part % batch_size))
        yield Batch(part, arrays, selection.label[part], kept)


def _augment_members(images: Column, selection: Selection, rows: np.ndarray, seed: int) -> list[np.ndarray]:
    changed = augmented(images, selection.split[rows], selection.sample_index[rows], seed)
    member = selection.member[rows] == 1
    return [new if inside else old for new, old, inside in zip(changed, images, member, strict=True)]
