"""Cores and memory by affinity, Slurm and control groups."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mia_batch.process import resources
from mia_batch.process.cgroup import cpu_limit, memory_limit
from mia_batch.process.resources import available_cpus


class TestCpus:
    def test_the_least_limit_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
        monkeypatch.setattr(resources, "cpu_limit", lambda: math.inf)
        assert available_cpus({}) == 16
        assert available_cpus({"SLURM_CPUS_PER_TASK": "4"}) == 4
        monkeypatch.setattr(resources, "cpu_limit", lambda: 1.5)
        assert available_cpus({"SLURM_CPUS_PER_TASK": "4"}) == 2

    def test_affinity_of_this_process(self) -> None:
        code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        code += "from mia_batch.process.resources import available_cpus; print(available_cpus({}))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"

    def test_version_2_with_a_limit_above(self, tmp_path: Path) -> None:
        group = tmp_path / "cg" / "slurm" / "job_1" / "step"
        group.mkdir(parents=True)
        (group / "cpu.max").write_text("max 100000\n")
        (group.parent / "cpu.max").write_text("250000 100000\n")
        membership = tmp_path / "self"
        membership.write_text("0::/slurm/job_1/step\n")
        assert cpu_limit(tmp_path / "cg", membership) == 2.5

    def test_version_1(self, tmp_path: Path) -> None:
        group = tmp_path / "cg" / "cpu,cpuacct" / "job"
        group.mkdir(parents=True)
        (group / "cpu.cfs_quota_us").write_text("300000\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
        membership = tmp_path / "self"
        membership.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n")
        assert cpu_limit(tmp_path / "cg", membership) == 3
        (group / "cpu.cfs_quota_us").write_text("-1\n")
        assert cpu_limit(tmp_path / "cg", membership) == math.inf

    def test_without_control_groups(self, tmp_path: Path) -> None:
        assert cpu_limit(tmp_path, tmp_path / "none") == math.inf


def test_the_tightest_memory_limit_counts(tmp_path: Path) -> None:
    for group, limit in (("", "max"), ("slurm", "8000"), ("slurm/job", "4000"), ("slurm/job/step", "max")):
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
    membership = tmp_path / "self"

    def limit_of(text: str) -> int | None:
        membership.write_text(text)
        return memory_limit(tmp_path, membership)

    assert limit_of("0::/slurm/job/step\n") == 4000
    assert limit_of("0::/slurm\n") == 8000
    assert limit_of("0::/\n1:cpu:/x\n") is None
    (tmp_path / "memory/job").mkdir(parents=True)
    (tmp_path / "memory/job/memory.limit_in_bytes").write_text("5000")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712")
    assert limit_of("4:memory:/job\n") == 5000


def test_memory_is_bounded_by_the_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "memory_limit", lambda: 1000)
    assert resources.available_memory() == 1000
    monkeypatch.setattr(resources, "memory_limit", lambda: None)
    assert resources.available_memory() == psutil.virtual_memory().total
