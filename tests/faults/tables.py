"""Counts as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table_of(counts: Mapping[str, Mapping[str, int]], kinds: Sequence[str]) -> str:
    """A line for each name, a column for each kind, and a line of sums."""
    rows = [("", *kinds), *((name, *(str(count.get(kind, 0)) for kind in kinds)) for name, count in counts.items())]
    rows.append(("all", *(str(sum(count.get(kind, 0) for count in counts.values())) for kind in kinds)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)
