"""Help fits a terminal and ends with command lines that are so; an unknown word is answered with the one meant."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import REPO

from mia_batch.cli import COMMANDS, make_parser

JOBS = sorted(file.stem for file in (REPO / "jobs").glob("*.py") if file.stem != "__init__")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of `mia-batch`, of one of its sub-commands, or of "jobs/NAME"."""
    if name.startswith("jobs/"):
        found: dict[str, Any] = runpy.run_path(str(REPO / f"{name}.py"))
        return found["parser"]
    return make_parser(name or None)


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        parser_of(name).parse_args([*([name] if name in COMMANDS else []), "--help"])
    return capsys.readouterr().out


def parse_example(line: str) -> argparse.Namespace:
    """What the real parser makes of a command line, as a shell would give it."""
    words = shlex.split(re.split(r" [>|] ", line)[0], comments=True)
    if "mia-batch" in words:
        words = words[words.index("mia-batch") + 1 :]
        return make_parser(words[0]).parse_args(words)
    at = next(i for i, word in enumerate(words) if word.startswith("mia_batch.jobs."))
    return parser_of(f"jobs/{words[at].rpartition('.')[2]}").parse_args(words[at + 1 :])


@pytest.mark.parametrize("name", ["", *COMMANDS, *(f"jobs/{job}" for job in JOBS)])
def test_help_fits_and_its_examples_can_be_run(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow, _, below = help_of(name, capsys).partition("\nexamples:\n")  # which are to be copied, so left whole
    narrow += below.partition("\n\n")[2].partition("manual: ")[0]  # and so is a path
    assert max(map(len, narrow.splitlines())) <= 40
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(name, capsys)
    assert max(len(line) for line in text.splitlines() if not line.startswith("manual: ")) <= 80
    _, _, below = text.partition("\nexamples:\n")
    examples = [line[2:] for line in below.split("\n\n")[0].splitlines()]
    assert examples
    for line in examples:
        parse_example(line)
        said = name.replace("jobs/", "mia_batch.jobs.") if "/" in name else f"mia-batch {name}"
        assert said in line


@pytest.mark.parametrize("name", [*COMMANDS, *(f"jobs/{job}" for job in JOBS)])
def test_each_is_quiet_or_verbose_but_not_both(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(name)
    assert {"-q", "--quiet", "-v", "--verbose"} <= set(options_of(parser, name))
    with pytest.raises(SystemExit):
        parser.parse_args([*([name] if name in COMMANDS else []), "--verbose", "--quiet"])
    said = capsys.readouterr().err
    assert "-q/--quiet: not allowed with argument -v/--verbose" in said


def options_of(parser: argparse.ArgumentParser, name: str) -> list[str]:
    if name in COMMANDS:
        subs = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        parser = subs.choices[name]
    return [option for action in parser._actions for option in action.option_strings]


def test_nightly_takes_seconds_by_the_old_name_too() -> None:
    words = ["nightly", "c.yaml", "--watch", "w", "--runs", "r"]
    assert make_parser("nightly").parse_args([*words, "--quiet"]).quiet is True
    assert make_parser("nightly").parse_args([*words, "--quiet", "0"]).quiet == 0.0
    assert make_parser("nightly").parse_args([*words, "-q", "--unchanged=5"]).unchanged == 5.0


def test_help_does_not_wait_for_what_draws() -> None:
    code = "import sys; from mia_batch.cli import make_parser; make_parser('status')\n"
    code += "print({'rich', 'shtab'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def said_of(capsys: pytest.CaptureFixture[str], name: str | None, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        make_parser(name).parse_args(words)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["statsu", "runs"], "status"), (["chekc", "c.yaml"], "check"),
        (["run", "c.yaml", "--out", "d", "--rnaks", "2"], "--ranks"),
        (["run", "c.yaml", "--out", "d", "--rnaks=2"], "--ranks"),
        (["check", "c.yaml", "extra", "--chekpoint", "x"], "--checkpoint"),
        (["submit", "c.yaml", "--out", "d", "--dryrun"], "--dry-run"),
        (["history", "runs", "--format", "tabel"], "table"), (["init", "--kind", "Images"], "image"),
        (["init", "--kind", "text", "--site", "gup"], "gpu"),
    ],
)  # fmt: skip
def test_an_unknown_word_is_answered_with_the_one_meant(
    capsys: pytest.CaptureFixture[str], words: list[str], meant: str
) -> None:
    assert said_of(capsys, words[0], *words).endswith(f"; did you mean {meant}?")


def test_a_word_that_is_close_to_none_is_only_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["xyzzy"], ["run", "c.yaml", "--out", "d", "--colour"], ["history", "r", "--format", "xml"]):
        assert "did you mean" not in said_of(capsys, words[0], *words)


def test_jobs_answer_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser_of("jobs/attack").parse_args(["c.yaml", "--out", "d", "--metod", "lr"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("; did you mean --method?")


def test_what_a_shell_would_keep_together_stays_together() -> None:
    words = ["c.yaml", "--out", "d", "--set", "a.b=[1, 2]", "--set=c.d=x=y z"]
    assert make_parser("run").parse_args(["run", *words]).changes == ["a.b=[1, 2]", "c.d=x=y z"]


def test_the_folder_of_jobs_is_seen() -> None:
    assert {"attack", "extract", "reduce"} <= set(JOBS)
    assert Path(REPO / "jobs").is_dir()
