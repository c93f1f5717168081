"""records.csv as a file: columns, empty fields, names that need quotes, blocks, and that it is whole or not there."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.report import records
from mia_batch.report.records import AttackColumns, write_records


def columns(n: int, *, scored: Any = True) -> AttackColumns:
    there = np.broadcast_to(scored, n)
    return AttackColumns(
        there, np.where(there, np.arange(n) / 3, np.nan), np.full(n, 0.25), np.arange(n) % 2 == 1, np.arange(n) + 1
    )


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_sample(tmp_path: Path) -> None:
    samples = {"sample_index": np.array([5, 7, 9]), "class": None, "member": np.array([1, 1, 0], dtype=np.int8)}
    write_records(tmp_path / "r.csv", samples, {"lr": columns(3, scored=[True, False, True]), "knn": columns(3)})
    assert (tmp_path / "r.csv").read_text() == (
        "sample_index,class,member,lr_score,lr_p,lr_claimed,lr_rank,knn_score,knn_p,knn_claimed,knn_rank\n"
        "5,,1,0.0,0.25,0,1,0.0,0.25,0,1\n"
        "7,,1,,,,,0.3333333333333333,0.25,1,2\n"
        "9,,0,0.6666666666666666,0.25,0,3,0.6666666666666666,0.25,0,3\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ['a,"b"', "é\n", "plain"]
    ids = np.array([name.encode() for name in names])
    write_records(tmp_path / "r.csv", {"split": np.array(names), "sample_id": ids}, {})
    assert [(row["split"], row["sample_id"]) for row in read(tmp_path / "r.csv")] == [(name, name) for name in names]


def test_blocks_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, found = {"sample_index": np.arange(11), "group": None}, {"lr": columns(11, scored=np.arange(11) != 4)}
    write_records(tmp_path / "whole.csv", samples, found)
    monkeypatch.setattr(records, "BLOCK", 4)
    write_records(tmp_path / "parts.csv", samples, found)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(read(tmp_path / "whole.csv")) == 11


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be writable"):
        write_records(tmp_path / "none" / "r.csv", {"member": np.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []
