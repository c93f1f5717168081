"""What goes into a network: a batch's inputs to its positional arguments, and their types."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.inputs import Inputs

Arrays = tuple[NDArray[Any], ...]
FLOATS = frozenset({ms.bfloat16, ms.float16, ms.float32, ms.float64})


def bind(inputs: Inputs, network: nn.Cell, order: Sequence[str] = ()) -> Arrays:
    """The columns in the order of the network's arguments: a dictionary's by their names.

    Args:
        inputs: stacked.
        network: that takes them.
        order: names that the configuration gives to the columns, in their order.

    Raises:
        InputError: a name that is none of `construct`'s parameters, a parameter without an input, or an `order` that is
            not that of the parameters of these names.
    """
    columns = tuple(np.asarray(column) for column in inputs.columns)
    if inputs.kind != "dict" and len(order) < 2:
        return columns
    parameters = _parameters(network)
    names = [parameter.name for parameter in parameters]
    if inputs.kind != "dict":
        wanted = [name for name in names if name in order]
        if set(order) <= set(names) and wanted != list(order):
            rule = f"must be in the order of the network's parameters, {', '.join(wanted)}"
            raise InputError(f"data.columns.inputs: {rule}, got {', '.join(order)}")
        return columns
    shown = f"construct({', '.join(names)})"
    unknown = [name for name in inputs.names if name not in names]
    if unknown:
        raise InputError(f"model: must have inputs named {', '.join(inputs.names)}, got {shown} without {unknown[0]}")
    used = names[: 1 + max(names.index(name) for name in inputs.names)]
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    missing = [name for name in dict.fromkeys((*used, *required)) if name not in inputs.names]
    if missing:
        raise InputError(f"model: {shown} must have an input for {missing[0]}, got {', '.join(inputs.names)}")
    by_name = dict(zip(inputs.names, columns, strict=True))
    return tuple(by_name[name] for name in used)


def _parameters(network: nn.Cell) -> list[inspect.Parameter]:
    """Those of `construct` that can be given by place."""
    parameters = list(inspect.signature(type(network).construct).parameters.values())[1:]
    return [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def float_type(network: nn.Cell) -> Any:
    """The type in which a network takes floats: that of all its parameters, or float32.

    Cells that cast their inputs themselves (`to_float`) take float32.
    """
    casts = any(getattr(cell, flag, False) for cell in network.cells_and_names() for flag in ("fp16", "bf16", "fp32"))
    types = {parameter.dtype for parameter in network.get_parameters() if parameter.dtype in FLOATS}
    return next(iter(types)) if len(types) == 1 and not casts else ms.float32


def as_tensors(arrays: Arrays, floats: Any) -> list[Tensor]:
    """Arrays as a network takes them: floats as `floats`, all others as they are.

    Raises:
        InputError: a number that is too large for that type.
    """
    return [Tensor(array) if array.dtype.kind != "f" else _as_floats(array, floats) for array in arrays]


def _as_floats(array: NDArray[Any], floats: Any) -> Tensor:
    if floats == ms.float32 and array.dtype == np.float32:
        return Tensor(array, ms.float32)
    kinds = {ms.float16: np.float16, ms.float64: np.float64}
    with np.errstate(over="ignore"):
        narrow = array.astype(kinds.get(floats, np.float32))
    if not np.isfinite(narrow).all():
        largest = array[~np.isfinite(narrow)][0]
        raise InputError(f"model: inputs must be within the range of the network's {floats}, got {largest}")
    return Tensor(narrow).astype(floats) if floats == ms.bfloat16 else Tensor(narrow)


def words(tensors: Sequence[Tensor]) -> str:
    """Types and shapes, for messages."""
    return ", ".join(f"{str(tensor.dtype).lower()} {tuple(tensor.shape)}" for tensor in tensors)
