"""What status says of given files and given states of jobs: no daemons needed."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from pathlib import Path

import pytest
from rundirs import a_manifest, make_run, write_result, write_verdict
from running import words_of_bash

from mia_batch.commands import status
from mia_batch.errors import InputError
from mia_batch.process.stage_log import StageLog, kept
from mia_batch.rundir.explanation import explained
from mia_batch.rundir.identity import attack_digest
from mia_batch.rundir.jobs import record
from mia_batch.rundir.next_command import next_command
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
    figures = "rf: balanced accuracy 0.869 (0.830 to 0.901), AUC 0.500 (0.500 to 0.500)"
    assert (reduce.stage, reduce.state, reduce.detail) == ("reduce", "done", "leak")
    assert reduce.figures == f"{figures}, TPR at 1 % FPR 0.150 (0.000 to 0.263)"
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
    args = argparse.Namespace(dir=str(tmp_path), json=False, watch=None)
    assert status.run(args) == 0
    first, second, third, last, command = capsys.readouterr().out.splitlines()
    assert first.split() == ["a\\nb", "failed", "extract", "no", "rows", "yet", "job", "7_0", "FAILED"]
    assert second.split()[:2] == ["c", "running"]
    assert third.split()[:2] == ["e", "damaged"]
    assert last == "3 run(s): 1 failed, 1 running, 1 damaged"
    assert words_of_bash(command.removeprefix("next: ")) == ["mia-batch", "status", f"{tmp_path}/a\nb"]
    args.json = True
    status.run(args)
    said = json.loads(capsys.readouterr().out)
    assert [Path(run["dir"]).name for run in said["runs"]] == ["a\nb", "c", "e"]
    with pytest.raises(InputError, match="must be a run directory"):
        status.run(argparse.Namespace(dir=str(tmp_path / "d"), json=False, watch=None))


def printed(capsys: pytest.CaptureFixture[str], paths: RunPaths) -> list[str]:
    assert status.run(argparse.Namespace(dir=str(paths.root), json=False, watch=None)) == 0
    return capsys.readouterr().out.splitlines()


def a_job_log(paths: RunPaths, name: str, *lines: str) -> Path:
    """As slurm/body.bash begins it, a start before it too."""
    paths.logs.mkdir(exist_ok=True)
    first = ["mia-extract job 7, start 1, 2 task(s) on n1", "mia-batch: of the start before"]
    log = paths.logs / name
    log.write_text("\n".join([*first, "mia-extract job 7, start 2, 2 task(s) on n1", *lines, ""]))
    return log


def test_a_stage_that_has_failed_says_why_and_those_behind_it_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = a_run(tmp_path)
    record(paths, JOBS)
    slurm_says(monkeypatch, {"7": "FAILED", "8_0": "CANCELLED", "8_1": "CANCELLED", "9": "CANCELLED"})
    log = a_job_log(paths, "extract-7.log", "[n1 1] mia-batch: data.path: must \x1b[31mexist", "srun: error: exit 2")
    extract, _why, _log, lr, knn, _blind, reduce, command = printed(capsys, paths)
    assert extract.split()[:2] == ["extract", "failed"]
    assert [_why, _log] == ["    mia-batch: data.path: must \\x1b[31mexist", f"    log: {log}"]
    assert [line.split()[2:4] for line in (lr, knn)] == [["not", "started"]] * 2
    assert reduce.split()[1:3] == ["not", "started"]
    assert command == f"next: mia-batch submit /c.yaml --out={paths.root} --checkpoint=/w/n.ckpt"


def test_a_follower_that_did_begin_is_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = a_run(tmp_path)
    record(paths, JOBS)
    slurm_says(monkeypatch, {"7": "FAILED", "8_0": "FAILED", "9": "CANCELLED"})
    a_job_log(paths, "attack-8_0.log", "mia-batch: attack.seed: must be one")
    ((extract, lr, knn, *_),) = statuses([paths])
    assert (extract.state, extract.log, extract.said) == ("failed", "", "")
    assert (lr.state, lr.said, knn.state) == ("failed", "mia-batch: attack.seed: must be one", "not started")


def test_an_attack_that_is_not_evaluable_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = a_run(tmp_path)
    not_evaluable = StageStatus("attack lr", "failed", "not evaluable: one class")
    found = explained(paths, [not_evaluable, StageStatus("reduce", "missing", "")])
    assert [each.state for each in found] == ["failed", "missing"]


def test_a_task_of_an_array_without_a_directory_has_the_arrays_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = a_run(tmp_path / "run")
    record(paths, {"extract": "7_3"})
    slurm_says(monkeypatch, {"7_3": "FAILED"})
    log = a_job_log(RunPaths(tmp_path), "extract-7.log", "module: command not found")
    ((extract, *_),) = statuses([paths])
    assert (extract.log, extract.said) == (str(log), "module: command not found")


def test_local_stages_keep_a_log_that_says_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = a_run(tmp_path)
    log = StageLog(paths.local_log("extract"), "extract").begin()
    assert statuses([paths])[0][0].state == "running"
    log.say("mia-batch: model.factory: must be callable")
    log.end(2)
    ((extract, lr, *_),) = statuses([paths])
    assert (extract.state, extract.said) == ("failed", "mia-batch: model.factory: must be callable")
    assert (extract.log, lr.state) == (str(paths.local_log("extract")), "not started")
    StageLog(paths.local_log("extract"), "extract").end(75)
    assert [each.state for each in statuses([paths])[0][:2]] == ["missing", "missing"]
    with open(paths.local_log("extract"), "a") as killed:  # so that nobody has said how it ended
        killed.write("extract on n1, start 2030-01-01T01:00:00+00:00\n")
    assert statuses([paths])[0][0].said == "it was killed"
    record(paths, JOBS)
    os.utime(paths.jobs, (2**32, 2**32))
    slurm_says(monkeypatch, {"7": "RUNNING"})
    assert statuses([paths])[0][0].state == "running"


def test_what_a_stage_of_this_process_refuses_is_in_its_log_and_nothing_before_a_directory(tmp_path: Path) -> None:
    def refuse() -> int:
        raise InputError("gate: must be a \x1b[2Jmapping")

    for paths, there in ((RunPaths(tmp_path / "none"), False), (a_run(tmp_path / "run"), True)):
        with pytest.raises(InputError):
            kept(paths.local_log("reduce"), "reduce", refuse)
        assert paths.local_log("reduce").exists() == there
    begun, *lines = paths.local_log("reduce").read_text().splitlines()
    assert begun.startswith("reduce on ")
    assert lines == ["mia-batch: gate: must be a \\x1b[2Jmapping", "reduce ended with exit code 2"]
    assert kept(paths.local_log("reduce"), "reduce", lambda: 3) == 3
    assert paths.local_log("reduce").read_text().splitlines()[-1] == "reduce ended with exit code 3"


def test_watch_prints_what_is_another_until_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = a_run(tmp_path, leak=True)
    record(paths, JOBS)
    answers = iter(["PENDING", "RUNNING", "RUNNING", "FAILED"])
    monkeypatch.setattr(scheduler, "job_states", lambda jobs: dict.fromkeys(jobs, next(answers)))
    monkeypatch.setattr(scheduler, "reasons", lambda jobs: {})
    assert status.run(argparse.Namespace(dir=str(tmp_path), json=False, watch=0.1)) == 0
    said = capsys.readouterr().out.split("\n\n")
    assert [text.split()[1] for text in said] == ["queued", "running", "failed"]
    assert next(answers, None) is None
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--watch: must be"):
            status.run(argparse.Namespace(dir=str(tmp_path), json=False, watch=seconds))


def test_in_forty_columns_every_line_fits_but_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    *lines, _command = printed(capsys, a_run(tmp_path, leak=False))
    assert max(map(len, lines)) <= 40
    assert "TPR at" in " ".join(lines)


@pytest.mark.parametrize(
    ("state", "command"),
    [("done", "mia-batch show {0}"), ("queued", "mia-batch status {0} --watch"), ("damaged", ""),
     ("partial", "mia-batch run /c.yaml --out={0} --checkpoint=/w/n.ckpt --set=attack.seed=2")],
)  # fmt: skip
def test_the_next_command_takes_the_run_further(tmp_path: Path, state: str, command: str) -> None:
    manifest = a_manifest().model_copy(update={"changes": ("attack.seed=2",)})
    paths = make_run(RunPaths(tmp_path), manifest)
    assert next_command(paths, [StageStatus("reduce", state, "")]) == command.format(paths.root)
