"""How many cores and how much memory this process may use, which is seldom what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from mia_batch.process.cgroup import cpu_limit, memory_limit


def available_cpus(environ: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: the least of its affinity mask, SLURM_CPUS_PER_TASK and its cgroup's quota."""
    limits = [len(os.sched_getaffinity(0)), cpu_limit()]
    if environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        limits.append(int(environ["SLURM_CPUS_PER_TASK"]))
    return max(1, math.ceil(min(limits)))


def peak_memory() -> int | None:
    """The most bytes that this process has held; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) << 10 if found else None


def available_memory() -> int:
    """Bytes that this process may use: the machine's memory, or the limit of its cgroup."""
    total = psutil.virtual_memory().total
    return min(total, memory_limit() or total)
