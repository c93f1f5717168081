"""The mini-cluster as a session fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from minicluster import MiniCluster, missing


@pytest.fixture(scope="session")
def mini() -> Iterator[MiniCluster]:
    """A running cluster of four nodes, ended with the session however that ends."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    cluster = MiniCluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(mini: MiniCluster) -> Iterator[MiniCluster]:
    """The session's cluster with every node on and no job left by the test before."""
    yield mini
    mini.power_on("slurmctld", "n1", "n2", "n3", "n4")
    mini.run("scancel", "--user=root", check=False)
    mini.wait_ready()
