"""The history that run directories make: no daemons needed."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import BEFORE, a_manifest, finish, make_run, write_verdict

from mia_batch import json_text
from mia_batch.commands import history
from mia_batch.errors import InputError
from mia_batch.metrics.ranking import auc as auc_of
from mia_batch.report.summary import MetricSummary
from mia_batch.rundir.claim import claim
from mia_batch.rundir.jobs import record
from mia_batch.rundir.manifest import CheckpointOrigin
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import history as audit_history
from mia_batch.scheduler import slurm as scheduler


def write_run(
    root: Path, day: int, outcome: bool | str | None, auc: float | None = 0.5, *, name: str = "", reach: float = 0.0,
    **changes: Any,
) -> RunPaths:  # fmt: skip
    """A run directory as far as history looks, its checkpoint made on that day; `outcome` None has no verdict.

    `reach`: of the interval of the AUC, to both sides; `changes` of the manifest.
    """
    checkpoint = {"model.checkpoint": f"/watch/{name or f'net{day}'}.ckpt", "digests.model.checkpoint": f"{day:064x}"}
    manifest = a_manifest(created=f"2030-01-{day:02d}T01:00:00+00:00", **checkpoint, **changes)
    paths = make_run(RunPaths(root), manifest)
    if outcome is not None:
        write_verdict(paths, manifest, leak=outcome if isinstance(outcome, bool) else None, auc=auc)
        edit_summary(paths, lambda metrics: [
            each.update(low=each["value"] - reach, high=each["value"] + reach)
            for each in (metrics["auc"],) if each["value"] is not None
        ])  # fmt: skip
    return paths


def edit_summary(paths: RunPaths, change: Any) -> None:
    summary = json.loads(paths.summary_json.read_text())
    for method in summary["methods"].values():
        change(method["metrics"])
    paths.summary_json.write_text(json.dumps(summary))


def read(runs: Path) -> tuple[history.Entry, ...]:
    return history.read_history(runs).entries


def run(capsys: pytest.CaptureFixture[str], runs: Path, form: str, *, of_any: bool = False) -> tuple[int, str]:
    code = history.run(argparse.Namespace(runs=str(runs), format=form, any=of_any, html=None))
    return code, capsys.readouterr().out


def test_oldest_first_with_the_change_since_the_verdict_before(tmp_path: Path) -> None:
    for day, leak, auc in ((4, True, 0.8), (1, False, 0.5), (2, None, None), (3, True, 0.7), (5, False, None)):
        write_run(tmp_path / f"run{9 - day}", day, leak, auc, reach=0.04)
    entries = read(tmp_path)
    assert [entry.checkpoint for entry in entries] == [f"net{day}.ckpt" for day in range(1, 6)]
    assert [entry.state for entry in entries] == ["done", "missing", "done", "done", "done"]
    assert [entry.verdict_change for entry in entries] == ["new", "", "worse", "worse", ""]
    assert [entry.auc_change for entry in entries] == [None, None, pytest.approx(0.2), pytest.approx(0.1), None]


def test_the_exit_code_is_the_newest_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "table") == (4, "")  # no audit is no good news
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
    write_run(tmp_path / "f", 6, False)
    assert run(capsys, tmp_path, "table")[0] == 0
    write_run(tmp_path / "g", 7, False).summary_json.write_text("{")  # was a verdict, and nobody can say which
    assert run(capsys, tmp_path, "table")[0] == 4


def test_of_any_audit_the_worst_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "table", of_any=True)[0] == 4
    for day, outcome, code in ((1, False, 0), (2, "inconclusive", 4), (3, True, 3), (4, False, 3)):
        write_run(tmp_path / f"run{day}", day, outcome)
        assert run(capsys, tmp_path, "table", of_any=True)[0] == code


@pytest.mark.parametrize(
    "other",
    [
        {"model.kwargs": {"num_classes": 20}}, {"model.factory": "mia_batch.models.vgg:vgg16"},
        {"data.image_size": [64, 64]}, {"digests.data:train.bin": "4" * 64}, {"train.learning_rate": 0.5},
        {"data.members": [{"split": "train", "num_samples": 9, "range": None, "indices": None}]},
    ],
)
def test_the_newest_audit_of_one_training_does_not_hide_that_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any]
) -> None:
    write_run(tmp_path / "a", 1, False, 0.5)
    write_run(tmp_path / "b", 2, True, 0.9, **other)
    write_run(tmp_path / "c", 3, False, 0.5)
    write_run(tmp_path / "d", 4, False, 0.5, **{"gate.threshold": 0.9})  # the same training by another gate
    assert run(capsys, tmp_path, "table")[0] == 3
    entries = read(tmp_path)
    assert [entry.run for entry in entries] == ["b", "a", "c", "d"]
    assert [entry.verdict_change for entry in entries] == ["new", "new", "same", "same"]
    assert len({entry.training for entry in entries}) == 2
    first, second = run(capsys, tmp_path, "table")[1].split("\n\n")
    (key, *_) = other
    assert all(key.removeprefix("digests.data:") in block.splitlines()[0] for block in (first, second))
    assert (len(first.splitlines()), len(second.splitlines())) == (3, 5)
    write_run(tmp_path / "e", 5, "inconclusive", 0.5, **other)
    assert run(capsys, tmp_path, "table")[0] == 4
    write_run(tmp_path / "f", 6, False, 0.5, **other)
    assert run(capsys, tmp_path, "table")[0] == 0
    assert run(capsys, tmp_path, "table", of_any=True)[0] == 3


def test_steps_in_names_are_numbers_and_come_before_any_time(tmp_path: Path) -> None:
    for day, number in ((1, 10), (2, 100), (3, 9)):
        write_run(tmp_path / f"run{day}", day, False, name=f"res-{number}")
    assert [entry.checkpoint for entry in read(tmp_path)] == ["res-9.ckpt", "res-10.ckpt", "res-100.ckpt"]
    assert [entry.step for entry in read(tmp_path)] == ["9", "10", "100"]


def test_without_a_step_the_checkpoints_time_decides_and_not_the_audits(tmp_path: Path) -> None:
    for day, name in ((1, "b"), (2, "c"), (3, "a")):
        paths = write_run(tmp_path / name, day, False, name=name)
        manifest = json_text.parse(paths.manifest.read_text())
        manifest["checkpoint"] = {"modified": f"2029-01-{9 - day:02d}T01:00:00.5+00:00"}
        paths.manifest.write_text(json.dumps(manifest))
    assert [entry.run for entry in read(tmp_path)] == ["a", "c", "b"]


A, B = (0.8, 0.7, 0.85), (0.6, 0.5, 0.75)


def found(area: Sequence[float], outcome: str = "leak") -> audit_history.Found:
    value, low, high = map(float, area)
    return audit_history.Found(history.Entry("run", outcome=outcome), area=MetricSummary(
        value=value, low=low, high=high, reason=None
    ))  # fmt: skip


def test_the_interval_of_a_difference_is_zou_and_donners() -> None:
    """0.2 - sqrt(0.1^2 + 0.15^2), 0.2 + sqrt(0.05^2 + 0.1^2)."""
    made = audit_history.change(found(B), found(A))
    assert made["auc_change"] == pytest.approx(0.2)
    assert (made["auc_change_low"], made["auc_change_high"]) == pytest.approx((0.0197224, 0.3118034), abs=1e-6)
    back = audit_history.change(found(A), found(B))
    assert (back["auc_change_low"], back["auc_change_high"]) == pytest.approx((-0.3118034, -0.0197224), abs=1e-6)
    assert (made["verdict_change"], back["verdict_change"]) == ("worse", "better")


@pytest.mark.parametrize(
    ("was", "now", "word"),
    [
        (("leak", 0.6), ("leak", 0.61), "same"), (("no leak", 0.6), ("leak", 0.61), "unclear"),
        (("leak", 0.6), ("no leak", 0.59), "unclear"), (("no leak", 0.6), ("leak", 0.9), "worse"),
        (("leak", 0.9), ("leak", 0.6), "better"), (("leak", 0.6), ("no leak", 0.9), "worse"),
    ],
)
def test_a_word_needs_more_than_the_interval(was: Any, now: Any, word: str) -> None:
    before, after = (found((auc, auc - 0.05, auc + 0.05), outcome) for outcome, auc in (was, now))
    assert audit_history.change(before, after)["verdict_change"] == word


def audit(rng: np.random.Generator, n: int, shifts: Sequence[float]) -> audit_history.Found:
    """An audit of n members and n non-members by attacks whose scores shift members by so much."""
    member = np.repeat([1, 0], n)
    common = rng.normal(size=2 * n)
    estimates = [auc_of(member, common + rng.normal(size=2 * n) + shift * member) for shift in shifts]
    best = max(estimates, key=lambda each: each.value)
    return found((best.value, best.low, best.high))


@pytest.mark.parametrize(
    ("n", "shifts", "least"),
    [(50, (0.0,), 0.025), (200, (1.0,), 0.025), (100, (0.5, 0.5, 0.4), 0.005), (80, (6.0,), 0)],
)
def test_of_equal_models_at_most_one_in_twenty_is_called_better_or_worse(
    n: int, shifts: tuple[float, ...], least: float
) -> None:
    """Both words together; within three standard errors of 800 trials, and not much less where one attack stands."""
    rng = np.random.default_rng(n)
    trials = [audit_history.change(audit(rng, n, shifts), audit(rng, n, shifts))["verdict_change"] for _ in range(800)]
    share = np.mean([word in ("better", "worse") for word in trials])
    assert least <= share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 800)


def test_models_that_differ_by_much_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    pairs = [(audit(rng, 200, (0.0,)), audit(rng, 200, (1.5,))) for _ in range(50)]
    assert {audit_history.change(*pair)["verdict_change"] for pair in pairs} == {"worse"}


def test_other_attacks_are_not_compared(tmp_path: Path) -> None:
    """Weaker attacks, or one that came to nothing, make no model better."""
    write_run(tmp_path / "a", 1, True, 0.9)
    write_run(tmp_path / "b", 2, True, 0.9, **{"attack.seed": 2})
    lost = write_run(tmp_path / "c", 3, False, 0.6)
    summary = json.loads(lost.summary_json.read_text())
    summary["methods"]["lr"]["metrics"]["auc"] = {"value": 0.5, "low": 0.5, "high": 0.5, "reason": None}
    lost.summary_json.write_text(json.dumps(summary))
    write_run(tmp_path / "d", 4, False, 0.8)
    assert [entry.verdict_change for entry in read(tmp_path)] == ["new", "new", "new", "better"]


def test_an_audit_that_is_not_evaluable_is_said_and_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, outcome in ((1, False), (2, "inconclusive"), (3, True)):
        write_run(tmp_path / f"run{day}", day, outcome, 0.5 + day / 10)
    path = tmp_path / "run2" / "summary.json"
    side = {"n": 9, "accuracy": 0.1, "loss": 9.0}
    audited = {"members": side, "nonmembers": side, "reasons": ["It guesses."], "weak_model": False, "n_rounded": 0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2, "audited": audited}))
    lines = run(capsys, tmp_path, "table")[1].splitlines()
    assert [line.split()[4:6] for line in lines[1:]] == [["no", "leak"], ["inconclusive", "0.7000"], ["leak", "0.8000"]]
    assert lines[2].endswith("Said.")
    entries = json.loads(run(capsys, tmp_path, "json")[1])
    assert [entry["outcome"] for entry in entries] == ["no leak", "inconclusive", "leak"]
    assert [entry["leak"] for entry in entries] == [False, None, True]
    assert [entry["verdict_change"] for entry in entries] == ["new", "", "worse"]
    assert entries[2]["auc_change"] == pytest.approx(0.2)


def test_the_three_forms_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / 'a "b"\n,c', 1, True, 0.9)
    write_run(tmp_path / "d", 2, None)
    write_run(Path(os.fsdecode(bytes(tmp_path) + b"/\xff")), 3, None)
    entries = json.loads(run(capsys, tmp_path, "json")[1])
    rows = list(csv.DictReader(io.StringIO(run(capsys, tmp_path, "csv")[1])))
    lines = run(capsys, tmp_path, "table")[1].splitlines()
    assert [entry["run"] for entry in entries] == ['a "b"\n,c', "d", "\udcff"]
    assert [row["run"] for row in rows] == ['a "b"\n,c', "d", "\\udcff"]
    assert (entries[0]["leak"], rows[0]["leak"], entries[1]["leak"], rows[1]["leak"]) == (True, "True", None, "")
    assert len(lines) == 4
    assert lines[1].split() == ["2030-01-01", "01:00", "net1.ckpt", "a", '"b"\\n,c', "leak", "0.9000", "new"]


@pytest.mark.parametrize("columns", [10, 40, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    for day, outcome in ((1, False), (2, "inconclusive"), (3, True)):
        name = f"a-network-of-a-long-name-{day}"
        write_run(tmp_path / f"run{day}", day, outcome, name=name, **{"model.kwargs": {"num_classes": 10 + day % 2}})
    whole = run(capsys, tmp_path, "table")[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = run(capsys, tmp_path, "table")[1]
    assert max(map(len, narrow.splitlines())) <= columns
    verdicts = [word for word in whole.split() if word in ("leak", "inconclusive", "Said.") or word.endswith(".ckpt")]
    assert all(word in "".join(narrow.split()) for word in verdicts)


def test_a_run_without_a_verdict_is_in_the_words_of_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_run(tmp_path / "a", 1, None)
    record(paths, {"extract": "7", "attack lr": "8"})
    for states, expected in (
        ({"7": "RUNNING", "8": "PENDING"}, ("running", "extract no rows yet job 7 RUNNING")),
        ({"7": "FAILED", "8": "CANCELLED"}, ("failed", "extract no rows yet job 7 FAILED")),
        ({"7": "FORGOTTEN", "8": "FORGOTTEN"}, ("missing", "extract no rows yet job 7 forgotten by Slurm")),
    ):
        monkeypatch.setattr(scheduler, "job_states", lambda _jobs, states=states: states)
        monkeypatch.setattr(scheduler, "reasons", lambda _jobs: {})
        (entry,) = read(tmp_path)
        assert (entry.state, entry.detail) == expected


def test_a_verdict_of_another_gate_is_not_the_run_in_forces(tmp_path: Path) -> None:
    manifest = a_manifest()
    paths = make_run(RunPaths(tmp_path / "a"), manifest)
    finish(paths, manifest)
    claim(paths, a_manifest(**{"gate.threshold": 0.9}))
    (entry,) = read(tmp_path)
    assert (entry.state, entry.leak) == ("stale", None)
    assert entry.detail == "reduce verdict of another config: gate.threshold was 0.6 and is now 0.9"


def test_what_is_no_run_is_left_out_and_a_damaged_one_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    write_run(tmp_path / "good", 1, False)
    write_run(tmp_path / "torn", 2, False).summary_json.write_text("{")
    write_run(tmp_path / "odd", 2, False).manifest.write_text("[]")
    write_run(tmp_path / "bare", 2, False, model={})
    (tmp_path / "folder" / "run.json").mkdir(parents=True)
    listed = write_run(tmp_path / "list", 2, False).summary_json
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "methods": []}))
    write_run(tmp_path / "jobs", 2, None).jobs.write_text('{"submissions": [{"jobs": []}]}')
    entries = read(tmp_path)
    assert {entry.run: entry.state for entry in entries} == {
        "good": "done", "torn": "damaged", "odd": "damaged", "list": "damaged", "jobs": "missing", "bare": "damaged",
        "folder": "damaged",
    }  # fmt: skip
    (said,) = [entry.detail for entry in entries if entry.run == "list"]
    assert said == f"{tmp_path / 'list' / 'summary.json'}: methods: must be a mapping, got []"
    assert {entry.run for entry in entries if not entry.training} == {"odd", "bare", "folder"}
    code, text = run(capsys, tmp_path, "table")
    assert code == 4
    assert "\n\ncannot be read\n" in text
    with pytest.raises(InputError, match="RUNS: must be a directory"):
        history.read_history(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user who may not look")
def test_a_run_that_its_owner_has_closed_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "open", 1, False)
    write_run(tmp_path / "closed", 2, True).root.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    for path in ((tmp_path / "open"), *(tmp_path / "open").rglob("*")):  # whatever the umask of this process
        path.chmod(0o755)
    code = "import os, sys; from mia_batch.commands import history; os.seteuid(65534); " \
        "print([(e.run, e.state) for e in history.read_history(history.Path(sys.argv[1])).entries])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[('open', 'done'), ('closed', 'damaged')]"


def test_a_thousand_runs_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the processor, which others may be using too: it takes two."""
    first = write_run(tmp_path / "0", 1, False)
    for number in range(1, 1000):
        shutil.copytree(first.root, tmp_path / str(number))
    started = time.process_time()
    assert run(capsys, tmp_path, "table")[1].count("\n") == 1001
    assert time.process_time() - started < 8
    assert [int(entry.run) for entry in read(tmp_path)] == list(range(1000))  # all as old: by the run, as a number


def test_the_summary_of_the_version_before_and_a_run_json_without_the_checkpoints_time(tmp_path: Path) -> None:
    assert json.loads(BEFORE.read_text())["schema"] == 1
    manifest = json_text.parse(write_run(tmp_path / "a", 1, True, 0.8).manifest.read_text())
    assert manifest.pop("checkpoint") == CheckpointOrigin().model_dump()
    (tmp_path / "a" / "run.json").write_text(json.dumps(manifest))
    (entry,) = read(tmp_path)
    assert (entry.outcome, entry.auc, entry.verdict_change, entry.modified) == ("leak", 0.8, "new", "")
