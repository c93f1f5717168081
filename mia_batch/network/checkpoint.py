"""A checkpoint's entries, and the network that they fit to the last parameter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn

from mia_batch.errors import InputError, one_line
from mia_batch.network.build import build_network
from mia_batch.network.checkpoint_bytes import check_whole
from mia_batch.settings.schema import ModelConfig

# Prefixes that MindSpore's optimizers give to their copies of a network's parameters, and their own parameters.
OPTIMIZER_COPIES = {
    "accum", "accum_update", "adam_m", "adam_v", "exp_avg", "lamb_m", "lamb_v", "linear", "mean_grad",
    "mean_square", "moment", "moment1", "moment2", "moments", "prev", "stat", "step_size", "vhat",
}
OPTIMIZER_OWN = {
    "beta1_power", "beta2_power", "current_iterator_step", "epoch_num", "fake_lr", "global_step", "growth_tracker",
    "last_overflow_iterator_step", "learning_rate", "loss_scale", "momentum", "scale_sense", "step_num",
    "weight_decay",
}
FLOATS = frozenset({ms.bfloat16, ms.float16, ms.float32, ms.float64})
INTEGERS = frozenset({ms.int8, ms.int16, ms.int32, ms.int64, ms.uint8, ms.uint16, ms.uint32, ms.uint64})
SHOWN = 5  # names in a message, before a count stands for the rest


def is_optimizer_state(name: str, network_names: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's entry is an optimizer's: one of its own, or its copy of a parameter of the network."""
    prefix, _, rest = name.partition(".")
    return name in OPTIMIZER_OWN or (prefix in OPTIMIZER_COPIES and rest in network_names)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Entries of a checkpoint: parameters, and plain values that training has added.

    Raises:
        InputError: not a MindSpore checkpoint, or a damaged one.
    """
    has_crc = check_whole(path)
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
    entries = read_checkpoint(model.checkpoint)
    network = build_network(model, image_size)
    load_parameters(network, entries, model.checkpoint)
    network.set_train(False)
    return network


def load_parameters(network: nn.Cell, entries: Mapping[str, Any], path: Path) -> None:
    """Put a checkpoint's entries into the network; optimizer state is ignored, all else must match.

    Raises:
        InputError: with a line each for missing, unexpected, wrongly shaped and not finite parameters, and for integers
            or bools where the network has floats, or the other way round.
    """
    wanted = network.parameters_dict()
    given = {name: entry for name, entry in entries.items() if isinstance(entry, Parameter)}
    both = [name for name in wanted if name in given]
    alike = [name for name in both if _kind(given[name].dtype) == _kind(wanted[name].dtype)]
    kinds = {
        "the network's parameters, missing": [name for name in wanted if name not in given],
        "no other parameters, unexpected": [
            name for name in given if name not in wanted and not is_optimizer_state(name, wanted)
        ],
        "the network's shapes": [
            f"{name} {_shape(given[name])} for {_shape(wanted[name])}"
            for name in both
            if given[name].shape != wanted[name].shape
        ],
        "the network's kinds of numbers": [
            f"{name} {given[name].dtype} for {wanted[name].dtype}"
            for name in both
            if name not in alike
        ],
        "finite numbers": [name for name in alike if not _fits(given[name], wanted[name].dtype)],
    }
    problems = [f"{path}: model.checkpoint: must have {rule}: {_some(names)}" for rule, names in kinds.items() if names]
    if problems:
        raise InputError(problems)
    matched = {name: _as_type(given[name], wanted[name].dtype) for name in both}
    unloaded, _ = ms.load_param_into_net(network, matched, strict_load=True)
    if unloaded:
        raise RuntimeError(f"load_param_into_net left out {unloaded}")


def _shape(parameter: Parameter) -> str:
    return "x".join(map(str, parameter.shape)) or "scalar"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more ({len(names)} in all)" if rest > 0 else "")


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
        written.chmod(0o644)  # MindSpore makes it read-only
        os.replace(written, path)
    except (RuntimeError, ValueError) as error:
        raise OSError(one_line(error)) from error
    finally:
        for left in (written, path.with_name(f"{path.name}.tmp")):  # the second is what MindSpore renames to the first
            left.unlink(missing_ok=True)
