"""The mini-cluster as a session fixture, and a finished audit to compare with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import Audit
from minicluster import MiniCluster, missing


@pytest.fixture(scope="session")
def daemons() -> None:
    """Slurm's daemons are here, or the test is skipped; in CI, which installs them, it fails."""
    reason = missing()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def mini(daemons: None) -> Iterator[MiniCluster]:
    """A running cluster of four nodes, ended with the session however that ends."""
    cluster = MiniCluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(mini: MiniCluster) -> Iterator[MiniCluster]:
    """The session's cluster with every node on and no job left by the test before."""
    yield mini
    mini.repair()
    mini.run("scancel", "--user=root", check=False)
    mini.wait_ready()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, checkpoints: list[Path]) -> Path:
    """The first checkpoint's run on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("reference")
    audit = Audit.write(folder, checkpoints[0])
    command = [sys.executable, "-m", "mia_batch.cli", "run", audit.config, "--out", folder / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 3, 4), done.stderr
    return folder / "run"
