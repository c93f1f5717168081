"""Inputs, as their source gives them -> a hash of the content, and statistics that know nothing of the network.

A sample's bits depend on no other sample. Of images what is summed are whole numbers, whose sums are exact in any
order; of other arrays each sample is summed in an order of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_GROUP = -1  # of a sample for which none is declared
HASH_BYTES = 16
GRID = 32  # pixels each way that the projections look at, nearest ones of an image of another size
N_PROJECTIONS = 32
FRACTION = 16  # floats count in sixteenths of a pixel value
BLOCK_VALUES = 1 << 16  # of images looked at together, so that they stay in the cache
STATISTICS = (
    "mean", "variance", "minimum", "maximum", "height", "width", *(f"projection_{i}" for i in range(N_PROJECTIONS))
)
N_DRAWN = 32 * N_PROJECTIONS  # values that the projections of other arrays than images look at
LARGEST = 1e18  # the square of which a float32 holds; values beyond it count as this
INPUT_DTYPE = np.dtype([("content", "u1", (HASH_BYTES,)), ("statistics", "<f4", (len(STATISTICS),))])


Column = NDArray[Any] | list[NDArray[Any]]  # of n samples; a list where their shapes differ


@dataclass(frozen=True)
class Inputs:
    """The inputs of n samples, array by array.

    Attributes:
        kind: what a sample is: "image" (height, width, channels), "array", or a "tuple" or "dict" of arrays.
        names: of the arrays; of a dictionary its keys, ascending.
        columns: for each array, what the n samples have of it: (n, ...), or a list of n.
    """

    kind: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def structure(self) -> Any:
        """The columns as the samples have them: one array, a tuple or a dictionary."""
        if self.kind == "dict":
            return dict(zip(self.names, self.columns, strict=True))
        return self.columns if self.kind == "tuple" else self.columns[0]


class Batch(NamedTuple):
    """Samples as a network takes them."""

    rows: NDArray[np.int64]  # (n,)
    inputs: tuple[NDArray[Any], ...]  # the network's arguments, (n, ...) each
    labels: NDArray[np.int32]  # (n,)
    kept: NDArray[Any]  # (n,) of `INPUT_DTYPE`


def describe_inputs(inputs: Inputs) -> NDArray[Any]:
    """What is kept of each sample, (n,) of `INPUT_DTYPE`, before augmentation, padding and preprocessing."""
    if inputs.kind == "image":
        return describe(inputs.columns[0])
    found = np.empty(len(inputs), INPUT_DTYPE)
    found["content"], found["statistics"] = content_of(inputs), _general_statistics(inputs)
    return found


def content_of(inputs: Inputs) -> NDArray[np.uint8]:
    """Hash of each sample, (n, HASH_BYTES): of one array as `content` of an image, of several with their names."""
    if len(inputs.columns) == 1 and inputs.kind != "dict":
        return content(inputs.columns[0])
    found = np.empty((len(inputs), HASH_BYTES), np.uint8)
    for i, sample in enumerate(zip(*inputs.columns, strict=True)):
        digest = hashlib.blake2b(digest_size=HASH_BYTES)
        for name, array in zip(inputs.names, sample, strict=True):
            digest.update(f"{name!r} {array.shape} {array.dtype.str} ".encode() + array.tobytes())
        found[i] = np.frombuffer(digest.digest(), np.uint8)
    return found


def describe(images: NDArray[Any] | list[NDArray[Any]]) -> NDArray[Any]:
    """What is kept of each image, (n,) of `INPUT_DTYPE`.

    Args:
        images: n arrays (height, width, channels) of uint8, or of floats from 0 to 255, before augmentation and
            preprocessing.
    """
    found = np.empty(len(images), INPUT_DTYPE)
    for part, block in _blocks(images):
        found["content"][part], found["statistics"][part] = _hashes(block), _statistics(block)
    return found


def content(images: NDArray[Any] | list[NDArray[Any]]) -> NDArray[np.uint8]:
    """Hash of each image's shape, dtype and values, (n, HASH_BYTES): BLAKE2b (RFC 7693)."""
    found = np.empty((len(images), HASH_BYTES), np.uint8)
    for part, block in _blocks(images):
        found[part] = _hashes(block)
    return found


