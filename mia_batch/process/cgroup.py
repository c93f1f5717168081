"""Limits of this process's control groups, version 1 or 2: every group from its own up to the root bounds it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60  # bytes; version 1 writes a number near 2**63 where there is none


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """CPU quota in cores; infinity where there is none.

    joblib reads the root's quota alone, which is the process's in a container but not under Slurm or systemd.
    """
    quotas = [math.inf]
    for version, folder in _groups("cpu", root, membership):
        try:
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except (OSError, ValueError):  # the root has no such file
            continue
        quotas += [int(quota) / int(period)] if quota.isdigit() and int(quota) > 0 else []
    return min(quotas)


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """The tightest memory limit in bytes; None without any."""
    limits = []
    for version, folder in _groups("memory", root, membership):
        try:
            text = (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).read_text().strip()
        except OSError:
            continue
        limits += [int(text)] if text.isdigit() and int(text) < NO_LIMIT else []
    return min(limits, default=None)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of each group that bounds this process."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [root / name for name in dict.fromkeys((controller, controllers))] if controllers else [root]
        for mount in mounts:
            own = mount / group.strip("/")
            for folder in (own, *own.parents):
                yield (1 if controllers else 2), folder
                if folder == mount:
                    break
