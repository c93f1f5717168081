"""records.csv: a row for each sample, with what each attack says of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.files import atomic_path

BLOCK = 50_000  # rows at a time, as Python objects
OF_ATTACK = ("score", "p", "claimed", "rank")


@dataclass(frozen=True)
class AttackColumns:
    """What an attack says of the rows of the file, (n_rows,) each; of rows that it does not score, nothing."""

    scored: NDArray[np.bool_]
    score: NDArray[np.float64]
    p: NDArray[np.float64]
    claimed: NDArray[np.bool_]
    rank: NDArray[np.integer]


def write_records(
    path: Path, samples: Mapping[str, NDArray[Any] | None], attacks: Mapping[str, AttackColumns]
) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file.
        samples: what is known of the rows, (n_rows,) each, by name of the column; None leaves the fields empty.
        attacks: by name.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    n_rows = n_rows_of(samples)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*samples, *(f"{name}_{column}" for name in attacks for column in OF_ATTACK)])
        for first in range(0, n_rows, BLOCK):
            part = slice(first, min(first + BLOCK, n_rows))
            fields = record_columns(samples, attacks, part)
            writer.writerows(zip(*(column for _, column in fields), strict=True))


def n_rows_of(samples: Mapping[str, NDArray[Any] | None]) -> int:
    """Rows of the file; at least one column of the samples is there."""
    return next(len(column) for column in samples.values() if column is not None)


def record_columns(
    samples: Mapping[str, NDArray[Any] | None], attacks: Mapping[str, AttackColumns], part: slice | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """Names and fields of the columns; None where there is nothing.

    Args:
        samples, attacks: as of `write_records`.
        part: of the rows; None for all.
    """
    rows = part or slice(0, n_rows_of(samples))
    yield from ((name, _texts(column, rows)) for name, column in samples.items())
    for attack, found in attacks.items():
        yield from zip((f"{attack}_{name}" for name in OF_ATTACK), _fields(found, rows), strict=True)


def _texts(column: NDArray[Any] | None, part: slice) -> list[Any]:
    """Names are bytes in UTF-8."""
    if column is None:
        return [None] * (part.stop - part.start)
    found = column[part]
    return list((np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found).tolist())


def _fields(found: AttackColumns, part: slice) -> Iterator[list[Any]]:
    scored = found.scored[part]
    for name in OF_ATTACK:
        column = getattr(found, name)[part]
        values: list[Any] = (column.astype(np.int8) if column.dtype == bool else column).tolist()
        if not scored.all():
            values = [value if there else None for value, there in zip(values, scored, strict=True)]
        yield values