def _hashes(images: NDArray[Any]) -> NDArray[np.uint8]:
    digests = b"".join(
        hashlib.blake2b(f"{image.shape} {image.dtype.str} ".encode() + image.tobytes(), digest_size=HASH_BYTES).digest()
        for image in images
    )
    return np.frombuffer(digests, np.uint8).reshape(-1, HASH_BYTES)


def _blocks(images: NDArray[Any] | list[NDArray[Any]]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Consecutive images of one shape and dtype, a few at a time, and where they are."""
    start = 0
    while start < len(images):
        shape, dtype = images[start].shape, images[start].dtype
        end = min(len(images), start + max(1, BLOCK_VALUES // images[start].size))
        others = (i for i in range(start, end) if (images[i].shape, images[i].dtype) != (shape, dtype))
        end = next(others, end)
        yield slice(start, end), _contiguous(np.asarray(images[start:end]))
        start = end


def _contiguous(images: NDArray[Any]) -> NDArray[Any]:
    """A copy, channel by channel: of records, a view of channel-major bytes, that takes a sixth of the time."""
    if images.flags.c_contiguous or images.ndim != 4:
        return np.ascontiguousarray(images)
    copy = np.empty(images.shape, images.dtype)
    for channel in range(images.shape[3]):
        copy[..., channel] = images[..., channel]
    return copy


def _general_statistics(inputs: Inputs) -> NDArray[np.float32]:
    """The same of all values of each sample, one after the other, (n, len(STATISTICS)).

    The two sizes are the number of all values, and the length of the first array.
    """
    found = np.empty((len(inputs), len(STATISTICS)), np.float32)
    for row, sample in zip(found, zip(*inputs.columns, strict=True), strict=True):
        # Each sample alone: numpy's sums of rows depend on how many rows there are.
        values = np.concatenate([np.asarray(array).ravel() for array in sample], dtype=np.float64, casting="unsafe")
        np.clip(values, -LARGEST, LARGEST, out=values)
        mean = values.sum() / values.size
        drawn = values[(2 * np.arange(N_DRAWN) + 1) * values.size // (2 * N_DRAWN)].take(_drawn(1))
        added, taken = drawn.reshape(2, -1, N_PROJECTIONS).sum(axis=1)
        length = sample[0].shape[0] if sample[0].ndim else 1
        row[:6] = mean, np.square(values - mean).sum() / values.size, values.min(), values.max(), values.size, length
        row[6:] = (added - taken) / np.sqrt(N_DRAWN / N_PROJECTIONS)
    return found


def _statistics(images: NDArray[Any]) -> NDArray[np.float32]:
    """(n, height, width, channels) to (n, len(STATISTICS)), in the order of `STATISTICS`."""
    n, height, width, channels = images.shape
    unit = 1 if images.dtype == np.uint8 else FRACTION
    whole = images if unit == 1 else np.rint(images * unit)
    low, high = (end(whole.reshape(n, -1), axis=1) for end in (np.min, np.max))
    values = whole.reshape(n, -1).astype(np.float64)
    mean = values.sum(axis=1) / values.shape[1]
    variance = np.einsum("ij,ij->i", values, values) / values.shape[1] - mean**2
    if (height, width) != (GRID, GRID):
        rows, columns = (((2 * np.arange(GRID) + 1) * side) // (2 * GRID) for side in (height, width))
        whole = whole[:, rows[:, None], columns]
    drawn = whole.reshape(n, -1).take(_drawn(channels), axis=1).astype(np.float32)
    added, taken = drawn.reshape(n, 2, drawn.shape[1] // (2 * N_PROJECTIONS), N_PROJECTIONS).sum(axis=2).swapaxes(0, 1)
    projected = (added - taken) / np.sqrt(drawn.shape[1] / N_PROJECTIONS)
    sizes = [np.full(n, side * unit) for side in (height, width)]
    return (np.column_stack([mean, variance / unit, low, high, *sizes, projected]) / unit).astype(np.float32)


@cache
def _drawn(channels: int) -> NDArray[np.int64]:
    """An order of the grid's values, of which every 32nd goes to one projection: added in the first half, then taken.

    Sparse random projections (Li, Hastie & Church 2006). No matrix product: its threads do not keep to a rank's core.
    """
    n_values = GRID * GRID * channels
    keys = hashlib.shake_256(b"mia_batch random projections").digest(8 * n_values)
    return np.argsort(np.frombuffer(keys, "<u8"), kind="stable")
