"""What commands write and print of single samples, and who may read what they write.

A sample's name or index, with which its side is said or not, stands in HDF5, in plans of references, in records.csv, in
summary.json and report.html, and in the files of a trajectory: in no log, no status, no JUnit file and no text that a
command prints. With `report.records: 0` no summary and no page has it either.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from finished import mia_batch
from outputs import made_up, write_npz
from running import run_job

from mia_batch.cli import main

UMASK = 0o022  # of most shells: it lets everybody read
BINARY = {".h5", ".npy", ".npz", ".ckpt", ".png"}
NAMES_SAMPLES = {"records.csv", "summary.json", "report.html"}
VERDICTS = (0, 3, 4)
N = 120  # samples of the file of outputs
FIRST, SIDE = 7_000_000, 24  # index of the network's samples; samples of a side
CODE = """
import numpy as np

def build(num_classes=4):
    from mindspore import nn
    return nn.SequentialCell(nn.Dense(8, 16), nn.ReLU(), nn.Dense(16, num_classes))

class Rows:
    def __len__(self):
        return 8_000_000
    def __getitem__(self, i):
        rng = np.random.default_rng(int(i))
        label = int(rng.integers(4))
        return (rng.normal(size=8) + np.eye(8)[label]).astype(np.float32), label

def make(split):
    return Rows()
