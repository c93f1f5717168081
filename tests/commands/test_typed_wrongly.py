"""What people type wrongly around reference models: one line, exit code 2, and nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rundirs import one_entry

from mia_batch.cli import main

WriteConfig = Callable[..., Path]
LIRA = {"attack.methods": [{"method": "lira_fixed"}]}
EVEN = "must be an even number from 2 to 1000, as models come in pairs, got"


@pytest.fixture
def folder(tmp_path: Path, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a config, and things that are no folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"w"))
    write_config(LIRA, name="audit.yaml")
    write_config(LIRA | {"references": {"shadows": "models", "count": 4, "store": "a_file"}}, name="store.yaml")
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "models").mkdir()
    os.mkfifo(tmp_path / "a_fifo")
    return tmp_path


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line."""
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("mia-batch: ")]
    assert (len(lines), said.out) == (1, "")
    assert "Error: " not in lines[0]
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize("count", ["0", "-2", "3", "1000000000", "99999999999999999999"])
def test_a_number_of_models_that_cannot_be(folder: Path, capsys: pytest.CaptureFixture[str], count: str) -> None:
    for command, option in (("shadows", "--count"), ("run", "--shadows"), ("submit", "--shadows")):
        words = (command, "audit.yaml", "--out", "r", option, count)
        assert f"{option}: {EVEN} {count}" in refused(folder, capsys, *words)


@pytest.mark.parametrize("seed", ["-1", str(1 << 64)])
def test_a_seed_that_no_plan_could_be_read_with(folder: Path, capsys: pytest.CaptureFixture[str], seed: str) -> None:
    words = ("shadows", "audit.yaml", "--out", "m", "--count", "2", "--seed", seed)
    assert f"--seed: must be at least 0 and below 2**64, got {seed}" in refused(folder, capsys, *words)


@pytest.mark.parametrize("name", ["a_file", "a_fifo", "a_file/x", "models/../a_file", "net.ckpt", "a\0b", "\ud800"])
def test_a_folder_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rule = "--out: must be a directory, got "
    for words in (("shadows", "--count", "2"), ("run", "--shadows", "2"), ("submit", "--shadows", "2", "--dry-run")):
        assert rule in refused(folder, capsys, words[0], "audit.yaml", "--out", name, *words[1:])
    if name.isprintable():
        assert "RUNS: must be a directory of run directories" in refused(folder, capsys, "trajectory", name)


def test_a_verdict_for_a_pipeline_that_has_no_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", "audit.yaml", "--out", "r", "--junit", "")
    assert "--junit: must name a file, got ''" in refused(folder, capsys, *words)


@pytest.mark.parametrize("command", [("check",), ("references",), ("run", "--out", "r"), ("submit", "--out", "r")])
def test_a_store_or_a_folder_of_models_that_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    rule = f"references.store: must be a directory, got {folder}/a_file"
    assert rule in refused(folder, capsys, command[0], "store.yaml", *command[1:])
    if command[0] != "references":
        changes = ("--set", "references.shadows=a_fifo", "--set", "references.store=s")
        rule = f"references.shadows: must be a directory, got {folder}/a_fifo"
        assert rule in refused(folder, capsys, command[0], "store.yaml", *command[1:], *changes)


@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_store_that_cannot_be_written_is_refused_before_the_first_stage(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("mia_batch.scheduler.submission.refuse_active", lambda _: None)
    words = (command, "audit.yaml", "--out", "r", "--shadows", "2", "--set", "references.store=/proc/nobody")
    assert main(list(words)) == 2  # by what a file system does not do
    assert capsys.readouterr().err.splitlines()[-1].startswith("mia-batch: /proc: must be writable")
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # whoever runs this test
    assert main([*words[:-1], "references.store=models"]) == 2
    rule = f"mia-batch: {folder}/models: references.store: must be a folder that can be written, got one that cannot"
    assert capsys.readouterr().err.splitlines()[-1] == rule
    assert not (folder / "r" / "features.h5").exists()


def test_what_lies_in_a_store_by_the_names_of_its_files_is_left_there(
    folder: Path, capsys: pytest.CaptureFixture[str], write_config: WriteConfig
) -> None:
    write_config(LIRA | {"references": {"shadows": "m", "count": 2, "store": "models"}}, name="prune.yaml")
    names = [f"{letter * 64}.h5" for letter in "abcd"]
    os.mkfifo(folder / "models" / names[0])
    (folder / "models" / names[1]).mkdir()
    (folder / "models" / names[2]).symlink_to("nowhere")
    (folder / "models" / names[3]).write_text("x")
    for words in ((), ("--prune",), ("--prune", "--yes")):
        assert main(["references", "prune.yaml", *words]) == 0
        assert names[0] not in capsys.readouterr().out
    assert sorted(os.listdir(folder / "models")) == names[:3]


def test_files_that_another_process_removes_or_that_nobody_may_open_end_no_pruning(
    folder: Path, capsys: pytest.CaptureFixture[str], write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(LIRA | {"references": {"shadows": "m", "count": 2, "store": "models"}}, name="prune.yaml")
    gone, closed = (folder / "models" / f"{letter * 64}.h5" for letter in "ab")
    for path in (gone, closed):
        path.write_text("x")

    def in_use(path: Path) -> bool:
        if path == closed:
            raise PermissionError
        gone.unlink(missing_ok=True)
        return False

    monkeypatch.setattr("mia_batch.commands.references.in_use", in_use)
    assert main(["references", "prune.yaml", "--prune", "--yes"]) == 0
    assert closed.exists()


@pytest.mark.parametrize("name", ["audit.yaml", "net.ckpt", "a_file", "a_fifo", "models"])
def test_a_verdict_for_a_pipeline_in_the_place_of_something_else(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert "--junit: must be a" in refused(folder, capsys, "run", "audit.yaml", "--out", "r", "--junit", name)


@pytest.mark.parametrize("text", ["", '<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="mia-batch">'])
def test_an_earlier_verdict_for_a_pipeline_goes_first(folder: Path, text: str) -> None:
    (folder / "verdict.xml").write_text(text)
    assert main(["run", "none.yaml", "--out", "r", "--junit", "verdict.xml"]) == 2
    assert not (folder / "verdict.xml").exists()
