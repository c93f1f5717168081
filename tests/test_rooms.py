"""The rooms of the package: what each may import, and where MindSpore, mpi4py and h5py are imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from running import REPO

PACKAGE = REPO / "mia_batch"
# From the top down: a room imports those below it, and itself.
ROOMS = (
    "cli", "commands", "api", "scheduler", "stages", "network", "models", "data", "mpi", "workers", "rundir", "process",
    "report", "settings", "attacks", "search", "verdict", "metrics", "samples", "signals", "inputs", "npy_files",
    "json_text", "locks", "files", "errors", "module_path",
)
EDGES = {"mindspore": {"network", "models"}, "mpi4py": {"mpi"}, "h5py": {"rundir"}}
# No process, file, network or framework in the numeric core.
CORE = ("attacks", "search", "verdict", "metrics", "samples", "signals", "inputs")
NOT_IN_CORE = {
    "subprocess", "socket", "multiprocessing", "ctypes", "shutil", "tempfile", "psutil", "dask", "pydantic", "rich",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name within it."""
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    return {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in files}


def imported(source: str) -> Iterator[str]:
    """Dotted names of all modules that a source imports, also within functions and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(source: str) -> set[str]:
    """Names within the package of the modules that a source imports."""
    known, found = modules(), set()
    for name in imported(source):
        inner = name.removeprefix("mia_batch.")
        if inner != name:
            found.add(inner if inner in known else inner.rpartition(".")[0])
    return found & set(known)


def upward(name: str, source: str) -> list[str]:
    """Arrows of a module that point to a room above its own."""
    def level(module: str) -> int:
        return ROOMS.index(module.partition(".")[0])

    return [target for target in sorted(arrows(source)) if level(target) < level(name)]


def test_every_room_is_on_the_list() -> None:
    assert {name.partition(".")[0] for name in modules()} == set(ROOMS)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_downwards(name: str) -> None:
    assert upward(name, modules()[name].read_text()) == []


def test_an_arrow_that_is_turned_round_is_found() -> None:
    assert upward("search.tasks", "from mia_batch.attacks.base import Attack") == ["attacks.base"]
    assert upward("rundir.paths", "def f():\n    from mia_batch.stages import plan") == ["stages.plan"]
    assert upward("stages.plan", "from mia_batch.rundir import paths") == []


def test_there_is_no_circle() -> None:
    TopologicalSorter({name: arrows(file.read_text()) - {name} for name, file in modules().items()}).prepare()


@pytest.mark.parametrize("edge", sorted(EDGES))
def test_each_edge_is_imported_in_its_room_alone(edge: str) -> None:
    rooms = {
        name.partition(".")[0] for name, file in modules().items()
        if any(found.partition(".")[0] == edge for found in imported(file.read_text()))
    }
    assert rooms == EDGES[edge]


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith(CORE)))
def test_the_core_knows_no_process_file_or_framework(name: str) -> None:
    found = {module.partition(".")[0] for module in imported(modules()[name].read_text())}
    assert not found & NOT_IN_CORE


def test_jobs_and_commands_do_not_know_each_other() -> None:
    for file in (REPO / "jobs").glob("*.py"):
        names = set(imported(file.read_text()))
        assert not any(name.startswith(("mia_batch.commands", "mia_batch.cli")) for name in names)
        assert len(file.read_text().splitlines()) <= 20
    for name, file in modules().items():
        assert not any(found.startswith(("mia_batch.jobs", "jobs")) for found in imported(file.read_text())), name


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("attacks.registry", set()), ("commands.check", set()), ("stages.plan", set()), ("report.text", set()),
        ("workers.open_executor", set()), ("network.checkpoint_bytes", set()), ("commands.run", {"h5py"}),
        ("stages.attack", {"h5py"}), ("api.audit", {"h5py"}),
        ("api.membership_inference", {"h5py"}), ("stages.reduce", {"h5py"}), ("stages.extract", {"h5py"}),
    ],
)
def test_a_module_brings_no_edge_that_it_does_not_need(module: str, allowed: set[str]) -> None:
    code = f"import sys, mia_batch.{module}; print(*({set(EDGES)!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) <= allowed


def test_functions_stay_short() -> None:
    """Forty lines and eight arguments at most, docstrings aside."""
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                doc = (ast.get_docstring(node, clean=False) or "").count("\n") + 1 if ast.get_docstring(node) else 0
                arguments = [arg.arg for arg in (*node.args.args, *node.args.kwonlyargs) if arg.arg != "self"]
                assert (node.end_lineno or 0) - node.lineno + 1 - doc <= 40, f"{name}.{node.name}"
                assert len(arguments) <= 8, f"{name}.{node.name}"
