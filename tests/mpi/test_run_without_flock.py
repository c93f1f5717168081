"""A whole audit on file systems that refuse locks or links: the kernel refuses these calls to all its processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from refusing import refused
from running import REPO, one_line

Write = Callable[..., Path]
LR = [{"method": "lr", "params": {"C": [0.1, 1.0]}}]


def start(calls: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    words = refused(calls, *command)
    return subprocess.run(words, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def run(calls: str, config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return start(calls, sys.executable, "-m", "mia_batch.cli", "run", config, "--out", out)


@pytest.fixture
def config(net_config: Write) -> Path:
    return net_config({"attack.methods": LR, "gate": {"weak_model": True}})


def test_an_audit_without_flock_and_links_ends_as_any(tmp_path: Path, config: Path) -> None:
    """Links are refused to extract alone: the C library makes semaphores, which the attacks need, by a link."""
    mpirun, out = Path(sys.prefix) / "bin" / "mpirun", tmp_path / "out"
    job = (mpirun, "-n", "2", sys.executable, REPO / "jobs" / "extract.py", config, "--out", out)
    extracted = start("flock=ENOLCK link=EPERM", *job)
    assert extracted.returncode == 0, extracted.stderr
    assert not list(out.glob(".features*"))
    done = run("flock=ENOSYS", config, out)
    assert done.returncode == 4, done.stderr
    assert "stage extract" not in done.stderr
    assert "Method: lr, {'recall': " in done.stdout


@pytest.mark.parametrize("calls", ["flock=ENOSYS range=ENOSYS", "flock=ENOLCK range=ENOLCK link=EPERM"])
def test_without_locks_it_is_refused_before_the_first_stage(tmp_path: Path, config: Path, calls: str) -> None:
    result = run(calls, config, tmp_path / "out")
    line = one_line(result)
    rule = "must be on a file system that locks files, by flock or by fcntl, got one that refuses both"
    assert line == f"mia-batch: {tmp_path / 'out'}: {rule}"
    assert "stage" not in result.stderr
    assert not (tmp_path / "out" / "run.json").exists()
