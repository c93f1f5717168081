"""Tables for a terminal or a file, laid out by rich: columns that fit, or a paragraph for each row where they do not.

Cells are anybody's text: nothing in them is markup, or acts on the terminal. Words that judge may have a colour, and
say without it what they say.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING

from mia_batch.report.media import terminal

if TYPE_CHECKING:  # rich takes a tenth of a second to import
    from rich.console import Console, RenderableType
    from rich.text import Text

GAP = "  "
LAST_WIDTH = 20  # of the last column at least, whose text goes on below
ANY_WIDTH = 1 << 20  # for lines of any length
COLOURS = {
    "leak": "red", "no leak": "green", "inconclusive": "yellow", "failed": "red", "damaged": "red",
    "FAIL": "red", "slow": "yellow", "ok": "green", "DAMAGED": "red",
}  # fmt: skip


def terminal_width() -> int | None:
    """Columns of the terminal, or as COLUMNS has it; None where there is none, and lines may be of any length."""
    return shutil.get_terminal_size((0, 0)).columns or None


def has_colours(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether standard output is a terminal with colours that its user has not refused (NO_COLOR)."""
    plain = environ.get("NO_COLOR") or environ.get("TERM", "dumb") in ("", "dumb", "unknown")
    return not plain and sys.stdout.isatty()


def painted(text: str, word: str) -> str:
    """A text in the colour of a word that judges, for a terminal that has colours."""
    from rich.text import Text

    return _rendered(Text(text, COLOURS.get(word, ""), no_wrap=True), ANY_WIDTH, colours=True)


def wrapped(text: str, width: int | None, indent: int = 4) -> str:
    """A line as a paragraph, what does not fit `indent` further right; None leaves it as it is."""
    from rich.text import Text

    return _paragraph(Text(text), width, indent)


def table_text(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), width: int | None = None,
    judging: int | None = None, colours: bool = False,
) -> str:
    """`row_texts` below each other, behind the header if there is room for columns."""
    return "\n".join(row_texts(rows, header=header, width=width, judging=judging, colours=colours))


def row_texts(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), width: int | None = None,
    judging: int | None = None, colours: bool = False,
) -> list[str]:
    """Each row in aligned columns, of which the last is wrapped.

    Args:
        rows: cells; anybody's text, in which nothing acts on the terminal.
        header: names of the columns, which become the first row.
        width: columns of the terminal; None for lines of any length.
        judging: the number of the column whose words of `COLOURS` have their colour.
        colours: whether the terminal has some.

    Returns:
        Lines without spaces at their end. Where the last column has less than `LAST_WIDTH`, a paragraph for each row
        and no header.
    """
    from rich.cells import cell_len
    from rich.text import Text

    words = [[terminal(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    wide = [max(map(cell_len, column)) for column in zip(*words, strict=True)]
    cells = [
        [Text(cell, COLOURS.get(cell, "") if i == judging else "") for i, cell in enumerate(row)] for row in words
    ]
    indent = sum(wide[:-1]) + len(GAP) * len(wide[:-1])
    if width is not None and width < indent + min(wide[-1], LAST_WIDTH):
        texts = [Text(GAP).join(cell for cell in row if cell) for row in cells[bool(header) :]]
        return [_paragraph(text, width, 4, colours=colours) for text in texts]
    last = wide[-1] if width is None else min(wide[-1], width - indent)
    return [_row(row, [*wide[:-1], last], colours=colours) for row in cells]


def _row(cells: Sequence[Text], widths: Sequence[int], *, colours: bool) -> str:
    """A row of columns so wide."""
    from rich.table import Column, Table

    columns = [Column(width=size, no_wrap=True) for size in widths[:-1]] + [Column(width=widths[-1], overflow="fold")]
    grid = Table.grid(*columns, padding=(0, len(GAP), 0, 0), pad_edge=False)
    grid.add_row(*cells)
    return _rendered(grid, sum(widths) + len(GAP) * len(widths), colours=colours)


def _paragraph(text: Text, width: int | None, indent: int, *, colours: bool = False) -> str:
    if width is None:
        return _rendered(text, ANY_WIDTH, colours=colours)
    size = max(width, indent + 4)
    first = text.wrap(_console(size), size, overflow="fold")[0]
    rest = text[len(text) - len(text.plain[len(first) :].lstrip()) :]
    below = rest.wrap(_console(size), size - indent, overflow="fold") if rest else ()
    lines = [_rendered(line, ANY_WIDTH, colours=colours) for line in (first, *below)]
    return f"\n{' ' * indent}".join(lines)


def _rendered(what: RenderableType, width: int, *, colours: bool) -> str:
    """As text in lines of at most `width`, without the spaces that fill them."""
    console = _console(width, colours=colours)
    with console.capture() as captured:
        console.print(what, soft_wrap=width == ANY_WIDTH)
    return "\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n"))


@cache
def _console(width: int, *, colours: bool = False) -> Console:
    """Of no terminal: what is to be printed is taken from it as text."""
    from rich.console import Console

    return Console(
        file=StringIO(), width=width, force_terminal=colours, color_system="standard" if colours else None,
        no_color=not colours, markup=False, emoji=False, highlight=False, legacy_windows=False,
    )  # fmt: skip
