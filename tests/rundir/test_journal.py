"""A journal whose lines are not those that were written, or not where they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mia_batch.errors import InputError
from mia_batch.rundir.journal import Journal

MARKS = ("new", "old")


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    """A mark and three results."""
    journal = Journal(tmp_path / "journal", MARKS)
    for number in range(3):
        journal.put(f"lr/{number}", {"score": number})
    journal.close()
    return (tmp_path / "journal").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("order", "n_found"),
    [((0, 1, 2, 3), 3), ((0, 1, 0, 2, 3), 1), ((0, 0, 1), 0), ((1, 2, 3), 0), ((0, 3, 1), 2), ((), 0)],
)
def test_it_is_taken_up_to_a_mark_that_is_there_again(
    tmp_path: Path, lines: list[bytes], order: tuple[int, ...], n_found: int
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"".join(lines[number] for number in order))
    journal = Journal(path, MARKS)
    found = {f"lr/{number}": journal.get(f"lr/{number}") for number in range(3)}
    journal.close()
    assert len(journal) == n_found
    assert all(value in (None, {"score": int(key[-1])}) for key, value in found.items())
    assert path.read_bytes() == b"".join([lines[0], *(lines[number] for number in order[1 : 1 + n_found])])


def test_a_journal_that_cannot_be_begun_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")

    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="journal: must be writable, got: Input/output error"):
        Journal(tmp_path / "journal", MARKS)
    assert len(os.listdir("/proc/self/fd")) == len(before)
