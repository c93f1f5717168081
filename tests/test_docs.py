"""README.md and docs/ say what is so: links lead somewhere, named files exist, commands take the options named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from mia_batch.cli import COMMANDS, make_parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("configs", "docs", "slurm", "tests", "jobs", "mia_batch")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*")
COMMAND = re.compile(r"mia-batch +([a-z]+)(.*)")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code(page: Path) -> Iterator[str]:
    """The lines of fenced blocks and what stands in backticks, without comments."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        yield from (re.split(r"(?:^|\s)# ", line)[0] for line in block.splitlines()[1:-1])
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text)))


def anchors(page: Path) -> set[str]:
    """What `#...` may name in a page, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Relative links to a file, or to a heading, that is not there."""
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not re.match(r"[a-z]+:", link) and not (target.exists() and (not anchor or anchor in anchors(target))):
            dead.append(link)
    return dead


def wrong_commands(page: Path, options: dict[str, set[str]]) -> list[str]:
    """`mia-batch ...` with a sub-command or an option that is not there."""
    wrong = []
    for command, rest in (found for line in code(page) for found in COMMAND.findall(line)):
        words = re.split(r" (?:[|&]|>|2>)", rest)[0]
        unknown = set(OPTION.findall(words)) - options.get(command, set())
        if unknown or command not in options:
            wrong.append(f"{command}{words}")
    return wrong


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options in each sub-command's --help."""
    return {command: set(OPTION.findall(help_of(command).replace("[", " "))) for command in COMMANDS}


def help_of(command: str) -> str:
    """What `mia-batch COMMAND --help` prints."""
    with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit):
        make_parser(command).parse_args([command, "--help"])
    return printed.getvalue()


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert dead_links(page) == []


@each_page
def test_named_files_exist(page: Path) -> None:
    named = {path.rstrip(".") for line in code(page) for path in PATH.findall(line)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@each_page
def test_commands_have_the_options_named(page: Path, options: dict[str, set[str]]) -> None:
    assert wrong_commands(page, options) == []


@each_page
def test_make_has_the_targets_named(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for line in code(page) if line.startswith("make ") for word in line.split()[1:]}
    assert named - targets == set()


@pytest.mark.parametrize("name", ["read_the_result.md", "auditors.md"])
def test_what_pages_quote_stands_in_the_report(name: str) -> None:
    report = ROOT / "mia_batch" / "report"
    said = "".join((report / name).read_text(encoding="utf-8") for name in ("templates/report.html", "page.py"))
    quoted = re.findall(r'"([A-Z][^"]+)"', (ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert quoted
    assert [words for words in quoted if words not in said] == []


def test_the_index_names_every_page() -> None:
    linked = set(LINK.findall((ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert {page.name for page in PAGES[1:]} - linked == {"index.md"}


def test_what_is_wrong_is_found(tmp_path: Path, options: dict[str, set[str]]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, here\n\n[a](#a-heading-here) [b](#b) [c](gone.md) [d](https://example.org/x)\n\n"
        "`mia-batch status DIR` `mia-batch statsu DIR` `mia-batch run C\n--rank 2`\n\n"
        "```\nmia-batch run C --out D --ranks 2   # --not-an-option\nmia-batch check C --out D\n```\n"
    )
    assert dead_links(page) == ["#b", "gone.md"]
    assert wrong_commands(page, options) == ["check C --out D", "statsu DIR", "run C --rank 2"]
