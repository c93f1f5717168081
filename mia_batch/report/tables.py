"""Tables for a terminal or a file: columns that fit, or a paragraph for each row where it is too narrow for them."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Sequence

from mia_batch.report.media import terminal

GAP = "  "
LAST_WIDTH = 20  # of the last column at least, whose text goes on below


def terminal_width() -> int | None:
    """Columns of the terminal, or as COLUMNS has it; None where there is none, and lines may be of any length."""
    return shutil.get_terminal_size((0, 0)).columns or None


def wrapped(text: str, width: int | None, indent: int = 4) -> str:
    """A line as a paragraph, what does not fit `indent` further right; None leaves it as it is."""
    return textwrap.fill(text, max(width, indent + 4), subsequent_indent=" " * indent) if width else text


def table_text(rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), width: int | None = None) -> str:
    """`row_texts` below each other, behind the header if there is room for columns."""
    return "\n".join(row_texts(rows, header=header, width=width))


def row_texts(rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), width: int | None = None) -> list[str]:
    """Each row in aligned columns, of which the last is wrapped.

    Args:
        rows: cells; anybody's text, in which nothing acts on the terminal.
        header: names of the columns, which become the first row.
        width: columns of the terminal; None for lines of any length.

    Returns:
        Lines without spaces at their end. Where the last column has less than `LAST_WIDTH`, a paragraph for each row
        and no header.
    """
    clean = [[terminal(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    wide = [max(map(_cells, column)) for column in zip(*clean, strict=True)]
    indent = sum(wide[:-1]) + len(GAP) * len(wide[:-1])
    if width is not None and width < indent + min(wide[-1], LAST_WIDTH):
        return [wrapped(GAP.join(filter(None, row)), width) for row in clean[bool(header) :]]
    return [wrapped(GAP.join(map(_padded, row, wide)).rstrip(), width, indent) for row in clean]


def _padded(cell: str, size: int) -> str:
    return cell + " " * (size - _cells(cell))


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes: letters of East Asia take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
