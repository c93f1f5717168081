"""Which cores a rank computes on. Set before MindSpore is imported: nothing but affinity bounds its threads.

On CPU a rank gets one core, also where it could have more. MindSpore chooses its convolution by the number of threads,
and the last bits of the logits depend on it: only equal ranks give equal numbers, whatever their count. To use all
cores, start as many ranks.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)
ACCELERATORS = ("davinci[0-9]*", "nvidia[0-9]*")  # in /dev


class Ranks(Protocol):
    """What this module needs of the world of ranks."""

    rank: int
    local_rank: int
    local_ranks: tuple[int, ...]

    def allgather(self, value: frozenset[int]) -> list[frozenset[int]]:
        """Every rank's value, by rank."""


def pin(local_rank: int, masks: Sequence[frozenset[int]], *, one_core: bool = True) -> frozenset[int]:
    """The cores for one of the ranks of a node.

    Ranks that the launcher gave the same cores share them out in contiguous parts, or in turn where there are more
    ranks than cores. Ranks with cores of their own keep to them.

    Args:
        local_rank: which of the node's ranks, 0 <= local_rank < len(masks).
        masks: the cores that each of the node's ranks may run on, by local rank.
        one_core: give one core only, the first of the part.

    Returns:
        A non-empty part of `masks[local_rank]`.
    """
    if not 0 <= local_rank < len(masks):
        raise ValueError(f"local_rank must be in [0, {len(masks)}), got {local_rank}")
    cores = sorted(masks[local_rank])
    if not cores:
        raise ValueError(f"masks[{local_rank}] must name at least one core")
    sharers = [rank for rank, mask in enumerate(masks) if mask == masks[local_rank]]
    place, count = sharers.index(local_rank), len(sharers)
    first, end = (len(cores) * part // count for part in (place, place + 1))
    part = cores[first:end] if count <= len(cores) else [cores[place % len(cores)]]
    return frozenset(part[:1] if one_core else part)


def share_cores(world: Ranks, device: str = "auto") -> frozenset[int]:
    """Keep this rank to its cores. Collective.

    Args:
        world: the ranks; those on this node share its cores.
        device: as in `extract.device`. Ranks that compute on a card keep several cores for feeding it.

    Returns:
        The cores, empty where the system has no affinity.
    """
    if not hasattr(os, "sched_setaffinity"):
        return frozenset()
    every = world.allgather(frozenset(os.sched_getaffinity(0)))
    masks = [every[rank] for rank in world.local_ranks]
    one_core = device == "CPU" or (device == "auto" and not has_accelerator())
    cores = pin(world.local_rank, masks, one_core=one_core)
    used = (pin(rank, masks, one_core=one_core) for rank in range(len(masks)))
    unused = frozenset().union(*masks).difference(*used)
    if unused and world.local_rank == 0:
        log.info("each rank computes on one core; %d more ranks here would use the idle cores", len(unused))
    _apply(cores)
    return cores


def has_accelerator(devices: Path = Path("/dev")) -> bool:
    """Whether the system has an Ascend or NVIDIA card."""
    return any(any(devices.glob(pattern)) for pattern in ACCELERATORS)


def _apply(cores: frozenset[int]) -> None:
    if "mindspore" in sys.modules:
        log.warning("MindSpore was imported before the cores were shared out: its threads may run on all of them")
    for task in os.listdir("/proc/self/task"):  # also the threads that numpy has started
        try:
            os.sched_setaffinity(int(task), cores)
        except ProcessLookupError:
            continue
    # For libraries that ask the environment instead; MindSpore does not.
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
