"""Images to a network's input."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from mindspore.dataset import vision

from mia_batch.inputs import Column

CROP_PADDING = 4  # pixels, as in the tutorial
CACHED_PIXELS = 1 << 16  # of images that are looked up together: their channels are read one after the other


class Preprocess:
    """Images to the network's input: bilinear resize, pixels / 255, (x - mean) / std per channel, channels first.

    MindSpore's transforms do the work. Those after the resize map each byte on its own: they run once, over all 256
    values, and leave a table for the images of bytes. It gives the same bits, in a seventh of the time at 32x32.

    Args:
        image_size: (height, width) of the output, in pixels.
        mean: per channel, of pixels / 255.
        std: per channel, likewise.
    """

    def __init__(self, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.image_size = tuple(image_size)
        self._resize = vision.Resize(self.image_size, vision.Inter.BILINEAR)
        self._pixelwise = [vision.Rescale(1.0 / 255.0, 0.0), vision.Normalize(mean, std), vision.HWC2CHW()]
        self.channels = len(mean)
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], self.channels, axis=2)
        self._table = self._transform(ramp)[:, :, 0]

    def __call__(self, images: Column) -> np.ndarray:
        """n images (H, W, channels) of bytes, or floats from 0 to 255, to float32 (n, channels, height, width)."""
        batch = np.empty((len(images), self.channels, *self.image_size), np.float32)
        if isinstance(images, np.ndarray) and images.shape[1:3] == self.image_size and images.dtype == np.uint8:
            step = max(1, CACHED_PIXELS // (self.image_size[0] * self.image_size[1]))
            for first in range(0, len(images), step):
                self._look_up(images[first : first + step], batch[first : first + step])
            return batch
        for resized, row in zip(self.resize(images), batch, strict=True):
            if resized.dtype == np.uint8:
                self._look_up(resized[None], row[None])
            else:
                row[:] = self._transform(resized)
        return batch

    def resize(self, images: Column) -> Iterator[np.ndarray]:
        """Each image at the output's size, still (height, width, channels)."""
        for image in images:
            fits = image.shape[:2] == self.image_size
            resized = image if fits else np.asarray(self._resize(np.ascontiguousarray(image)))
            yield resized.reshape(*resized.shape[:2], self.channels)

    def _look_up(self, images: np.ndarray, batch: np.ndarray) -> None:
        for channel in range(self.channels):
            np.take(self._table[channel], images[..., channel], out=batch[:, channel], mode="clip")

    def _transform(self, image: np.ndarray) -> np.ndarray:
        for transform in self._pixelwise:
            image = transform(image)
        return np.asarray(image)


def augment(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random crop after padding by 4 black pixels, then a horizontal flip every other time; the size stays."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0)))
    top, left, flip = generator.integers((2 * CROP_PADDING + 1, 2 * CROP_PADDING + 1, 2))
    crop = padded[top : top + height, left : left + width]
    return crop[:, ::-1] if flip else crop


def augmented(images: Column, split: np.ndarray, index: np.ndarray, *seed: int) -> list[np.ndarray]:
    """Each image augmented by a stream of its own, so that neither ranks nor batches change the outcome."""
    streams = [(*seed, zlib.crc32(str(name).encode()), int(i)) for name, i in zip(split, index, strict=True)]
    return [augment(image, np.random.default_rng(stream)) for image, stream in zip(images, streams, strict=True)]
