"""What a process and all that it starts take: memory while it runs, CPU when it has ended."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.2  # seconds between looks


@dataclass(frozen=True)
class Usage:
    """Of a whole process tree."""

    peak_mib: float  # proportional set size: pages that processes share count once


def run_measured(command: Sequence[str]) -> Usage:
    """Run `command` to its end, without scikit-learn's warnings of what MindArmour should change.

    Raises:
        CalledProcessError: it failed.
    """
    peak = 0
    with subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning"}) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, proportional_bytes(root))
            time.sleep(INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(peak / 2**20)


def peaks_of(command: Sequence[str | Path], stages: Sequence[str], output: Path) -> tuple[int, dict[str, int]]:
    """Run `mia-batch run` to its end, its output into a file.

    Returns:
        The exit code, and the peak of each stage's processes; of "run" that of the command's own process.
    """
    peaks = dict.fromkeys((*stages, "run"), 0)
    with output.open("w") as file, subprocess.Popen([*map(str, command)], stdout=file, stderr=file) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peaks["run"] = max(peaks["run"], _pss(process.pid))
            for child in _descendants(root):
                stage = next((stage for stage in stages if f"jobs/{stage}.py" in " ".join(_words(child))), None)
                if stage and not any(f"jobs/{stage}.py" in word for word in _words(child.parent())):
                    peaks[stage] = max(peaks[stage], proportional_bytes(child))
            time.sleep(INTERVAL)
    return process.returncode, peaks


def _words(process: psutil.Process | None) -> list[str]:
    try:
        return process.cmdline() if process else []
    except psutil.Error:
        return []


def proportional_bytes(root: psutil.Process) -> int:
    """Memory of a process and its descendants now."""
    return sum(_pss(process.pid) for process in (root, *_descendants(root)))


def cpu_seconds() -> float:
    """Seconds of all cores that this process and its descendants have used, those that have ended included."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [_cpu(process) for process in _descendants(psutil.Process())]
    return sum(usage.ru_utime + usage.ru_stime for usage in own) + sum(alive)


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
