"""`mia-batch run`, `status` and `check` as a user calls them, on a real network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process_tree import peaks_of
from rundirs import write_rows
from running import one_line
from steps import OF_A_STEP

from mia_batch.process.resources import available_cpus
from mia_batch.rundir.claim import claim
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.stages.estimates import earlier_speed, estimates, runs_around
from mia_batch.stages.plan import make_manifest, make_plan

Write = Callable[..., Path]
SAID = ("attack.seed=2", "extract.batch_size=8")
METHODS = [{"method": "lr", "params": {"C": [0.1, 1.0]}}, {"method": "knn", "params": {"n_neighbors": [3]}}]


def mia_batch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mia_batch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def check_estimates(config: Path, out: Path, peaks: dict[str, int]) -> None:
    """What was set reached every stage and run.json, and each estimate of memory is right within a factor of two."""
    record = json.loads((out / "run.json").read_text())
    assert record["changes"] == list(SAID)
    assert (record["config"]["attack"]["seed"], record["config"]["extract"]["batch_size"]) == (2, 8)
    loaded = load_config(config, changes=SAID)
    selection = make_plan(loaded).selection
    found = {each.stage: each.memory for each in estimates(loaded, selection, ranks=2, n_jobs=available_cpus())}
    (launch,) = record["launches"]
    assert launch["forward_seconds"] <= launch["seconds"]
    assert launch["parameters"] > 1000
    measured = {"extract": launch["memory"], "attack": peaks["attack"], "reduce": peaks["run"]}
    for stage, peak in measured.items():
        assert 0.5 < found[stage] / peak < 2, (stage, found, measured)
    speed = earlier_speed(make_manifest(loaded), runs_around(out.parent))
    assert speed is not None
    assert speed.source.startswith("a run's directory (160 rows on 2 rank(s) of ")
    assert speed.memory == launch["memory"]


def test_a_network_that_has_seen_neither_side_is_not_shown_to_leak(tmp_path: Path, net_config: Write) -> None:
    config = net_config({"attack.methods": METHODS, "gate": {"weak_model": True}})
    out = tmp_path / "a run's directory"
    words = ("run", config, "--out", out, "--ranks", "2", *(f"--set={change}" for change in SAID))
    command = [sys.executable, "-m", "mia_batch.cli", *words, "--junit", tmp_path / "verdict.xml"]
    code, peaks = peaks_of(command, ["attack"], tmp_path / "output")
    said = (tmp_path / "output").read_text()
    assert code == 4, said
    check_estimates(config, out, peaks)
    assert "<error" in (tmp_path / "verdict.xml").read_text()
    assert "Method: lr, {'recall': " in said
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["verdict"]["leak"], summary["audited"]["weak_model"]) == (None, True)
    assert (out / "summary.csv").read_text().count("\n") > 10

    status = mia_batch("status", out)
    assert "\nreduce        done  inconclusive: " in status.stdout
    assert "160 of 160 rows" in status.stdout

    before = (out / "features.h5").read_bytes()
    started = time.monotonic()
    second = mia_batch(*words)
    assert second.returncode == 4
    assert said.endswith(second.stdout)
    assert "stage extract" not in second.stderr
    assert "stage attack" not in second.stderr
    assert time.monotonic() - started < 30
    assert (out / "features.h5").read_bytes() == before


def test_another_run_s_directory_gets_no_plan_of_models(tmp_path: Path, net_config: Write) -> None:
    """With which that run could train none of its own any more."""
    theirs = RunPaths(tmp_path / "theirs")
    write_rows(theirs, claim(theirs, make_plan(load_config(net_config({"extract.batch_size": 8}))).manifest))
    result = mia_batch("run", net_config({}), "--out", theirs.root, "--shadows", "2")
    assert "--out: holds another run: extract.batch_size was 8" in one_line(result)
    assert not theirs.shadows.exists()


def test_a_network_that_was_never_trained_is_not_evaluable(tmp_path: Path, net_config: Write) -> None:
    result = mia_batch("run", net_config({"attack.methods": METHODS}), "--out", tmp_path / "out")
    assert result.returncode == 4, result.stderr
    assert result.stdout.startswith("The model itself is right on ")
    assert "NOT EVALUABLE: the model is right on" in result.stdout


def test_check_shows_the_plan_and_runs_nothing(tmp_path: Path, net_config: Write) -> None:
    result = mia_batch("check", net_config({"attack.methods": METHODS}), "--ranks", "3")
    assert result.returncode == 0, result.stderr
    assert "160 samples (90 members, 70 non-members) on 3 rank(s), up to 54 each" in result.stdout
    assert "lr: 2 candidates, 4 fits and 1 final" in result.stdout
    assert "reduce:  levels for each attack, with an error of 0.05 in all: balanced accuracy of 0.6" in result.stdout
    assert "WARNING: even a model without any leak will often be INCONCLUSIVE: 70 samples of a side" in result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.members": {"split": "train", "num_samples": 91}}, ["data.members", "90 samples", "num_samples: 91"]),
        ({"data.nonmembers": {"split": "train", "range": [80, 90]}}, ["data.nonmembers", "80"]),
        ({"model.factory": "mia_batch.models.vgg:vgg11"}, ["net.ckpt", "model.checkpoint"]),
        ({"attack.methods": [{"method": "lr", "params": {"Q": [1]}}]}, ["params.Q", "valid parameters"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, net_config: Write, changes: dict[str, object], words: list[str]
) -> None:
    out = tmp_path / "out"
    result = mia_batch("run", net_config(changes), "--out", out, "--ranks", "2")
    if "model.factory" in changes:  # found by the ranks: missing and unexpected parameters are two lines
        assert result.returncode == 2
        assert all(word in result.stderr for word in words)
    else:
        line = one_line(result)
        assert all(word in line for word in words), line
    assert not (out / "features.h5").exists()
    assert "Traceback" not in result.stderr


LATE = """
import ctypes, sys
libc = ctypes.CDLL(None)
if sys.argv[0].endswith("extract.py") and not Path("{calm}").exists():
    libc.__cxa_atexit(libc.abort, None, None)  # as damage shows when native code tidies up, after Python has ended
