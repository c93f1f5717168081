"""The wheel holds everything: what it installs outside a checkout writes first configs, audits, queues and explains."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO
from test_containers import docker
from test_docs import dead_links

RUN = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 300}
DATA = ("*.sbatch", "crontab*", "*.yaml", "sites/*", "*.md", "containers/*", "images/*", "templates/*", "*/*.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel puts into an environment, in a folder of its own; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # pip builds where the source is
    source.mkdir()
    for name in docker()[1]:
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy2
        copy(REPO / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    made = ["wheel", "--no-deps", "-w", "made", "./source"]
    taken = ["install", "--no-deps", "--target", "site", "--no-index", "--find-links", "made", "mia_batch"]
    for command in (made, taken):
        done = subprocess.run([*pip, *command], cwd=folder, **RUN)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def here(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the installed package in a folder that is no checkout."""
    env = {**os.environ, "PYTHONPATH": str(installed), "PATH": f"{installed / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=env, **RUN)  # type: ignore[call-overload, no-any-return]


def test_every_file_that_is_no_code_is_in_it(installed: Path) -> None:
    package = installed / "mia_batch"
    places = {REPO / name: package / name for name in ("slurm", "configs", "docs")}
    places[REPO / "mia_batch" / "report"] = package / "report"
    for ours, theirs in places.items():
        files = {file for pattern in DATA for file in ours.glob(pattern) if file.is_file()}
        assert files
        assert [str(f) for f in files if (theirs / f.relative_to(ours)).read_bytes() != f.read_bytes()] == []


def test_its_manual_leads_nowhere_else(installed: Path) -> None:
    pages = sorted((installed / "mia_batch" / "docs").glob("*.md"))
    assert len(pages) > 20
    assert {page.name: dead_links(page) for page in pages if dead_links(page)} == {}


def test_help_says_where_the_manual_is(installed: Path, tmp_path: Path) -> None:
    found = here(installed, tmp_path, "mia-batch", "--help")
    manual = re.search(r"^manual:\s(.*)$", found.stdout, re.MULTILINE)  # a long path has a line of its own
    assert manual, found.stderr
    assert Path(manual[1]) == installed / "mia_batch" / "docs" / "index.md"
    assert Path(manual[1]).is_file()


def test_a_first_config_is_audited_and_queued(installed: Path, tmp_path: Path) -> None:
    for command in (
        ("mia-batch", "init", "--kind", "outputs", "--out", "first"),
        (sys.executable, "first/outputs/data.py"),
    ):
        done = here(installed, tmp_path, *command)
        assert done.returncode == 0, done.stderr
    few = ("--set", "attack.methods=[{method: threshold_loss}]")
    dry = here(installed, tmp_path, "mia-batch", "submit", "first/outputs.yaml", "--out", "queued", "--site",
               "first/sites/cpu.yaml", "--dry-run")  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    scripts = [Path(word) for word in re.findall(r"\S+\.sbatch", dry.stdout)]
    assert {path.name for path in scripts} == {"import.sbatch", "attack.sbatch", "reduce.sbatch"}
    assert all(path.is_relative_to(installed) and path.is_file() for path in scripts)
    done = here(installed, tmp_path, "mia-batch", "run", "first/outputs.yaml", "--out", "done", *few)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "done" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_demo_finds_what_it_is_made_of(installed: Path, tmp_path: Path) -> None:
    """Its training and audit are those of `make demo`."""
    code = "from pathlib import Path; from mia_batch.commands.demo import write_inputs; print(write_inputs(Path.cwd()))"
    done = here(installed, tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"data", "demo.yaml", "schema.json"}
    assert "../" not in (tmp_path / "demo.yaml").read_text(encoding="utf-8").split("data:")[1]
