"""Tables in columns or paragraphs: no line is wider than the terminal, and no name acts on it."""

from __future__ import annotations

import sys

import pytest
from wcwidth import wcswidth

from mia_batch.report.tables import COLOURS, has_colours, painted, row_texts, table_text, wrapped

ROWS = [
    ("runs/one", "leak", "an attack has found more than the gate allows, and so on and on"),
    ("[red]two[/red] :smile:", "no leak", "漢字" * 20 + " and a path /scratch/projects/audits/of-many/parts"),
    ("e\u0301te\u0301", "inconclusive", ""),
]
HEADER = ("run", "verdict", "")


@pytest.mark.parametrize("width", [22, 40, 57, 58, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = table_text(ROWS, header=HEADER, width=width)
    assert max(map(wcswidth, text.splitlines())) <= width
    assert all(line == line.rstrip() for line in text.splitlines())
    said = "".join(text.split())
    assert ["".join(cell.split()) in said for row in ROWS for cell in row] == [True] * 9  # nothing is lost


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    text = table_text(ROWS, header=HEADER, width=80).splitlines()
    at = text[0].index("verdict")
    assert wcswidth(text[1][: text[1].index("leak")]) == at
    assert wcswidth(text[-1][: text[-1].index("inconclusive")]) == at


def test_without_a_terminal_each_row_is_one_line_without_escapes() -> None:
    lines = row_texts([*ROWS, ("four", "leak", "x" * 3000)], header=HEADER)
    assert len(lines) == 5
    assert lines[1] == f"{'runs/one':22}  leak          {ROWS[0][2]}"
    assert lines[4].endswith("x" * 3000)
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_too_narrow_for_columns_gets_a_paragraph_for_each_row() -> None:
    assert row_texts([("a" * 10, "leak", "some words that go on below")], header=HEADER, width=30) == [
        "aaaaaaaaaa  leak  some words\n    that go on below"
    ]


def test_markup_and_control_characters_are_text() -> None:
    cells = ("[red]a[/red]", "\x1b[31mb\x1b]0;t\x07", "c\u202ed\r\n[link=http://x]")
    assert row_texts([cells]) == ["[red]a[/red]  \\x1b[31mb\\x1b]0;t\\x07  c\\u202ed\\x0d\\n[link=http://x]"]
    assert row_texts([cells], width=24)[0].startswith("[red]a[/red]")


@pytest.mark.parametrize("width", [None, 30, 120])
def test_only_the_column_that_judges_has_colours_and_its_word_stays(width: int | None) -> None:
    (row,) = row_texts([("leak", "leak", "leak")], width=width, judging=1, colours=True)
    assert row.count("\x1b[31m") == 1
    assert row.replace("\x1b[31m", "").replace("\x1b[0m", "") == "leak  leak  leak"
    assert "\x1b" not in row_texts([("leak", "leak", "leak")], width=width, judging=1)[0]


def test_verdicts_have_three_colours() -> None:
    assert [COLOURS[word] for word in ("leak", "no leak", "inconclusive")] == ["red", "green", "yellow"]
    assert painted("NO LEAK", "no leak") == "\x1b[32mNO LEAK\x1b[0m"


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True), ({"TERM": "xterm"}, False, False), ({"TERM": "dumb"}, True, False),
        ({}, True, False), ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ],
)  # fmt: skip
def test_colours_are_for_terminals_whose_user_wants_them(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], terminal: bool, coloured: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert has_colours(environ) is coloured


def test_a_paragraph_goes_on_further_right() -> None:
    assert wrapped("one two three four", 9, 2) == "one two\n  three\n  four"
    assert wrapped("    log: a b c d e f", 14, 8) == "    log: a b c\n        d e f"
    assert wrapped("one two", None) == "one two"
    assert wrapped("", 40) == ""
