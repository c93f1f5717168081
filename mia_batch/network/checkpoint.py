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
from mia_batch.network.checkpoint_bytes import CRC_BYTES, CRC_MARK, check_whole
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
    check_whole(path)
    size = path.stat().st_size
    try:
        entries = ms.load_checkpoint(str(path), format=path.suffix.removeprefix("."), crc_check=_has_crc(path))
    except Exception as error:
        got = f"{size} bytes that are not: {one_line(error)}"
        raise InputError(f"{path}: model.checkpoint: must be a complete MindSpore checkpoint, got {got}") from error
    held = sum(entry.nbytes for entry in entries.values() if isinstance(entry, Parameter))
    if held > size:  # MindSpore fills what is missing of a tensor with zeros
        raise InputError(f"{path}: model.checkpoint: must hold its {held} bytes of parameters, got {size} bytes in all")
    return dict(entries)


def _has_crc(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - CRC_BYTES))
        return file.read(len(CRC_MARK)) == CRC_MARK


def load_network(model: ModelConfig, image_size: Sequence[int]) -> nn.Cell:
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
        InputError: with a line each for missing, unexpected, wrongly shaped and not finite parameters.
    """
    wanted = network.parameters_dict()
    given = {name: entry for name, entry in entries.items() if isinstance(entry, Parameter)}
    both = [name for name in wanted if name in given]
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
        "finite numbers": [name for name in both if not _finite(given[name])],
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


def _finite(parameter: Parameter) -> bool:
    array = _as_type(parameter, ms.float32).asnumpy() if parameter.dtype == ms.bfloat16 else parameter.asnumpy()
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


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
