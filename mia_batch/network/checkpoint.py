"""A checkpoint's entries, and the network that they fit to the last parameter."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn

from mia_batch.errors import InputError, one_line
from mia_batch.network.build import build_network
from mia_batch.network.checkpoint_bytes import stated_entries
from mia_batch.network.checkpoint_entry import Stated
from mia_batch.network.checkpoint_names import Wanted, find_parameters, some
from mia_batch.network.checkpoint_npz import read_npz
from mia_batch.network.input_side import FLOATS
from mia_batch.network.rename import read_rename
from mia_batch.settings.schema import ModelConfig

NPZ = ".npz"
INTEGERS = frozenset({ms.int8, ms.int16, ms.int32, ms.int64, ms.uint8, ms.uint16, ms.uint32, ms.uint64})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Entries of a MindSpore checkpoint: parameters, and plain values that training has added.

    Raises:
        InputError: not a MindSpore checkpoint, or a damaged one.
    """
    return _read_all(path, has_crc=stated_entries(path).has_crc)


def _read_all(path: Path, *, has_crc: bool) -> dict[str, Any]:
    try:
        entries = ms.load_checkpoint(str(path), format=path.suffix.removeprefix("."), crc_check=has_crc)
    except Exception as error:
        got = f"{path.stat().st_size} bytes that are not: {one_line(error)}"
        raise InputError(f"{path}: model.checkpoint: must be a complete MindSpore checkpoint, got {got}") from error
    return dict(entries)


def load_network(model: ModelConfig, image_size: Sequence[int] | None) -> nn.Cell:
    """Build the network of `model` with the weights of its checkpoint, for inference.

    Raises:
        InputError: the factory or the checkpoint is bad, or they do not match to the last parameter.
    """
    stated_entries(model.checkpoint)  # which says what is wrong with it before users' code runs
    network = build_network(model, image_size)
    load_weights(network, model)
    network.set_train(False)
    return network


def n_parameters(network: nn.Cell) -> int:
    """How many numbers training has fitted: the weights, without running means and variances."""
    return sum(parameter.size for parameter in network.get_parameters() if parameter.requires_grad)


def load_weights(network: nn.Cell, model: ModelConfig) -> None:
    """Put the weights of a model's checkpoint into its network, which may have others.

    Raises:
        InputError: the checkpoint is bad, or does not match the network to the last parameter.
    """
    path, stated = model.checkpoint, stated_entries(model.checkpoint)
    rename = read_rename(model.rename) if model.rename else None
    shapes = {name: tuple(parameter.shape) for name, parameter in network.parameters_dict().items()}
    entries = find_parameters(stated, Wanted(shapes, model.prefix or "", rename), path)
    given = _read(path, stated, entries.values())
    load_parameters(network, {name: given[entry] for name, entry in entries.items()}, path)


def _read(path: Path, stated: Stated, names: Collection[str]) -> dict[str, Parameter]:
    """The content of these entries."""
    if path.suffix == NPZ:
        return {name: Parameter(ms.Tensor(array), name=name) for name, array in read_npz(path, names).items()}
    entries = _read_all(path, has_crc=stated.has_crc)
    return {name: entries[name] for name in names}


def load_parameters(network: nn.Cell, given: Mapping[str, Parameter], path: Path) -> None:
    """Put parameters into the network, each under the network's name and of its shape.

    Raises:
        InputError: with a line each for parameters that are not finite, and for integers or bools where the network has
            floats, or the other way round.
    """
    wanted = network.parameters_dict()
    alike = [name for name in wanted if _kind(given[name].dtype) == _kind(wanted[name].dtype)]
    kinds = {
        "the network's kinds of numbers": [
            f"{name} {given[name].dtype} for {wanted[name].dtype}" for name in wanted if name not in alike
        ],
        "finite numbers": [name for name in alike if not _fits(given[name], wanted[name].dtype)],
    }
    problems = [f"{path}: model.checkpoint: must have {rule}: {some(names)}" for rule, names in kinds.items() if names]
    if problems:
        raise InputError(problems)
    matched = {name: _as_type(given[name], wanted[name].dtype) for name in wanted}
    unloaded, _ = ms.load_param_into_net(network, matched, strict_load=True)
    if unloaded:
        raise RuntimeError(f"load_param_into_net left out {unloaded}")


def _kind(dtype: Any) -> frozenset[Any]:
    """The types that may stand for each other; a type of no kind has none."""
    return next((kind for kind in (FLOATS, INTEGERS) if dtype in kind), frozenset({dtype}))


def _fits(parameter: Parameter, dtype: Any) -> bool:
    """Whether floats are finite, and integers the same, as the network's type too."""
    kind, here = _kind(dtype), _as_type(parameter, dtype)
    if kind == FLOATS:
        return bool(np.isfinite((_as_type(here, ms.float32) if dtype == ms.bfloat16 else here).asnumpy()).all())
    return kind != INTEGERS or parameter.dtype == dtype or np.array_equal(here.asnumpy(), parameter.asnumpy())


def _as_type(parameter: Parameter, dtype: Any) -> Parameter:
    return parameter if parameter.dtype == dtype else Parameter(parameter.astype(dtype), name=parameter.name)


def write_parameters(path: Path, parameters: list[dict[str, Any]], extra: Mapping[str, Any] | None = None) -> None:
    """Write a MindSpore checkpoint at `path`, which need not end in .ckpt; OSError where that cannot be done."""
    written = path.with_name(f"{path.name}.ckpt")  # the only ending that MindSpore writes
    try:
        ms.save_checkpoint(parameters, str(written), append_dict=dict(extra or {}))
        written.chmod(0o600)  # MindSpore makes it read-only, for all the world
        os.replace(written, path)
    except (RuntimeError, ValueError) as error:
        raise OSError(one_line(error)) from error
    finally:
        for left in (written, path.with_name(f"{path.name}.tmp")):  # the second is what MindSpore renames to the first
            left.unlink(missing_ok=True)
