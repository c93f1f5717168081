"""How many cores this process was given, which is seldom how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path


def available_cpus(environ: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: the least of its affinity mask, SLURM_CPUS_PER_TASK and its cgroup's quota."""
    limits = [len(os.sched_getaffinity(0)), cgroup_cores()]
    if environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        limits.append(int(environ["SLURM_CPUS_PER_TASK"]))
    return max(1, math.ceil(min(limits)))


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """CPU quota of this process's control groups (version 1 or 2) in cores; infinity where there is none.

    Every group from the process's own up to the root limits it. joblib reads the root's alone, which is the process's
    own in a container but not under Slurm or systemd.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0":
            quotas += [_quota_v2(folder / "cpu.max") for folder in _upwards(root, group)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                quotas += [_quota_v1(folder) for folder in _upwards(root / mount, group)]
    return min(quotas)


def _upwards(root: Path, group: str) -> list[Path]:
    own = root / group.strip("/")
    return [own, *(parent for parent in own.parents if parent == root or root in parent.parents)]


def _quota_v2(file: Path) -> float:
    try:
        quota, period = file.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
