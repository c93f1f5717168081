"""Imports point one way: the numeric core knows no cluster, no framework and no file format."""

import subprocess
import sys

import pytest

CORE = [
    "signals", "metrics", "verdict.gate", "mpi.shards", "settings.grids",
    "settings.schema", "settings.loading", "data.selection", "data.records", "rundir.paths",
    "report.summary", "report.text", "search.estimators", "search.engine", "attacks.base",
    "network.checkpoint_bytes", "stages.plan", "commands.check",
]
EDGES = {"mindspore", "mpi4py", "h5py"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [*((module, set()) for module in CORE), ("rundir.features", {"h5py"}), ("commands.run", {"h5py"}),
     ("jobs.attack", {"h5py"}),
     ("jobs.reduce", {"h5py"}), ("jobs.extract", {"h5py"})],
)
def test_a_module_brings_no_edge_that_is_not_its_own(module: str, allowed: set[str]) -> None:
    code = f"import sys, mia_batch.{module}; print(*({EDGES!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == allowed
