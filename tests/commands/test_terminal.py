"""Commands on a real terminal of 40, 80 and 200 columns: live bars, no line too long, colours only as wished."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from running import REPO
from terminals import COLOUR, Seen, on_terminal

from mia_batch.cli import main, make_parser
from mia_batch.commands import run
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config

METHOD_LINE = re.compile(r"^Method: \w+, ")  # whose form is kept in every terminal


def mia_batch(*words: object, **options: object) -> Seen:
    return on_terminal([sys.executable, "-m", "mia_batch.cli", *words], **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory, finished: RunPaths) -> tuple[Seen, RunPaths]:
    """A run from its attacks to its end in 40 columns."""
    folder = tmp_path_factory.mktemp("terminal")
    shutil.copy(finished.root.parent / "outputs.yaml", folder / "audit.yaml")
    paths = RunPaths(shutil.copytree(finished.root, folder / "run"))
    for file in (*paths.attacks.glob("*.h5"), paths.summary_json):
        file.unlink()
    return mia_batch("run", folder / "audit.yaml", "--out", paths.root, columns=40), paths


def test_every_stage_has_a_bar_while_it_works(audit: tuple[Seen, RunPaths]) -> None:
    seen, _ = audit
    assert seen.code == 3
    for stage, unit in (("attack", r"\d+/\d+ tasks"), ("reduce", r"\d+/9 steps")):
        assert any(re.match(rf"{stage} +[━╸╺ ]+ {unit}", line) for line in seen.bars), stage
    first = next(screen for screen in seen.screens if any(line.startswith("attack ━") for line in screen))
    assert not any("correctness.h5: written" in line for line in first)  # before it has done anything
    assert all(sum("━" in line for line in screen) <= 1 for screen in seen.screens)
    assert not any("━" in line for line in seen.lines)


def test_no_log_of_a_stage_has_a_bar(audit: tuple[Seen, RunPaths]) -> None:
    _, paths = audit
    for stage in ("attack", "reduce"):
        text = paths.local_log(stage).read_text()
        assert text.endswith(f"{stage} ended with exit code {3 if stage == 'reduce' else 0}\n")
        assert not re.search("[\x00-\x09\x0b-\x1f━]", text)


def test_a_quiet_attack_stage_says_nothing(audit: tuple[Seen, RunPaths], tmp_path: Path) -> None:
    _, paths = audit
    shutil.copytree(paths.root, tmp_path / "run")
    (tmp_path / "run/attacks/lr.h5").unlink()
    words = [REPO / "jobs/attack.py", paths.root.parent / "audit.yaml", "--out", tmp_path / "run", "--quiet"]
    seen = on_terminal([sys.executable, *words])
    assert (seen.code, seen.raw) == (0, b"")
    assert (tmp_path / "run/attacks/lr.h5").exists()


@pytest.mark.parametrize("talk", [[], ["--quiet"], ["--verbose"]])
def test_stages_talk_as_much_as_their_command(audit: tuple[Seen, RunPaths], talk: list[str]) -> None:
    _, paths = audit
    config = load_config(paths.root.parent / "audit.yaml")
    args = make_parser("run").parse_args(["run", str(config.path), "--out", "d", *talk])
    assert run.stage_arguments(args, config) == [str(config.path), "--out=d", *talk]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", ["show", "show --attack lr", "status", "verify", "history", "compare", "check"])
def test_no_line_is_wider_than_the_terminal(
    audit: tuple[Seen, RunPaths], words: str, columns: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, paths = audit
    monkeypatch.setenv("COLUMNS", str(columns))
    name, *more = words.split()
    named = {"history": [paths.root.parent], "check": [paths.root.parent / "audit.yaml"]}.get(name, [paths.root])
    if name == "compare":  # by short names, as a path may be longer than a line
        named = [Path(shutil.copytree(paths.root, tmp_path / each)).relative_to(tmp_path) for each in "ab"]
        monkeypatch.chdir(tmp_path)
    main([name, *map(str, named), *more])
    lines = capsys.readouterr().out.splitlines()
    copied = [line for line in lines if METHOD_LINE.match(line) or re.search(r"/\S+/", line) or "next: " in line]
    assert max(len(line) for line in lines if line not in copied) <= columns


def test_a_verdict_has_its_colour_and_none_with_no_color(audit: tuple[Seen, RunPaths]) -> None:
    _, paths = audit
    assert b"\x1b[31mLEAK FOUND\x1b[0m: " in mia_batch("show", paths.root).raw
    plain = mia_batch("show", paths.root, env={"NO_COLOR": "1"}).raw
    assert b"\r\nLEAK FOUND: " in plain
    assert b"\x1b" not in plain
    assert not COLOUR.search(plain)
