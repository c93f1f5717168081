"""The container files install by the project's own files: what they say is the same, and is run in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from running import REPO

CONTAINERS = REPO / "docs" / "containers"
PLACE = "/opt/mia_batch"
# The variables that a build starts with, and those that say from where and where to this host installs.
KEPT = ("PATH", "HOME", "PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy", "PYTHON_")


def docker() -> tuple[str, dict[str, str], list[str]]:
    """Base image, copied paths, and commands, all before the last WORKDIR."""
    lines = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copies = dict(rest.split() for word, rest in words if word == "COPY")
    return next(rest for word, rest in words if word == "FROM"), copies, [rest for word, rest in words if word == "RUN"]


def apptainer() -> tuple[str, dict[str, str], list[str]]:
    """The same of the definition."""
    text = (CONTAINERS / "mia_batch.def").read_text(encoding="utf-8")
    head, *sections = re.split(r"^%(?=\w)", text, flags=re.MULTILINE)
    of = {name: [line.strip() for line in rest if line.strip()] for name, *rest in (s.splitlines() for s in sections)}
    base = re.search(r"^From: (\S+)$", head, re.MULTILINE)
    assert base
    assert of["post"][0] == f"cd {PLACE}"
    copies = dict(line.split() for line in of["files"])
    return base[1], {source: str(Path(to).relative_to(PLACE)) for source, to in copies.items()}, of["post"][1:]


def test_both_files_make_the_same() -> None:
    assert docker() == apptainer()


def test_what_is_copied_is_there_and_is_all_that_the_installation_reads() -> None:
    _, copies, _ = docker()
    assert all((REPO / source).exists() for source in copies)
    assert {source: source for source in copies} == copies
    setup = (REPO / "setup.cfg").read_text(encoding="utf-8")
    folders = {found.partition(".")[0] for found in re.findall(r"^    mia_batch\.\w+ = (\S+)$", setup, re.MULTILINE)}
    assert folders | {"mia_batch", ".ci", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} == set(copies)


@pytest.mark.slow
def test_the_commands_install_in_an_empty_folder(tmp_path: Path) -> None:
    _, copies, commands = docker()
    for source, to in copies.items():
        copy = shutil.copytree if (REPO / source).is_dir() else shutil.copy2
        copy(REPO / source, tmp_path / to)
    env = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    env["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    for command in commands:
        shell = ["sh", "-c", command]
        done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    program = tmp_path / ".venv" / "bin" / "mia-batch"
    assert done.stdout.startswith("mia-batch ")
    made = subprocess.run(
        [program, "init", "--kind", "tabular", "--out", "first"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "first" / "tabular.yaml").exists()