"""


def test_a_crash_at_the_very_end_is_seen_by_its_exit_code(tmp_path: Path, source_config: Write) -> None:
    config, out, calm = source_config(), tmp_path / "out", tmp_path / "calm"
    images = config.with_name("images.py")
    images.write_text(images.read_text() + LATE.format(calm=calm))
    result = mia_batch("run", config, "--out", out)
    assert result.returncode == 1
    assert "a rank of extract died of SIGABRT; the same command computes again" in result.stderr
    assert "Traceback" not in result.stderr
    assert "0 of 192 rows" in mia_batch("status", out).stdout
    calm.touch()
    again = mia_batch("run", config, "--out", out)
    assert again.returncode in (0, 3, 4), again.stderr
    assert "a rank of the last launch crashed" in again.stderr


@pytest.mark.parametrize("content", [b"", b"plain text, not a checkpoint\n", b"\x0a\x10layers.0"])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, net_config: Write, content: bytes) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(content)
    result = mia_batch("run", net_config(checkpoint=bad), "--out", tmp_path / "out")
    assert "bad.ckpt" in one_line(result)


@pytest.mark.parametrize("keep", [1000, 3074 * 89 + 7])
def test_truncated_records_are_one_line(tmp_path: Path, net_config: Write, keep: int) -> None:
    config = net_config()
    train = tmp_path / "data" / "train.bin"
    train.write_bytes(train.read_bytes()[:keep])
    line = one_line(mia_batch("run", config, "--out", tmp_path / "out"))
    assert "train.bin" in line
    assert "3074" in line.replace(",", "")


def test_status_of_no_run_is_one_line(tmp_path: Path) -> None:
    assert "must be a run directory" in one_line(mia_batch("status", tmp_path))


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path, net_config: Write) -> None:
    (tmp_path / "out").write_text("mine")
    assert "--out: must be a directory" in one_line(mia_batch("run", net_config(), "--out", tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_output_is_one_line(tmp_path: Path, net_config: Write) -> None:
    assert one_line(mia_batch("run", net_config(), "--out", "")) == "mia-batch: --out: must name a directory, got ''"


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_a_run_in_a_shell_of_a_job_step_takes_itself_for_no_rank_of_it(
    tmp_path: Path, net_config: Write, ranks: str
) -> None:
    config = net_config({"attack.methods": METHODS[:1], "gate": {"weak_model": True}})
    command = [sys.executable, "-m", "mia_batch.cli", "run", config, "--out", tmp_path / "out", "--ranks", ranks]
    env = {**os.environ, **OF_A_STEP}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 4, done.stderr
    (launch,) = json.loads((tmp_path / "out" / "run.json").read_text())["launches"]
    assert (launch["rank_size"], launch["slurm_job_id"]) == (int(ranks), "7")
