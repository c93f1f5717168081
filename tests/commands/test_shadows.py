"""`mia-batch shadows` as a user starts it, killed, stopped, and started again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
from running import REPO, one_line
from trainings import write_config, write_training

pytest.importorskip("mindspore")

from mia_batch.cli import main
from mia_batch.process.exit_codes import BAD_INPUT, OK, run_stoppable
from mia_batch.stages.train import run_train_stage

FILES = ["plan.json", "plan.npz", "samples", "shadow_000.ckpt", "shadow_000.ckpt.json", "shadow_001.ckpt",
         "shadow_001.ckpt.json"]  # fmt: skip


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    write_training(tmp_path)
    return write_config(tmp_path, train={"epochs": 60, "checkpoint_every": 1})


def command(config: Path, out: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "mia_batch.cli", "shadows", str(config), "--out", str(config.parent / out), *options]


def run(config: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = command(config, out, "--count", "2", *options)
    return subprocess.run(words, capture_output=True, text=True, env=environ(), timeout=300)


def environ() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO)}


def start(config: Path, out: str) -> subprocess.Popen[str]:
    words = command(config, out, "--count", "2", "--verbose")
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ())


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_kills_and_stops_change_no_bit_and_the_next_call_does_nothing(config_file: Path) -> None:
    assert run(config_file, "unbroken").returncode == 0
    broken = config_file.parent / "broken"
    with start(config_file, "broken") as process:
        wait_for(process, "shadow 0 I epoch 5/60")
        process.kill()
    # A child ends with its parent; the next call is refused while it holds the model's lock.
    deadline = time.monotonic() + 30
    while (state := broken / "shadow_000.training.ckpt").exists() and time.monotonic() < deadline:
        before = state.stat().st_mtime_ns
        time.sleep(1)
        if state.exists() and state.stat().st_mtime_ns == before:
            break
    assert not (broken / "shadow_000.ckpt").exists()
    with start(config_file, "broken") as process:
        wait_for(process, "shadow 1 I epoch 5/60")
        process.send_signal(signal.SIGUSR1)
        assert process.stderr
        rest = process.stderr.read()
    assert process.returncode == 75, rest
    assert "stopped at model 1, state saved; the same command goes on from there" in rest
    ended = run(config_file, "broken")
    assert ended.returncode == 0, ended.stderr
    progress = [line.partition(" I ")[2] for line in ended.stderr.splitlines() if " of 2: " in line]
    assert [line.partition(": accuracy")[0] for line in progress] == ["2 of 2: shadow_001.ckpt"]
    assert visible(broken) == visible(config_file.parent / "unbroken") == FILES
    for name in ("plan.npz", "plan.json", "shadow_000.ckpt", "shadow_001.ckpt"):
        assert (broken / name).read_bytes() == (config_file.parent / "unbroken" / name).read_bytes(), name

    marks = {path: path.stat().st_mtime_ns for path in broken.rglob("*")}
    again = run(config_file, "broken")
    assert (again.returncode, again.stdout) == (0, ended.stdout)
    assert "nothing to do: all 2 models are trained" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in broken.rglob("*")} == marks
    *_, command, _, _, _, section, folder, count = again.stdout.splitlines()
    assert [section, folder, count] == ["references:", f'  shadows: "{broken}"', "  count: 2"]
    assert shlex.split(command) == [
        "mia-batch", "run", str(config_file), "--out", f"{broken}-audit",
        "--set", f'references.shadows="{broken}"', "--set", "references.count=2",
    ]


def test_wrong_words_are_one_line(config_file: Path) -> None:
    assert "--seed: must be at least 0 and below 2**64, got -1" in one_line(run(config_file, "out", "--seed=-1"))
    line = one_line(run(config_file, "out", "--set", "data.members={split: trian}"))
    assert "data.members: split must be one of train, test, got 'trian'; did you mean train?" in line
    assert not (config_file.parent / "out").exists()


def test_a_training_that_fails_ends_the_loop_with_its_line(config_file: Path) -> None:
    done = run(config_file, "out", "--set", "train.learning_rate=1.0e+30")
    assert "train.learning_rate: loss must stay finite" in one_line(done)
    assert visible(config_file.parent / "out") == ["plan.json", "plan.npz", "samples"]


def audit(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mia_batch.cli", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environ(), timeout=300)


def stages(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.partition("stage ")[2] for line in done.stderr.splitlines() if " I stage " in line]


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """What mia-batch says in this process, which has loaded all that it takes."""
    capsys.readouterr()
    code = main([*map(str, words)])
    return code, *capsys.readouterr()


@pytest.mark.slow
def test_one_command_trains_references_and_audits_with_them(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second call only repeats the verdict; of weights that are others, nothing is taken for what it was."""
    out, folder = config_file.parent / "run", config_file.parent / "run" / "shadows"
    methods = {"methods": [{"method": "threshold_loss"}, {"method": "squared_difference"}], "backend": "serial"}
    config = write_config(config_file.parent, train={"epochs": 2}, attack=methods, gate={"weak_model": True})
    assert run_stoppable(run_train_stage, Namespace(config=str(config), changes=[], verbose=False, quiet=False)) == OK
    given = ("--set", f"references.shadows={folder}", "--set", "references.count=2")
    _, planned, _ = printed(capsys, "check", config, *given)
    assert f"2 of them not trained in {folder}" in planned
    assert "estimate: shadows: about " in planned  # as long as the target's own
    first = audit(config, "--out", out, "--shadows", "2")
    assert first.returncode in (0, 3, 4), first.stderr
    assert stages(first) == ["extract", "shadows", "references", "attack", "reduce"]
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["methods"]["squared_difference"]["reason"]
    launches = json.loads((out / "run.json").read_text())["launches"]
    assert [each["stage"] for each in launches] == ["extract", "shadows", "shadows", "references"]
    _, said, _ = printed(capsys, "status", out)
    assert [line.split()[:2] for line in said.splitlines()[:3]] == [
        ["extract", "done"], ["shadows", "done"], ["references", "done"]
    ]  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert stages(audit(config, "--out", out, "--shadows", "2")) == ["reduce"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")} == before
    (folder / "shadow_001.ckpt").write_bytes((folder / "shadow_000.ckpt").read_bytes())
    code, _, error = printed(capsys, "run", config, "--out", out, "--shadows", "2")
    assert code == BAD_INPUT
    assert error.count("\n") == 1
    assert "shadow_001.ckpt: model.checkpoint: must be as training wrote it" in error
