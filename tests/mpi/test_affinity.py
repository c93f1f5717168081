"""Cores of ranks: closed cases, and the real calls in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mia_batch.mpi.affinity import has_accelerator, pin


def shares(masks: list[set[int]], *, one_core: bool) -> list[set[int]]:
    frozen = [frozenset(mask) for mask in masks]
    return [set(pin(rank, frozen, one_core=one_core)) for rank in range(len(masks))]


@pytest.mark.parametrize(
    ("masks", "parts", "single"),
    [
        ([{0, 1}], [{0, 1}], [{0}]),
        ([{0, 1}] * 2, [{0}, {1}], [{0}, {1}]),
        ([{0}, {1}], [{0}, {1}], [{0}, {1}]),
        ([{0, 1, 2, 3}] * 2, [{0, 1}, {2, 3}], [{0}, {2}]),
        ([{4, 5, 6, 7, 9}] * 2, [{4, 5}, {6, 7, 9}], [{4}, {6}]),
        ([{0, 1}] * 5, [{0}, {1}, {0}, {1}, {0}], [{0}, {1}, {0}, {1}, {0}]),
        ([{0, 1}] * 2 + [{2, 3}] * 2, [{0}, {1}, {2}, {3}], [{0}, {1}, {2}, {3}]),
        ([{0, 1}, {2, 3}], [{0, 1}, {2, 3}], [{0}, {2}]),
    ],
)
def test_ranks_share_equal_masks(masks: list[set[int]], parts: list[set[int]], single: list[set[int]]) -> None:
    assert shares(masks, one_core=False) == parts
    assert shares(masks, one_core=True) == single


@pytest.mark.parametrize("n_cores", [1, 2, 3, 7, 64, 128])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7, 64, 100])
def test_parts_cover_all_cores_and_overlap_only_when_they_must(n_cores: int, n_ranks: int) -> None:
    parts = shares([set(range(n_cores))] * n_ranks, one_core=False)
    assert all(parts)
    assert set().union(*parts) == set(range(n_cores))
    if n_ranks <= n_cores:
        assert sum(map(len, parts)) == n_cores
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="local_rank must be in"):
        pin(2, [frozenset({0})] * 2)
    with pytest.raises(ValueError, match="at least one core"):
        pin(0, [frozenset()])


def test_accelerators_are_seen_by_their_device_files(tmp_path: Path) -> None:
    for name in ("null", "nvidiactl", "davinci_manager"):
        (tmp_path / name).touch()
    assert not has_accelerator(tmp_path)
    (tmp_path / "davinci3").touch()
    assert has_accelerator(tmp_path)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_rank_and_its_threads_stay_on_one_core() -> None:
    code = """
import os, types
import numpy as np
np.ones((300, 300)) @ np.ones((300, 300))  # starts the threads of numpy's BLAS
from mia_batch.mpi import affinity
masks = frozenset(os.sched_getaffinity(0))
world = types.SimpleNamespace(rank=0, local_rank=0, local_ranks=(0,), allgather=lambda value: [value])
cores = affinity.share_cores(world, "CPU")
assert len(cores) == 1 and cores <= masks
assert all(os.sched_getaffinity(int(task)) == cores for task in os.listdir("/proc/self/task"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
