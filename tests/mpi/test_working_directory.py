"""Jobs where the working directory has modules named like those that they import: only the user's own are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from running import REPO

Write = Callable[..., Path]
BIN = Path(sys.prefix) / "bin"
MPIRUN = [str(BIN / "mpirun"), "-n", "2"]
HOSTILE = ("yaml", "numpy", "h5py", "joblib", "mpi4py", "mindspore", "scipy", "json", "argparse")
LOKY = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="joblib starts its processes with -m, and Python 3.10 has no PYTHONSAFEPATH"
)


@pytest.fixture
def config(
    tmp_path: Path, checkpoint: Path, net_config: Write, source_config: Write, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A config in the working directory, with code there named as modules; one is named like a file of jobs/."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"open('imported', 'a').write('{name} ')\nraise SystemExit(9)\n")
    (tmp_path / "train.py").write_text(checkpoint.with_name("net.py").read_text())
    source_config()  # for its images.py
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    changes = {"model.factory": "train:build", "data.source": "images:make", "data.path": None}
    return net_config({**changes, "data.kwargs": {"n": 48}})


def run(*command: str | Path, **environ: str) -> None:
    env = {**os.environ, **environ}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env=env, check=False)
    imported = Path("imported")
    assert not imported.exists(), (imported.read_text(), done.stderr)
    assert done.returncode in (0, 3, 4), done.stderr  # any verdict


def test_the_files_would_be_imported(config: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import numpy"], check=False)
    assert (done.returncode, Path("imported").read_text()) == (9, "numpy ")


@pytest.mark.parametrize("flag", ["-E", "-B"], ids=["as if there were no PYTHONSAFEPATH", "3.11"])
def test_stages_by_module(config: Path, flag: str) -> None:
    python = (sys.executable, flag, "-m")
    run(*MPIRUN, *python, "mia_batch.jobs.extract", config, "--out", "run")
    for stage in ("attack", "reduce"):
        run(*python, f"mia_batch.jobs.{stage}", config, "--out", "run")


def test_stages_by_file(config: Path) -> None:
    run(*MPIRUN, sys.executable, REPO / "jobs/extract.py", config, "--out", "run")
    for stage in ("attack", "reduce"):
        run(sys.executable, REPO / f"jobs/{stage}.py", config, "--out", "run")


def test_all_stages_by_the_command_and_an_empty_entry_of_pythonpath(config: Path) -> None:
    run(BIN / "mia-batch", "run", config, "--out", "run", "--ranks", "2", PYTHONPATH="/nowhere:")


@LOKY
def test_processes_of_joblib(config: Path) -> None:
    run(sys.executable, "-m", "mia_batch.jobs.prepare", config, "--out", "prepared", PYTHONPATH="/nowhere:")
    assert list(Path("prepared").iterdir())


def test_nothing_in_jobs_has_the_name_of_a_module_that_is_installed_or_pythons_own() -> None:
    # Until mia_batch is imported, jobs/ is first on the path of `python jobs/extract.py`.
    names = {path.stem for path in (REPO / "jobs").glob("*.py")} - {"__init__"}
    assert not names & (sys.stdlib_module_names | packages_distributions().keys())
