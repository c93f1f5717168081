"""What status says of given files and given states of jobs: no daemons needed."""

from __future__ import annotations

import argparse
import fcntl
import json
from pathlib import Path

import pytest
from rundirs import a_manifest, make_run, write_result, write_verdict

from mia_batch.commands import status
from mia_batch.errors import InputError
from mia_batch.rundir.identity import attack_digest
from mia_batch.rundir.jobs import record
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import StageStatus
from mia_batch.scheduler import slurm as scheduler
from mia_batch.scheduler.queue import statuses

JOBS = {"extract": "7", "attack lr": "8_0", "attack knn": "8_1", "reduce": "9"}


def a_run(root: Path, leak: bool | None = None) -> RunPaths:
    """A run of two attacks, of which nothing is done unless it has a verdict."""
    paths = make_run(RunPaths(root), a_manifest())
    if leak is not None:
        write_verdict(paths, a_manifest(), leak=leak)
    return paths


def slurm_says(monkeypatch: pytest.MonkeyPatch, states: dict[str, str] | None) -> None:
    """Answers of Slurm: FORGOTTEN for what is not in `states`; None is no answer."""

    def answer(jobs: object) -> dict[str, str]:
        if states is None:
            raise ConnectionError("down")
        return {job: states.get(job, scheduler.FORGOTTEN) for job in jobs}  # type: ignore[attr-defined]

    monkeypatch.setattr(scheduler, "job_states", answer)
    monkeypatch.setattr(scheduler, "reasons", lambda jobs: dict.fromkeys(jobs, "Priority"))


@pytest.mark.parametrize(
    ("job", "state", "text"),
    [
        ("PENDING", "queued", "8_0 PENDING (Priority)"),
        ("REQUEUED", "queued", "8_0 REQUEUED (Priority)"),
        ("RUNNING", "running", "8_0 RUNNING"),
        ("COMPLETING", "running", "8_0 COMPLETING"),
        ("NODE_FAIL", "failed", "8_0 NODE_FAIL"),
        ("CANCELLED", "failed", "8_0 CANCELLED"),
        ("TIMEOUT", "failed", "8_0 TIMEOUT"),
        ("COMPLETED", "missing", "8_0 COMPLETED"),
        ("FORGOTTEN", "missing", "8_0 forgotten by Slurm"),
        (None, "missing", "8_0 unknown: Slurm does not answer"),
    ],
)
def test_a_stage_without_a_result_is_what_its_job_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, state: str, text: str
) -> None:
    paths = a_run(tmp_path)
    record(paths, JOBS)
    slurm_says(monkeypatch, job and {"8_0": job})  # type: ignore[arg-type]
    ((_, attack, *_),) = statuses([paths])
    assert (attack.stage, attack.state, attack.job) == ("attack lr", state, text)


def test_what_is_done_needs_no_job_and_a_lock_says_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = a_run(tmp_path, leak=True)
    record(paths, JOBS)
    slurm_says(monkeypatch, {"8_0": "FAILED", "9": "FAILED"})
    write_result(paths, a_manifest(), "lr")
    fits = [{"identity": attack_digest(a_manifest(), "knn")}, *({"key": f"knn/{i}", "value": {}} for i in range(2))]
    paths.journal("knn").write_text("".join(json.dumps(fit) + "\n" for fit in fits))
    with open(paths.journal("knn")) as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        ((_, lr, knn, reduce),) = statuses([paths])
    assert lr == StageStatus("attack lr", "done", "lr.h5")
    assert knn == StageStatus("attack knn", "running", "2 fits done", "8_1 forgotten by Slurm")
    assert reduce == StageStatus("reduce", "done", "leak")
    assert statuses([paths])[0][2].state == "partial"


def test_without_slurm_or_jobs_the_files_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    paths = a_run(tmp_path / "run")
    assert {stage.state for stage in statuses([paths])[0]} == {"missing"}
    record(paths, JOBS)
    assert statuses([paths])[0][0].job == "7 unknown: Slurm does not answer"


def test_many_runs_are_a_line_each_and_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(a_run(tmp_path / "a\nb"), {**JOBS, "extract": "7_0"})
    record(a_run(tmp_path / "c"), {**JOBS, "extract": "7_1"})
    (tmp_path / "d").mkdir()
    a_run(tmp_path / "e").manifest.write_text("[]")
    slurm_says(monkeypatch, {"7_0": "FAILED", "7_1": "RUNNING"})
    args = argparse.Namespace(dir=str(tmp_path), json=False)
    assert status.run(args) == 0
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["a?b", "failed", "extract", "no", "rows", "yet", "job", "7_0", "FAILED"]
    assert second.split()[:2] == ["c", "running"]
    assert third.split()[:2] == ["e", "damaged"]
    assert last == "3 run(s): 1 failed, 1 running, 1 damaged"
    args.json = True
    status.run(args)
    said = json.loads(capsys.readouterr().out)
    assert [Path(run["dir"]).name for run in said["runs"]] == ["a\nb", "c", "e"]
    with pytest.raises(InputError, match="must be a run directory"):
        status.run(argparse.Namespace(dir=str(tmp_path / "d"), json=False))
