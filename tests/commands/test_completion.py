"""A real bash completes commands, options, choices, files and folders by the script that `completion` prints."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mia_batch.cli import COMMANDS, make_parser
from mia_batch.commands.completion import SHELLS

# What readline does: it sets these, calls the function that `complete -p` names, and shows COMPREPLY.
COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
[[ $(complete -p mia-batch) =~ -F\\ ([^ ]+) ]]
"${BASH_REMATCH[1]}" mia-batch "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script_of(shell: str) -> str:
    command = [sys.executable, "-m", "mia_batch.cli", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bash") / "mia-batch"
    file.write_text(script_of("bash"))
    return file


def completed(script: Path, *words: str, cwd: Path) -> set[str]:
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), "mia-batch", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, timeout=60)
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_a_word_that_has_begun_is_a_command(script: Path, tmp_path: Path) -> None:
    assert completed(script, "", cwd=tmp_path) >= set(COMMANDS)
    assert completed(script, "s", cwd=tmp_path) == {name for name in COMMANDS if name.startswith("s")}


def test_every_option_of_every_command_is_completed(script: Path, tmp_path: Path) -> None:
    whole = make_parser(None, whole=True)
    commands = next(each for each in whole._actions if isinstance(each, argparse._SubParsersAction)).choices
    assert set(commands) == set(COMMANDS)
    for name in ("run", "nightly", "show", "completion"):
        wanted = {option for action in commands[name]._actions for option in action.option_strings}
        assert completed(script, name, "-", cwd=tmp_path) == wanted
    text = script.read_text()
    for name, parser in commands.items():
        options = (option for action in parser._actions for option in action.option_strings)
        assert f"_{name}_option_strings=({' '.join(options)})" in text


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("run", ""), {"audit.yaml", "runs"}), (("run", "au"), {"audit.yaml"}),
        (("run", "audit.yaml", "--out", ""), {"runs"}), (("status", ""), {"runs"}), (("show", "r"), {"runs"}),
        (("init", "--kind", ""), {"image", "outputs", "tabular", "text"}), (("init", "--kind", "o"), {"outputs"}),
        (("history", "runs", "--format", ""), {"table", "csv", "json"}), (("completion", ""), set(SHELLS)),
        (("run", "--checkpoint", "au"), {"audit.yaml"}),
    ],
)  # fmt: skip
def test_an_argument_is_completed_by_what_it_is(
    script: Path, tmp_path: Path, words: tuple[str, ...], wanted: set[str]
) -> None:
    (tmp_path / "audit.yaml").write_text("")
    (tmp_path / "runs").mkdir()
    assert completed(script, *words, cwd=tmp_path) == wanted


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_every_command(shell: str) -> None:
    script = script_of(shell)
    assert [name for name in COMMANDS if name not in script] == []
    assert "--checkpoints" in script
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=script, text=True, check=True, timeout=60)
    else:
        assert shell != "bash"


def test_it_imports_neither_mindspore_nor_mpi() -> None:
    code = (
        "import sys; from mia_batch.cli import main; main(['completion', 'bash'])\n"
        "print({'mindspore', 'mpi4py'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "set()\n"
