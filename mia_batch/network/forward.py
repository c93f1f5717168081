"""The forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mia_batch.errors import InputError, one_line
from mia_batch.network.input_side import Arrays, as_tensors, float_type, words
from mia_batch.network.outputs import Output, describe

# Of the spread of a batch's logits: answers that differ by less are the same. On CPU they are, bit for bit.
SAME, SAME_IN_HALF = 1e-3, 1e-2
HALF = frozenset({ms.float16, ms.bfloat16})
SHOWN = 3  # logits in a message


class Predictor:
    """Runs a network at one batch size, so that it compiles once and a row always gets the same bits.

    The last bits of a row depend on its place in the batch, as another kernel computes the edges of a matrix product,
    but not on the other rows. So each row of the data has one place: its number modulo the batch size.

    Args:
        network: takes arrays (batch_size, ...), gives what `output` says. Floats are given to it in its own type.
        batch_size: at least 1.
        output: what the network gives; "logits" and "probabilities" are short for one tensor of them.
    """

    def __init__(self, network: nn.Cell, batch_size: int, *, output: Output | str = "logits") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = network.set_train(False)
        self.batch_size = batch_size
        self.output = Output(output) if isinstance(output, str) else output
        self._floats = float_type(network)
        self._ran = False
        self.seen = ("", "")  # types and shapes that went in and came out first

    def logits(self, inputs: np.ndarray | Arrays, rows: np.ndarray | None = None) -> np.ndarray:
        """Run the network.

        Args:
            inputs: the network's arguments, each (n, ...), n <= batch_size, or the only one.
            rows: numbers of the rows, (n,), distinct modulo the batch size; None for 0 to n - 1.

        Returns:
            float32 (n, n_classes), n_classes at least 2.

        Raises:
            InputError: the network does not take such inputs, or gives no logits.
        """
        arrays = inputs if isinstance(inputs, tuple) else (inputs,)
        n = len(arrays[0])
        if n > self.batch_size:
            raise ValueError(f"rows must be at most {self.batch_size}, got {n}")
        places = np.arange(n) if rows is None else np.asarray(rows) % self.batch_size
        if n < self.batch_size or rows is not None:
            arrays = tuple(self._placed(array, places) for array in arrays)
        return self.output.logits(self._run(arrays), places, self.batch_size)

    def hold_to_one_answer(
        self, inputs: np.ndarray | Arrays, rows: np.ndarray, logits: np.ndarray, describe: Callable[[int], str]
    ) -> None:
        """Refuse a network whose answer for a sample depends on the samples beside it, on their order, or on chance.

        The batch is run once more, and then the first and the last row each among copies of itself.

        Args:
            inputs: the network's arguments, each (n, ...), n <= batch_size, or the only one.
            rows: numbers of the rows, (n,), distinct modulo the batch size.
            logits: what it has answered, finite, (n, n_classes).
            describe: what to call row i of these n.

        Raises:
            InputError: an answer differs by more than `SAME` of the spread of the logits.
        """
        arrays = inputs if isinstance(inputs, tuple) else (inputs,)
        places = np.asarray(rows) % self.batch_size
        tolerance = (SAME_IN_HALF if self._floats in HALF else SAME) * float(np.ptp(logits))
        again = self.logits(arrays, rows)
        differs = abs(again - logits).max(axis=1) > tolerance
        if differs.any():
            i = int(differs.argmax())
            raise self._two_answers(describe(i), logits[i], again[i], "when it is asked again")
        for i in dict.fromkeys((0, len(logits) - 1)):
            copies = tuple(array[np.full(self.batch_size, i)] for array in arrays)
            alone = self.output.logits(self._run(copies), places[i : i + 1], self.batch_size)[0]
            if abs(alone - logits[i]).max() > tolerance:
                raise self._two_answers(describe(i), logits[i], alone, "among copies of itself")

    def _two_answers(self, who: str, first: np.ndarray, second: np.ndarray, how: str) -> InputError:
        function = f", and at {self.output.kind} of model.output" if self.output.function else ""
        return InputError(
            f"model: {who}: must get one answer each time and whatever samples are beside it, got {_brief(first)}, and "
            f"{_brief(second)} {how}; look at training mode (dropout), statistics of the batch, attention or a softmax "
            f"over the wrong axis{function}"
        )

    def _placed(self, array: np.ndarray, places: np.ndarray) -> np.ndarray:
        placed = np.zeros((self.batch_size, *array.shape[1:]), array.dtype)
        placed[places] = array
        return placed

    def _run(self, arrays: Arrays) -> Any:
        tensors = as_tensors(arrays, self._floats)
        try:
            output = self.network(*tensors)
        except Exception as error:  # of a network that is the user's own
            if self._ran:  # not its fault: it has taken such inputs before
                raise
            raise InputError(f"model: must take inputs {words(tensors)}, got {one_line(error)}") from error
        if not self._ran:
            self._ran, self.seen = True, (words(tensors), describe(output))
        return output


def _brief(logits: np.ndarray) -> str:
    return f"[{', '.join(f'{each:.4g}' for each in logits[:SHOWN])}{', ...' if len(logits) > SHOWN else ''}]"
