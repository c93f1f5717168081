"""The device that a rank computes on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mindspore as ms

from mia_batch.errors import InputError, one_line
from mia_batch.network.requirements import SLOW_ON_CPU, slow_on_cpu

log = logging.getLogger(__name__)

# The variables by which a launcher or an administrator restricts the cards; the one nearest to the process first.
VISIBLE_CARDS = {"GPU": ("CUDA_VISIBLE_DEVICES",), "Ascend": ("ASCEND_RT_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES")}


@dataclass(frozen=True)
class Placement:
    """Where a rank computes.

    Attributes:
        device_target: "Ascend", "GPU" or "CPU".
        device_id: the card, counted among those that the process sees; 0 on CPU.
    """

    device_target: str
    device_id: int = 0


def visible_cards(device_target: str, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Names of the cards that the environment restricts a process to; None without restriction."""
    for variable in VISIBLE_CARDS.get(device_target, ()):
        if variable in environ:
            return _card_list(environ[variable])
    return None


def _card_list(text: str) -> tuple[str, ...]:
    """Cards of "0,1", "0-3,6" (Ascend's ranges) or "GPU-uuid,..."; -1, none and NoDevFiles end the list, as in CUDA."""
    cards: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        if word in ("", "-1", "none", "void", "NoDevFiles"):
            break
        span = re.fullmatch(r"(\d+)-(\d+)", word)
        cards += [str(card) for card in range(int(span[1]), int(span[2]) + 1)] if span else [word]
    return tuple(cards)


def place(
    device: str, local_rank: int, local_size: int, environ: Mapping[str, str], *, reported: str | None = None,
    n_cards: int | None = None, peers: Sequence[tuple[str, ...] | None] | None = None,
) -> Placement:
    """Choose the device of a rank: one card each, by local rank.

    Args:
        device: as in `extract.device`.
        local_rank: number of the rank on its node.
        local_size: ranks on the node.
        environ: the rank's environment, for the variables that restrict the visible cards.
        reported: the device kind that MindSpore reports, for "auto"; None asks it.
        n_cards: cards in the node, where no variable says; None asks MindSpore.
        peers: what `visible_cards` gave on each of the node's ranks, by local rank; None where all see the same.

    Raises:
        InputError: more ranks than cards.
    """
    target = (reported or reported_device()) if device == "auto" else device
    if target == "CPU":
        return Placement("CPU")
    mine = visible_cards(target, environ)
    sharing = list(range(local_size))
    if mine is not None and peers is not None:
        sharing = [rank for rank in range(local_size) if peers[rank] == mine]
    elif mine is not None and len(mine) == 1 and _one_card_per_task(local_size, environ):
        sharing = [local_rank]  # each task sees its own card, under a number that may be the same for all
    cards = len(mine) if mine is not None else n_cards if n_cards is not None else count_cards(target)
    if cards is not None and len(sharing) > cards:
        names = " or ".join(VISIBLE_CARDS[target])
        seen = f"{names}={','.join(mine)}" if mine is not None else f"{target} cards in the node"
        raise InputError(
            f"extract.device: {target} needs a card for each rank, got {len(sharing)} ranks on this node "
            f"and {cards} cards ({seen}); start at most {cards} ranks a node"
        )
    return Placement(target, sharing.index(local_rank))


def _one_card_per_task(local_size: int, environ: Mapping[str, str]) -> bool:
    """Whether Slurm binds each task to cards of its own."""
    if any(environ.get(name) for name in ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")):
        return True
    if re.search(r"single|map|mask|per_task", environ.get("SLURM_GPU_BIND", environ.get("SLURM_TRES_BIND", ""))):
        return True
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    return on_node.isdigit() and int(on_node) >= local_size > 1


def reported_device() -> str:
    """The device kind that this MindSpore uses by itself: "Ascend", "GPU" or "CPU"."""
    return str(ms.get_context("device_target"))


def count_cards(target: str) -> int | None:
    """Cards of a kind that MindSpore sees in the node, None where it cannot tell."""
    try:
        return int(ms.hal.device_count(target)) if ms.hal.is_available(target) else 0
    except (AttributeError, RuntimeError, ValueError):
        return None


def set_up(placement: Placement) -> None:
    """Use this device, in GRAPH mode.

    Raises:
        InputError: MindSpore cannot use the device.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    in_use = Placement(reported_device(), int(ms.get_context("device_id")))
    try:
        if in_use == placement:
            pass  # once it computes MindSpore takes no choice, not even the same again
        elif hasattr(ms, "set_device"):
            ms.set_device(placement.device_target, placement.device_id)
        else:  # MindSpore before 2.5, as older CANN needs
            ms.set_context(device_target=placement.device_target, device_id=placement.device_id)
    except (RuntimeError, ValueError, TypeError) as error:
        rule = f"MindSpore {ms.__version__} must be able to use {placement.device_target}:{placement.device_id}"
        raise InputError(f"extract.device: {rule}, got {one_line(error)}") from error
    if placement.device_target == "CPU" and slow_on_cpu(ms.__version__):
        log.warning("MindSpore %s %s", ms.__version__, SLOW_ON_CPU)
