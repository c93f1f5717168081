"""The forward pass."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mia_batch.errors import InputError, one_line
from mia_batch.signals import logits_of_probabilities


class Predictor:
    """Runs a network at one batch size, so that it compiles once and a row always gets the same bits.

    The last bits of a row depend on its place in the batch, as another kernel computes the edges of a matrix product,
    but not on the other rows. So each row of the data has one place: its number modulo the batch size.

    Args:
        network: takes float32 (batch_size, 3, height, width), gives logits (batch_size, n_classes).
        batch_size: at least 1.
        output: "probabilities" if the network gives those instead; they are turned into logits.
    """

    def __init__(self, network: nn.Cell, batch_size: int, *, output: str = "logits") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = network.set_train(False)
        self.batch_size = batch_size
        self.output = output
        self._ran = False

    def logits(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Run the network.

        Args:
            images: float32 (n, 3, height, width), n <= batch_size.
            rows: numbers of the rows, (n,), distinct modulo the batch size; None for 0 to n - 1.

        Returns:
            float32 (n, n_classes).

        Raises:
            InputError: the network does not take such images, or gives no logits.
        """
        if len(images) > self.batch_size:
            raise ValueError(f"images must be at most {self.batch_size}, got {len(images)}")
        places = np.arange(len(images)) if rows is None else np.asarray(rows) % self.batch_size
        if len(images) < self.batch_size or rows is not None:
            padded = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
            padded[places] = images
            images = padded
        return self._as_logits(self._run(images)[places])

    def _as_logits(self, given: np.ndarray) -> np.ndarray:
        if self.output == "logits":
            return given
        try:
            return logits_of_probabilities(given)[0]
        except ValueError as error:
            raise InputError(f"model.output: probabilities: {one_line(error)}") from error

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            output = self.network(Tensor(images, ms.float32))
        except (ValueError, TypeError, RuntimeError) as error:
            if self._ran:  # not the network's fault: it has taken such images before
                raise
            raise InputError(f"model: must take images of shape {images.shape}, got {one_line(error)}") from error
        if not isinstance(output, Tensor):
            raise InputError(f"model: must give one tensor of logits, got {type(output).__name__}")
        if output.ndim != 2 or output.shape[0] != len(images) or output.shape[1] < 2 or not output.is_floating_point():
            rule = f"must give floating-point logits of shape ({len(images)}, 2 or more)"
            raise InputError(f"model: {rule}, got {output.dtype} {tuple(output.shape)}")
        self._ran = True
        return output.astype(ms.float32).asnumpy()
