"""`mia-batch init` copies the shipped config of a kind with all that it names, and overwrites nothing."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mia_batch.cli import main, make_parser
from mia_batch.commands import init
from mia_batch.errors import InputError
from mia_batch.files import shipped
from mia_batch.scheduler.site import find_site, load_site
from mia_batch.settings.loading import load_config

TEXT = "# yaml-language-server: $schema=schema.json\nmodel: {checkpoint: runs/net.ckpt}\n"


@pytest.fixture
def ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped folder with a config of the kind `tabular`, next to the real sites."""
    configs = tmp_path / "configs"
    (configs / "tabular").mkdir(parents=True)
    (configs / "sites").symlink_to(shipped("configs") / "sites")
    (configs / "schema.json").write_text("{}\n")
    (configs / "tabular.yaml").write_text(TEXT.replace("runs/", "../runs/"))
    for name in ("model.py", "data.py"):
        (configs / "tabular" / name).write_text(f"# {name}\n")
    monkeypatch.setattr(init, "shipped", lambda _: configs)
    return configs


def made(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_is_shipped(ships: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my first"
    assert main(["init", "--kind", "tabular", "--site", "gpu", "--out", str(out)]) == 0
    assert made(out) == {
        "tabular.yaml": TEXT, "schema.json": "{}\n", "tabular/model.py": "# model.py\n",
        "tabular/data.py": "# data.py\n", "sites/gpu.yaml": find_site("gpu").read_text(),
        "sites/schema.json": (ships / "sites/schema.json").read_text(),
    }  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    written = [line.removeprefix("wrote ") for line in said if line.startswith("wrote ")]
    assert {str(Path(path).relative_to(out)) for path in written} == set(made(out))
    assert load_site(out / "sites/gpu.yaml") == load_site(find_site("gpu"))


def test_the_next_commands_are_such(ships: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--kind", "tabular", "--out", str(tmp_path / "a b")]) == 0
    said = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    commands = [shlex.split(line, comments=True) for line in said]
    assert commands[0] == ["python", "-m", "mia_batch.jobs.train", str(tmp_path / "a b/tabular.yaml")]
    assert [words[:2] for words in commands[1:]] == [["mia-batch", name] for name in ("check", "run", "submit")]
    for words in commands[1:]:
        assert make_parser(words[1]).parse_args(words[1:]).config == str(tmp_path / "a b/tabular.yaml")


def test_a_second_time_nothing_is_written(ships: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for said in (True, False):
        assert main(["init", "--kind", "tabular", "--out", str(tmp_path / "d")]) == 0
        assert ("wrote" in capsys.readouterr().out) == said


def test_nothing_is_overwritten_and_nothing_written_beside_it(
    ships: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "d"
    (out / "tabular").mkdir(parents=True)
    (out / "tabular.yaml").write_text("mine")
    (out / "tabular/model.py").symlink_to("nowhere")
    (out / "tabular/data.py").mkdir()
    assert main(["init", "--kind", "tabular", "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"mia-batch: .*: --out: must not be there, or be the file that would", line) for line in lines)
    assert made(out) == {"tabular.yaml": "mine"}


def test_nothing_is_left_where_the_disk_is_full(
    ships: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "schema.json").write_text("{}\n")
    before, write_text = sorted(tmp_path.rglob("*")), init.write_text

    def full(path: Path, text: str) -> None:
        if path.name == "data.py":
            raise InputError(f"{path}: the disk is full")
        write_text(path, text)

    monkeypatch.setattr(init, "write_text", full)
    for folder in ("there", "deep/not there"):
        assert main(["init", "--kind", "tabular", "--out", str(tmp_path / folder)]) == 2
        assert "data.py: the disk is full" in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--kind", "text"], "--kind: must be one that this version ships, got text, but there is no "),
        (["--kind", "tabular", "--out", ""], "--out: must name a directory, got ''"),
    ],
)
def test_a_refusal_is_one_line(
    ships: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(["init", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"mia-batch: {line}")


@pytest.mark.parametrize("kind", init.KINDS)
def test_each_shipped_kind_is_whole(kind: str, tmp_path: Path) -> None:
    """Its config is valid where it is copied to, and names no file that is not."""
    out = tmp_path / kind
    assert main(["init", "--kind", kind, "--out", str(out)]) == 0
    path = out / f"{init.KINDS[kind]}.yaml"
    if kind in init.FIRST:
        subprocess.run([sys.executable, out / kind / "data.py"], check=True)
    load_config(path, need=())
    assert not re.search(r"\.\./| configs/|python jobs/", path.read_text())
    folder = shipped("configs") / init.KINDS[kind]
    assert {file.name for file in (out / init.KINDS[kind]).glob("*.py")} == {file.name for file in folder.glob("*.py")}
    for named in re.findall(r"[\w/.-]+\.py(?=:)", yaml.safe_dump(yaml.safe_load(path.read_text()))):
        assert (out / named).is_file()


def test_out_that_can_be_no_directory_is_one_line(
    ships: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out, more in ((file, ""), (file / "deeper", f", but {file} is none")):
        assert main(["init", "--kind", "tabular", "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"mia-batch: --out: must be a directory, got {out}{more}\n"
    for out in ("/proc/none", "x" * 300):
        assert main(["init", "--kind", "tabular", "--out", out]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mia-batch: --out: must be a directory")
    assert file.read_text() == "mine"