"""
Words = Callable[..., str]
PERSON = re.compile(r"person-\d+-of-ward|\bsample \d")


def naming(folder: Path, printed: dict[str, str], named: re.Pattern[str]) -> set[str]:
    """The texts that name a sample: files of a folder, and what commands have printed."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in BINARY]
    assert len(files) > 5
    texts = {str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace") for path in files}
    return {name for name, text in (texts | printed).items() if named.search(text)}


def readable(*folders: Path) -> list[str]:
    """What others may read, write or enter."""
    return [
        f"{path}: {path.stat().st_mode & 0o777:o}" for folder in folders for path in (folder, *folder.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def open_shell() -> Iterator[None]:
    before = os.umask(UMASK)
    yield
    os.umask(before)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Words:
    """Run a command in this process, of a shell whose umask lets everybody read; what it has printed."""

    def run(*words: object) -> str:
        os.umask(UMASK)
        assert main([str(word) for word in words]) in VERDICTS, capsys.readouterr().err
        return "".join(capsys.readouterr())

    return run


def told(folder: Path, *words: object) -> str:
    """Run a command as a process; what it has printed."""
    os.umask(UMASK)
    done = mia_batch(*words, cwd=folder)
    assert done.returncode in VERDICTS, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_config(folder: Path, name: str, raw: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"report": {"slices": {"class": True}}} | raw))
    return path


# -- outputs of a file --


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An audit of outputs whose samples and groups have names, three of which are twins, and what it has printed."""
    folder = tmp_path_factory.mktemp("outputs")
    arrays = made_up(N, surer=4.0)
    arrays |= {"sample_id": np.array([f"person-{i}-of-ward" for i in range(N)]), "group": np.arange(N) // 2}
    rare = np.random.default_rng(9).normal(size=(3, 4)).astype(np.float32)
    for side in (0, 1):
        rows = np.flatnonzero(arrays["member"] == side)[:3]
        arrays["logits"][rows], arrays["label"][rows] = rare, 1
    file = write_npz(folder / "outputs", arrays)
    raw = {"data": {"source": "outputs", "files": str(file)}}
    methods = [{"method": "threshold_loss"}, {"method": "lr", "params": {"C": [0.1, 1.0]}}]
    config = write_config(folder, "audit.yaml", raw | {"attack": {"backend": "serial", "methods": methods}})
    run = ("run", config, "--out", folder / "run", "--junit", folder / "run" / "junit.xml", "--verbose")
    return folder, {"run": told(folder, *run)}


def shown(say: Words, folder: Path, other: Path) -> dict[str, str]:
    """What commands say of a finished run in `folder`, also beside a copy in `other`; they write into `folder`."""
    run, config = folder / "run", folder / "audit.yaml"
    shutil.copytree(run, other)
    commands: dict[str, tuple[object, ...]] = {
        "status": ("status", run), "status --json": ("status", run, "--json"), "verify": ("verify", run),
        "show": ("show", run), "show --attack": ("show", run, "--attack", "lr"),
        "show --attack --json": ("show", run, "--attack", "lr", "--json"),
        "show --markdown": ("show", run, "--markdown"), "show --model-card": ("show", run, "--model-card"),
        "show --figures": ("show", run, "--figures", folder / "figures"), "compare": ("compare", run, other),
        "history": ("history", folder, "--html", folder / "history.html"), "check": ("check", config),
        "history --format": ("history", folder, "--format", "json"), "doctor": ("doctor", folder),
        "submit": ("submit", config, "--out", folder / "queued", "--dry-run"), "schema": ("schema",),
    }  # fmt: skip
    return {name: say(*words) for name, words in commands.items()}


def test_an_audit_of_outputs_names_no_sample_where_it_must_not(
    outputs: tuple[Path, dict[str, str]], say: Words, tmp_path: Path
) -> None:
    folder, printed = outputs
    printed = printed | shown(say, folder, tmp_path / "other")
    printed.pop("check")
    assert naming(folder, printed, PERSON) == {f"run/{name}" for name in NAMES_SAMPLES}
    assert "3 members and 3 non-members have outputs and a label that are on both sides" in " ".join(
        printed["run"].split()
    )
    lists = re.compile(r"\[?\b\d+(, ?\d+){9,}")  # ten numbers in a row
    assert {name for name in naming(folder, printed, lists) if name.endswith((".log", ".xml"))} == set()
    assert not {name for name in naming(folder / "run", printed, lists) if name in printed}


def test_what_commands_have_written_of_outputs_is_for_its_owner_alone(
    outputs: tuple[Path, dict[str, str]], say: Words, tmp_path: Path
) -> None:
    folder, _ = outputs
    shown(say, folder, tmp_path / "other")
    say("import", folder / "outputs.npz", "--out", tmp_path / "imported")
    say("init", "--kind", "outputs", "--out", tmp_path / "init")
    made = [folder / name for name in ("run", "figures", "history.html")]
    assert readable(*made, *tmp_path.iterdir()) == []
    assert len(readable(folder / "audit.yaml", folder / "outputs.npz")) == 2  # what the shell makes
    assert {path.name for path in folder.iterdir()} == {"outputs.npz", "audit.yaml", *(path.name for path in made)}


def test_without_records_no_page_and_no_summary_names_one(
    outputs: tuple[Path, dict[str, str]], say: Words, tmp_path: Path
) -> None:
    folder, _ = outputs
    out = shutil.copytree(folder / "run", tmp_path / "run")
    printed = {"run": say("run", folder / "audit.yaml", "--out", out, "--set", "report.records=0")}
    assert naming(out, printed, PERSON) == set()


# -- a network, with references of its own --


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], re.Pattern[str]]:
    """An audit of a network by two references that it trains, what it has printed, and how its samples look."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "tiny_net.py").write_text(CODE)
    index = FIRST + np.random.default_rng(5).permutation(900_000)[: 2 * SIDE]
    for name, part in (("members", index[:SIDE]), ("nonmembers", index[SIDE:])):
        np.save(folder / f"{name}.npy", part)
    blocks = {name: {"split": "train", "indices": f"{name}.npy"} for name in ("members", "nonmembers")}
    methods = [{"method": "threshold_loss"}, {"method": "lr", "params": {"C": [0.1, 1.0]}}, {"method": "log_ratio"}]
    config = write_config(folder, "audit.yaml", {
        "model": {"factory": "tiny_net.py:build", "checkpoint": "net.ckpt"},
        "data": {"source": "tiny_net.py:make", "preprocess": "none", **blocks},
        "extract": {"device": "CPU", "batch_size": 8}, "gate": {"weak_model": True},
        "references": {"shadows": "shadows", "count": 2, "store": "store"},
        "train": {"epochs": 1, "batch_size": 16}, "attack": {"backend": "serial", "methods": methods},
    })  # fmt: skip
    os.umask(UMASK)
    trained = run_job("train", config)
    assert trained.returncode == 0, trained.stderr
    run = ("run", config, "--out", folder / "run", "--junit", folder / "run" / "junit.xml", "--verbose")
    printed = {"train": trained.stdout + trained.stderr, "run": told(folder, *run)}
    return folder, printed, re.compile("|".join(rf"\b{number}\b" for number in index))


def test_an_audit_of_a_network_names_no_sample_and_opens_nothing(
    network: tuple[Path, dict[str, str], re.Pattern[str]], say: Words, tmp_path: Path
) -> None:
    folder, printed, named = network
    printed = printed | shown(say, folder, tmp_path / "other")
    printed["references"] = say("references", folder / "audit.yaml")
    made = {"run", "figures", "history.html", "shadows", "store"}
    assert printed.pop("check") != ""  # it shows the one sample that it reads
    assert naming(folder, printed, named) == {f"run/{name}" for name in NAMES_SAMPLES}
    assert {path.name for path in (folder / "run" / "logs").iterdir()} >= {"extract.log", "attack.log", "reduce.log"}
    assert readable(*(folder / name for name in made), folder / "net.ckpt", folder / "net.ckpt.json") == []
