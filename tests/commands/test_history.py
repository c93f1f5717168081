"""The history that run directories make: no daemons needed."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path

import pytest
from rundirs import a_manifest, make_run, write_verdict

from mia_batch.commands import history
from mia_batch.errors import InputError
from mia_batch.rundir.claim import claim
from mia_batch.rundir.jobs import record
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import slurm as scheduler


def write_run(root: Path, day: int, outcome: bool | str | None, auc: float | None = 0.5) -> RunPaths:
    """A run directory as far as history looks; `outcome` None is one without a verdict."""
    checkpoint = {"model.checkpoint": f"/watch/net{day}.ckpt", "digests.model.checkpoint": f"{day:064x}"}
    manifest = a_manifest(created=f"2030-01-{day:02d}T01:00:00+00:00", **checkpoint)
    paths = make_run(RunPaths(root), manifest)
    if outcome is not None:
        write_verdict(paths, manifest, leak=outcome if isinstance(outcome, bool) else None, auc=auc)
    return paths


def run(capsys: pytest.CaptureFixture[str], runs: Path, form: str, *, of_any: bool = False) -> tuple[int, str]:
    code = history.run(argparse.Namespace(runs=str(runs), format=form, any=of_any))
    return code, capsys.readouterr().out


def test_oldest_first_with_the_change_since_the_verdict_before(tmp_path: Path) -> None:
    for day, leak, auc in ((4, True, 0.8), (1, False, 0.5), (2, None, None), (3, True, 0.75), (5, False, None)):
        write_run(tmp_path / f"run{9 - day}", day, leak, auc)
    entries = history.read_history(tmp_path)
    assert [entry.checkpoint for entry in entries] == [f"net{day}.ckpt" for day in range(1, 6)]
    assert [entry.state for entry in entries] == ["done", "incomplete", "done", "done", "done"]
    assert [entry.verdict_change for entry in entries] == ["new", "", "worse", "same", "better"]
    assert [entry.auc_change for entry in entries] == [None, None, 0.25, pytest.approx(0.05), None]


def test_the_exit_code_is_the_newest_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "table") == (0, "")
    write_run(tmp_path / "a", 1, True)
    write_run(tmp_path / "b", 2, None)
    assert run(capsys, tmp_path, "table")[0] == 3
    write_run(tmp_path / "c", 3, False)
    assert run(capsys, tmp_path, "table")[0] == 0
    assert run(capsys, tmp_path, "table", of_any=True)[0] == 3
    write_run(tmp_path / "d", 4, "inconclusive")
    assert run(capsys, tmp_path, "table")[0] == 4
    write_run(tmp_path / "e", 5, None)
    assert run(capsys, tmp_path, "table")[0] == 4


def test_of_any_audit_the_worst_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "table", of_any=True)[0] == 0
    for day, outcome, code in ((1, False, 0), (2, "inconclusive", 4), (3, True, 3), (4, False, 3)):
        write_run(tmp_path / f"run{day}", day, outcome)
        assert run(capsys, tmp_path, "table", of_any=True)[0] == code


def test_an_inconclusive_audit_is_said_and_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, outcome in ((1, False), (2, "inconclusive"), (3, True)):
        write_run(tmp_path / f"run{day}", day, outcome)
    lines = run(capsys, tmp_path, "table")[1].splitlines()
    assert [line.split()[4:6] for line in lines[1:]] == [["no", "leak"], ["inconclusive", "0.5000"], ["leak", "0.5000"]]
    assert lines[2].endswith("Said.")
    entries = json.loads(run(capsys, tmp_path, "json")[1])
    assert [entry["outcome"] for entry in entries] == ["no leak", "inconclusive", "leak"]
    assert [entry["leak"] for entry in entries] == [False, None, True]
    assert [entry["verdict_change"] for entry in entries] == ["new", "", "worse"]


def test_the_three_forms_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / 'a "b"\n,c', 1, True, 0.9)
    write_run(tmp_path / "d", 2, None)
    entries = json.loads(run(capsys, tmp_path, "json")[1])
    rows = list(csv.DictReader(io.StringIO(run(capsys, tmp_path, "csv")[1])))
    lines = run(capsys, tmp_path, "table")[1].splitlines()
    assert [entry["run"] for entry in entries] == [row["run"] for row in rows] == ['a "b"\n,c', "d"]
    assert (entries[0]["leak"], rows[0]["leak"], entries[1]["leak"], rows[1]["leak"]) == (True, "True", None, "")
    assert len(lines) == 3
    assert lines[1].split() == ["2030-01-01", "01:00", "net1.ckpt", "a", '"b"?,c', "leak", "0.9000", "new"]


def test_a_run_whose_jobs_slurm_has_forgotten_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_run(tmp_path / "a", 1, None)
    record(paths, {"extract": "7", "attack": "8"})
    for states, expected in (
        ({"7": "COMPLETED", "8": "RUNNING"}, ("queued", "attack job 8 RUNNING")),
        ({"7": "FAILED", "8": "CANCELLED"}, ("incomplete", "extract job 7 FAILED")),
        ({"7": "COMPLETED", "8": "FORGOTTEN"}, ("incomplete", "attack job 8 FORGOTTEN")),
    ):
        monkeypatch.setattr(scheduler, "job_states", lambda _jobs, states=states: states)
        (entry,) = history.read_history(tmp_path)
        assert (entry.state, entry.detail) == expected


def test_a_verdict_of_another_gate_is_not_the_run_in_forces(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "a", 1, True)
    claim(paths, a_manifest(**{"digests.model.checkpoint": f"{1:064x}", "gate.threshold": 0.9}))
    (entry,) = history.read_history(tmp_path)
    assert (entry.state, entry.leak) == ("incomplete", None)
    assert entry.detail == "verdict of another config: gate.threshold was 0.6 and is now 0.9"


def test_what_is_no_run_is_left_out_and_a_damaged_one_is_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "file").touch()
    write_run(tmp_path / "good", 1, False)
    write_run(tmp_path / "torn", 2, False).summary_json.write_text("{")
    write_run(tmp_path / "odd", 2, False).manifest.write_text("[]")
    listed = write_run(tmp_path / "list", 2, False).summary_json
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "methods": []}))
    write_run(tmp_path / "jobs", 2, None).jobs.write_text('{"submissions": [{"jobs": []}]}')
    assert {entry.run: entry.state for entry in history.read_history(tmp_path)} == {
        "good": "done", "torn": "damaged", "odd": "damaged", "list": "damaged", "jobs": "damaged"
    }  # fmt: skip
    (said,) = [entry.detail for entry in history.read_history(tmp_path) if entry.run == "list"]
    assert said == f"{tmp_path / 'list' / 'summary.json'}: methods: must be a mapping, got []"
    with pytest.raises(InputError, match="RUNS: must be a directory"):
        history.read_history(tmp_path / "nowhere")
