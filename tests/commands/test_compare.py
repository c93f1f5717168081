"""Finished audits side by side: whose change is since the first, and which are not to be compared."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rundirs import a_manifest, make_run, write_verdict

from mia_batch.commands import compare
from mia_batch.errors import InputError
from mia_batch.rundir.paths import RunPaths


def a_run(root: Path, *, leak: bool | None = False, auc: float | None = 0.5, **changes: Any) -> RunPaths:
    manifest = a_manifest(**changes)
    paths = make_run(RunPaths(root), manifest)
    write_verdict(paths, manifest, leak=leak, auc=auc)
    return paths


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    code = compare.run(parser.parse_args([str(word) for word in words]))
    return code, capsys.readouterr().out


def test_rows_are_in_the_order_given_with_the_change_since_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "b", auc=0.6)
    a_run(tmp_path / "a", auc=0.9, leak=True)
    a_run(tmp_path / "c", auc=0.5, leak=None)
    code, text = compared(capsys, "b", "a", "c")
    assert code == 3
    header, *rows = text.splitlines()
    assert header.split()[:3] == ["run", "checkpoint", "verdict"]
    assert [row.split()[0] for row in rows] == ["b", "a", "c"]
    assert "+0.300 (+0.300 to +0.300)  worse" in rows[1]
    assert "-0.100 (-0.100 to -0.100)  better" in rows[2]
    said = json.loads(compared(capsys, "b", "a", "--format", "json")[1])
    assert [(each["run"], each["auc_change"] is None) for each in said] == [("b", True), ("a", False)]
    assert [each["detail"] for each in said] == ["", ""]
    rows_of_csv = csv.DictReader(io.StringIO(compared(capsys, "b", "a", "--format", "csv")[1]))
    assert [row["run"] for row in rows_of_csv] == ["b", "a"]
    assert compared(capsys, "b", "c")[0] == 4


def test_what_other_attacks_have_found_has_no_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = a_run(tmp_path / "a"), a_run(tmp_path / "b", **{"attack.seed": 2})
    without = a_run(tmp_path / "c", auc=None)
    rows = compared(capsys, first.root, other.root, without.root)[1].splitlines()[1:]
    assert f"by other attacks or settings than {first.root}" in rows[1]
    assert "not to be compared" in rows[2]


def test_only_finished_audits_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, begun = a_run(tmp_path / "a"), make_run(RunPaths(tmp_path / "b"), a_manifest())
    with pytest.raises(InputError, match="two run directories or more"):
        compared(capsys, done.root)
    with pytest.raises(InputError, match="each once"):
        compared(capsys, done.root, done.root / "." / "attacks" / "..")
    with pytest.raises(InputError) as error:
        compared(capsys, done.root, begun.root, tmp_path / "none")
    assert error.value.problems == (
        f"{begun.root}: must hold a finished audit, got missing",
        f"{tmp_path / 'none'}: must be a run directory, got none with run.json",
    )


def test_names_act_on_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = a_run(tmp_path / "x\x1b]0;owned\x07\u202e\n", **{"model.checkpoint": "/w/\x1b[2Jn.ckpt"})
    text = compared(capsys, a_run(tmp_path / "a").root, hostile.root)[1]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "40")
    narrow = compared(capsys, tmp_path / "a", hostile.root)[1]
    assert max(map(len, narrow.splitlines())) <= 40


def test_the_page_is_written_beside_links_to_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = a_run(tmp_path / "runs" / 'a" #?%', leak=True), a_run(tmp_path / "runs" / "b")
    one.page.touch()
    page = tmp_path / "pages" / "compare.html"
    page.parent.mkdir()
    assert compared(capsys, one.root, two.root, "--html", page)[0] == 3
    text = page.read_text()
    assert 'href="../runs/a%22%20%23%3F%25/report.html"' in text
    assert text.count("report.html") == 1
    with pytest.raises(InputError, match="nowhere"):
        compared(capsys, one.root, two.root, "--html", tmp_path / "nowhere" / "x.html")
    assert not os.path.exists(tmp_path / "nowhere")
