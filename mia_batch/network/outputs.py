"""From what a network's call gives to a row of logits for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.network.checkpoint_entry import shape_words
from mia_batch.settings.schema import ModelConfig
from mia_batch.settings.user_code import resolve
from mia_batch.signals import OUTPUTS, logits_of_probabilities, two_classes

LOGITS, PROBABILITIES = OUTPUTS
SHOWN = 8  # entries of an output in a message
FUNCTION = "model.output: FILE.py:function"
ONE_EACH = f"write {FUNCTION}, which makes one prediction of it for each sample, or import one loss for each"
SMALLEST = 1e-37  # a probability that training takes the logarithm of: a normal float32


@dataclass(frozen=True)
class Output:
    """What a network gives, and how to make logits of it.

    Attributes:
        kind: "logits", "probabilities", or the name of a function.
        key: which entry of a dict, if any.
        index: which entry of a tuple or list, if any.
        function: makes (n, n_classes) or (n,) logits of what the network gives, or of the entry that is chosen.
    """

    kind: str = LOGITS
    key: str | None = None
    index: int | None = None
    function: Callable[[Any], Any] | None = None

    @staticmethod
    def of(model: ModelConfig) -> Output:
        """As a configuration says.

        Raises:
            InputError: the function of `model.output` cannot be imported.
        """
        function = None if model.output in OUTPUTS else resolve(model.output, "model.output")
        return Output(model.output, model.key, model.index, function)

    def logits(self, given: Any, places: NDArray[np.integer], batch_size: int) -> NDArray[np.float32]:
        """Logits of the samples at these places of a batch.

        Args:
            given: what the network's call gave for the whole batch.
            places: of the samples in the batch, (n,).
            batch_size: samples in the batch, also those that only fill it up.

        Returns:
            float32 (n, n_classes), n_classes at least 2: of one logit z the row is [0, z].

        Raises:
            InputError: it is not what the configuration says, or nothing that logits can be made of.
        """
        chosen = self.choose(given)
        if self.function is None:
            values = _of_network(chosen, batch_size, self._chosen_by())[places]
        else:
            values = self._of_function(self.function, chosen, batch_size)[places]
        if values.ndim == 1 or values.shape[1] == 1:
            values = self._two_columns(values.reshape(len(places)))
        return self._as_logits(values)

    def choose(self, given: Any) -> Any:
        """The entry that `key` or `index` names; without either, all."""
        if self.key is not None:
            if not isinstance(given, Mapping):
                raise InputError(f"model.key: must go with a network that gives a dict, got {describe(given)}")
            if self.key not in given:
                rule = f"must be a key of what the network gives, {describe(given)}"
                raise InputError(f"model.key: {rule}, got {self.key!r}")
            return given[self.key]
        if self.index is not None:
            if not isinstance(given, tuple | list):
                rule = "must go with a network that gives a tuple or list"
                raise InputError(f"model.index: {rule}, got {describe(given)}")
            if self.index >= len(given):
                rule = f"must be in [0, {len(given)}), places of what the network gives, {describe(given)}"
                raise InputError(f"model.index: {rule}, got {self.index}")
            return given[self.index]
        return given

    def _chosen_by(self) -> str:
        return "model.key" if self.key is not None else "model.index" if self.index is not None else "model"

    def _of_function(self, function: Callable[[Any], Any], chosen: Any, batch_size: int) -> NDArray[np.float32]:
        try:
            values = np.asarray(as_arrays(function(as_arrays(chosen))))
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"model.output: {self.kind} raised {one_line(error)}, given {describe(chosen)}") from error
        got = f"got {values.dtype} {values.shape}"
        rule = f"model.output: {self.kind} must give floating-point logits of shape ({batch_size}, classes) or "
        if values.ndim not in (1, 2) or len(values) != batch_size or values[:1].size == 0 or values.dtype.kind != "f":
            raise InputError(f"{rule}({batch_size},), {got}{_why_not(values.dtype.kind)}")
        with np.errstate(over="ignore"):  # an infinity is refused with the sample's number
            return values.astype(np.float32)

    def _two_columns(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        wrong = values[~((values >= 0) & (values <= 1))] if self.kind == PROBABILITIES else values[:0]
        if len(wrong):
            raise InputError(f"model.output: probabilities: one for each sample must be in [0, 1], got {wrong[0]}")
        return two_classes(values, probabilities=self.kind == PROBABILITIES)

    def _as_logits(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.kind != PROBABILITIES:
            return values
        try:
            return logits_of_probabilities(values)[0]
        except ValueError as error:
            raise InputError(f"model.output: probabilities: {one_line(error)}") from error


def _of_network(chosen: Any, batch_size: int, chosen_by: str) -> NDArray[np.float32]:
    """The tensor as float32, if it has one row of floats, or one float, for each sample."""
    if not isinstance(chosen, Tensor):
        raise InputError(f"{chosen_by}: must give one tensor of logits, got {describe(chosen)}{_how_to_choose(chosen)}")
    shape = tuple(chosen.shape)
    is_one_each = len(shape) in (1, 2) and shape[0] == batch_size and all(shape)
    if not is_one_each or not chosen.is_floating_point():
        rule = f"must give floating-point logits of shape ({batch_size}, 2 or more), or one for each sample"
        advice = _why_not("f" if chosen.is_floating_point() else "i") or (f"; {ONE_EACH}" if len(shape) > 2 else "")
        raise InputError(f"{chosen_by}: {rule}, got {chosen.dtype} {shape}{advice}")
    return chosen.astype(ms.float32).asnumpy()


def _why_not(kind: str) -> str:
    """Why the classes themselves do not do."""
    return "" if kind == "f" else "; classes alone do not say how sure the network is: leave out argmax and rounding"


def _how_to_choose(given: Any) -> str:
    if isinstance(given, Mapping) and given:
        return f"; write model.key: NAME to choose one, or {FUNCTION}"
    if isinstance(given, tuple | list) and given:
        return f"; write model.index: N to choose one, or {FUNCTION}"
    return ""


def describe(given: Any) -> str:
    """Keys or places, shapes and types of what a network gives, in one line."""
    if isinstance(given, Tensor):
        return f"{given.dtype} {shape_words(tuple(given.shape))}"
    if not isinstance(given, Mapping | tuple | list):
        return type(given).__name__
    pairs = list(given.items() if isinstance(given, Mapping) else enumerate(given))
    shown = [f"{key!r:.40} {_brief(value)}" for key, value in pairs[:SHOWN]]
    return f"{type(given).__name__}: {', '.join(shown) or 'empty'}{', ...' if len(pairs) > SHOWN else ''}"


def _brief(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Mapping | tuple | list) else describe(value)


def as_arrays(given: Any) -> Any:
    """The same structure with NumPy arrays for tensors; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(given, Tensor):
        return (given.astype(ms.float32) if given.dtype == ms.bfloat16 else given).asnumpy()
    if isinstance(given, Mapping):
        return {key: as_arrays(value) for key, value in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(map(as_arrays, given)) if type(given) in (tuple, list) else tuple(map(as_arrays, given))
    return given


class LogitsInGraph(nn.Cell):
    """What `Output.logits` does, within a graph: logits (n, n_classes) of what a network gives, to train on.

    Args:
        output: without a function.
    """

    def __init__(self, output: Output) -> None:
        super().__init__()
        if output.function is not None:
            rule = "must be logits or probabilities to train on: a function of arrays has no gradient"
            raise InputError(f"model.output: {rule}, got {output.kind}")
        self.key, self.index = output.key, output.index
        self.of_probabilities = output.kind == PROBABILITIES

    def construct(self, given: Any) -> Tensor:
        """Logits whose softmax the network means."""
        chosen = given
        if self.key is not None:
            chosen = given[self.key]
        elif self.index is not None:
            chosen = given[self.index]
        values = chosen.astype(ms.float32)
        if values.ndim == 1:
            values = values.reshape((-1, 1))
        if values.shape[1] == 1:
            first = 1 - values if self.of_probabilities else ops.zeros_like(values)
            values = ops.concat((first, values), axis=1)
        return ops.log(ops.clamp(values, SMALLEST, None)) if self.of_probabilities else values
