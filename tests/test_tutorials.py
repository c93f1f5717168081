"""The tutorials' commands, as docs/tutorials.md has them: what is trained for long leaks, what is not does not."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO

pytest.importorskip("mindspore")

from mia_batch.process.exit_codes import LEAK, OK, run_stoppable
from mia_batch.stages.train import run_train_stage

PAGE = (REPO / "docs" / "tutorials.md").read_text(encoding="utf-8")
KINDS = ("tabular", "text", "resnet")


def commands(kind: str) -> list[str]:
    """The page's commands that name this config."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if f"configs/{kind}.yaml" in line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the configs, which are told to write beside it."""
    shutil.copytree(REPO / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    """A command of the page; training in this process, which has MindSpore loaded."""
    program, *words = command.split()
    if program == "python":
        assert words[0] == "jobs/train.py"
        args = argparse.Namespace(config=words[1], changes=[], verbose=False, quiet=False)
        return run_stoppable(run_train_stage, args)
    assert program == "mia-batch"
    mia_batch = [sys.executable, "-m", "mia_batch.cli"]
    return subprocess.run([*mia_batch, *words], capture_output=True, timeout=300, check=False).returncode


def test_the_page_has_every_config() -> None:
    assert {kind for kind in KINDS if len(commands(kind)) >= 2} == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("folder")
def test_what_a_network_knows_by_heart_is_found(kind: str) -> None:
    *before, audit = commands(kind)
    assert [run(command) for command in before] == [OK] * len(before)
    assert run(audit) == LEAK


@pytest.mark.slow
def test_what_is_trained_for_two_epochs_is_not_found_to_leak(folder: Path) -> None:
    config = folder / "configs" / "tabular.yaml"
    config.write_text(re.sub(r"  epochs: \d+", "  epochs: 2", config.read_text()))
    train, *_, audit = commands("tabular")
    assert run(train) == OK
    assert run(audit) not in (LEAK, 1, 2)
