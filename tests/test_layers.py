"""Imports point one way: the numeric core knows no cluster, no framework and no file format."""

import subprocess
import sys

import pytest

CORE = [
    "signals", "metrics", "audit", "shards", "grid", "config", "data", "paths", "report.summary", "report.table",
    "attacks.classifiers", "attacks.search", "attacks.result", "checkpoint", "plan",
]
EDGES = {"mindspore", "mpi4py", "h5py"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [*((module, set()) for module in CORE), ("store", {"h5py"}), ("run", {"h5py"}), ("jobs.attack", {"h5py"}),
     ("jobs.reduce", {"h5py"}), ("jobs.extract", {"h5py"})],
)
def test_a_module_brings_no_edge_that_is_not_its_own(module: str, allowed: set[str]) -> None:
    code = f"import sys, mia_batch.{module}; print(*({EDGES!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == allowed
