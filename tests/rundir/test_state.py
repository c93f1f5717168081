"""What is done, running, failed, partial, stale or missing, from files that the stages could have left."""

from __future__ import annotations

import fcntl
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import METHODS, N, a_manifest, a_writer, finish, make_run, write_result, write_rows, write_verdict

from mia_batch.attacks.base import BLIND
from mia_batch.errors import InputError
from mia_batch.rundir.identity import attack_digest
from mia_batch.rundir.journal import Journal
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack, write_attack
from mia_batch.rundir.state import (
    JobState,
    Left,
    StageStatus,
    accepted_marks,
    attack_statuses,
    left_to_do,
    read_state,
    with_jobs,
)

BEFORE = {"run": "the digest of a whole run"}  # what files of the version before carry


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return make_run(RunPaths(tmp_path), a_manifest())


def states(paths: RunPaths, **changes: Any) -> dict[str, str]:
    return {each.stage: each.state for each in read_state(paths, a_manifest(**changes))}


ALL = dict.fromkeys(("extract", "attack lr", "attack knn", "attack blind", "reduce"), "done")
EVERY = (*METHODS, BLIND)


def test_nothing_is_missing_everything_and_the_end_is_done(paths: RunPaths) -> None:
    assert read_state(paths) == [
        StageStatus("extract", "missing", "no rows yet"), StageStatus("attack lr", "missing", ""),
        StageStatus("attack knn", "missing", ""), StageStatus("attack blind", "missing", ""),
        StageStatus("reduce", "missing", ""),
    ]  # fmt: skip
    assert left_to_do(read_state(paths)) == Left(("extract", "attack", "reduce"), EVERY)
    finish(paths, a_manifest())
    assert [replace(each, figures="") for each in read_state(paths)] == [
        StageStatus("extract", "done", f"{N} of {N} rows"), StageStatus("attack lr", "done", "lr.h5"),
        StageStatus("attack knn", "done", "knn.h5"), StageStatus("attack blind", "done", "blind.h5"),
        StageStatus("reduce", "done", "no leak found"),
    ]  # fmt: skip
    assert left_to_do(read_state(paths)) == Left((), ())


@pytest.mark.parametrize(
    ("changes", "stale", "left"),
    [
        ({"gate.threshold": 0.9}, ["reduce"], Left(("reduce",), ())),
        ({"report.metrics": ["auc"]}, ["reduce"], Left(("reduce",), ())),
        ({"train.epochs": 3, "attack.memory_gib": 1.0, "model.checkpoint": "/moved.ckpt"}, [], Left((), ())),
        ({"attack.methods.1.params.n_neighbors": [9]}, ["attack knn", "reduce"], Left(("attack", "reduce"), ("knn",))),
        ({"attack.seed": 2}, ["attack lr", "attack knn", "attack blind", "reduce"], Left(("attack", "reduce"), EVERY)),
    ],
)
def test_another_config_makes_stale_what_depends_on_it(
    paths: RunPaths, changes: dict[str, Any], stale: list[str], left: Left
) -> None:
    finish(paths, a_manifest())
    assert states(paths, **changes) == {**ALL, **dict.fromkeys(stale, "stale")}
    assert left_to_do(read_state(paths, a_manifest(**changes))) == left
    why = {each.stage: each.detail for each in read_state(paths, a_manifest(**changes)) if each.state == "stale"}
    if "attack knn" in stale:
        assert why["attack knn"] == "knn.h5 is of other features or settings"
    if stale == ["reduce"] and "gate.threshold" in changes:
        assert why["reduce"] == "verdict of another config: gate.threshold was 0.6 and is now 0.9"


def test_an_attack_that_is_no_longer_asked_for_is_not_looked_at(paths: RunPaths) -> None:
    finish(paths, a_manifest())
    lr = a_manifest(**{"attack.methods": [{"method": "lr", "params": {"C": [0.1, 1.0]}}]})
    assert [each.stage for each in read_state(paths, lr)] == ["extract", "attack lr", "attack blind", "reduce"]
    assert left_to_do(read_state(paths, lr)) == Left(("reduce",), ())


def test_rows_of_another_run_are_stale_before_the_first_they_are_nobodys(paths: RunPaths) -> None:
    other = {"data.image_size": [64, 64]}
    write_rows(paths, a_manifest(), done=0)
    assert states(paths)["extract"] == "partial"
    assert states(paths, **other)["extract"] == "missing"
    paths.features.unlink()
    write_rows(paths, a_manifest(), done=1)
    (extract, *_) = read_state(paths, a_manifest(**other))
    assert (extract.state, extract.detail) == (
        "stale", "rows of another run: data.image_size was [32, 32] and is now [64, 64]"
    )  # fmt: skip


def test_a_writer_is_seen(paths: RunPaths) -> None:
    write_rows(paths, a_manifest(), done=5)
    assert read_state(paths)[0] == StageStatus("extract", "partial", f"5 of {N} rows")
    with a_writer(paths):
        assert read_state(paths)[0].state == "running"
    assert read_state(paths)[0].state == "partial"


def journal(paths: RunPaths, name: str, marks: tuple[str, ...], tasks: int) -> Journal:
    found = Journal(paths.journal(name), marks)
    for number in range(tasks):
        found.put(f"{name}/{number}", {})
    return found


def test_fits_count_for_the_settings_that_they_are_of(paths: RunPaths) -> None:
    write_rows(paths, a_manifest())
    marks = accepted_marks(paths, a_manifest())["lr"]
    assert marks == (attack_digest(a_manifest(), "lr"),)
    with closing(journal(paths, "lr", marks, 2)):
        assert read_state(paths)[1] == StageStatus("attack lr", "running", "2 fits done")
    assert read_state(paths)[1] == StageStatus("attack lr", "partial", "2 fits done")
    assert states(paths, **{"attack.seed": 2})["attack lr"] == "missing"
    write_result(paths, a_manifest(**{"attack.seed": 3}), "lr")
    assert read_state(paths)[1].state == "partial"
    assert states(paths, **{"attack.seed": 2})["attack lr"] == "stale"
    write_result(paths, a_manifest(), "lr")
    assert read_state(paths)[1].state == "done"


def kept(paths: RunPaths, name: str, marks: tuple[str, ...]) -> int:
    """How many fits an attack with these marks finds."""
    with closing(Journal(paths.journal(name), marks)) as found:
        return len(found)


@pytest.mark.parametrize("text", ["", "x", "[1]\n", "{}\n", '{"identity": "x"}'])
def test_a_torn_journal_holds_nothing(paths: RunPaths, text: str) -> None:
    paths.journal("lr").write_text(text)
    assert read_state(paths)[1].state == "missing"
    marks = accepted_marks(paths, a_manifest())["lr"]
    journal(paths, "lr", marks, 1).close()
    assert kept(paths, "lr", marks) == 1


def test_a_verdict_without_a_baseline_stands_until_it_is_made_anew(paths: RunPaths) -> None:
    finish(paths, a_manifest())
    paths.attack(BLIND).unlink()
    assert left_to_do(read_state(paths)) == Left((), ())
    assert attack_statuses(paths, a_manifest())[-1] == StageStatus("attack blind", "missing", "")
    another = a_manifest(**{"gate.threshold": 0.9})
    assert left_to_do(read_state(paths, another)) == Left(("attack", "reduce"), (BLIND,))


def test_what_was_not_evaluable_has_failed_and_is_tried_again(paths: RunPaths) -> None:
    finish(paths, a_manifest())
    found, nothing = read_attack(paths.attack("lr")), np.full(N, np.nan)
    write_attack(paths.attack("lr"), replace(
        found, scores=nothing, predicted=np.full(N, -1, np.int8), scored_by=np.full(N, -1, np.int32),
        reason="no worker left",
    ))  # fmt: skip
    assert read_state(paths)[1] == StageStatus("attack lr", "failed", "not evaluable: no worker left")
    assert left_to_do(read_state(paths)) == Left(("attack", "reduce"), ("lr",))
    assert states(paths, **{"attack.seed": 2})["attack lr"] == "stale"


def test_a_run_of_the_version_before_is_done_as_far_as_it_was(paths: RunPaths) -> None:
    write_rows(paths, a_manifest(), **BEFORE)
    write_result(paths, a_manifest(), "lr", **BEFORE)
    paths.journal("knn").write_text(json.dumps(BEFORE) + "\n" + '{"key": "knn/0", "value": {}}\n')
    write_verdict(paths, a_manifest())
    had = {name: state for name, state in ALL.items() if name != "attack blind"}  # and does not lack it
    assert states(paths) == {**had, "attack knn": "partial"}
    assert states(paths, **{"attack.methods.1.params.n_neighbors": [9]})["attack lr"] == "done"
    assert states(paths, **{"attack.methods.0.params.C": [9.0]})["attack lr"] == "stale"
    assert states(paths, **{"attack.methods.1.params.n_neighbors": [9]})["attack knn"] == "missing"
    marks = accepted_marks(paths, a_manifest())["knn"]
    assert kept(paths, "knn", marks) == 1
    assert kept(paths, "knn", marks[:1]) == 0  # with the mark of no run before it starts anew


def test_results_of_another_run_are_stale_whatever_they_carry(paths: RunPaths) -> None:
    write_rows(paths, a_manifest())
    for mark in (BEFORE, {"identity": "x"}, {"seed": 1}):
        write_result(paths, a_manifest(), "lr", **mark)
        assert attack_statuses(paths, a_manifest())[0].state == "stale"


# --- damage, and jobs ------------------------------------------------------------------------------------------------


def test_a_damaged_file_hides_no_other_stage_and_is_not_overwritten(paths: RunPaths) -> None:
    finish(paths, a_manifest())
    paths.attack("lr").write_bytes(b"text")
    found = read_state(paths)
    assert [each.state for each in found] == ["done", "damaged", "done", "done", "done"]
    with pytest.raises(InputError, match=r"lr\.h5: must be a readable HDF5 file") as caught:
        left_to_do(found)
    assert len(caught.value.problems) == 1
    paths.features.write_bytes(b"text")
    assert [each.state for each in read_state(paths)] == ["damaged", "damaged", "done", "done", "done"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"verdict": {}}', '{"verdict": {}, "provenance": {"config": 3}}'])
def test_a_damaged_verdict_is_written_anew(paths: RunPaths, text: str) -> None:
    finish(paths, a_manifest())
    paths.summary_json.write_text(text)
    last = read_state(paths)[-1]
    assert last.state == "damaged"
    assert last.detail.startswith(f"{paths.summary_json}: ")
    assert left_to_do(read_state(paths)) == Left(("reduce",), ())


def test_a_damaged_manifest_is_a_state(paths: RunPaths) -> None:
    paths.manifest.write_text("[]")
    (only,) = read_state(paths)
    assert (only.stage, only.state) == ("run", "damaged")
    paths.manifest.unlink()
    assert read_state(paths) == [StageStatus("run", "missing", "no run.json")]


@pytest.mark.parametrize(
    ("job", "state"), [("queued", "queued"), ("running", "running"), ("failed", "failed"), ("", "missing")]
)
def test_a_stage_that_is_not_done_is_what_its_job_is(paths: RunPaths, job: str, state: str) -> None:
    write_rows(paths, a_manifest())
    jobs = {stage: JobState("7 SAID", job) for stage in ("extract", "attack lr")}
    extract, lr, knn, *_ = with_jobs(read_state(paths), jobs)
    assert (extract.state, extract.job) == ("done", "")
    assert (lr.state, lr.job) == (state, "7 SAID")
    assert (knn.state, knn.job) == ("missing", "")


def test_a_lock_says_more_than_a_job(paths: RunPaths) -> None:
    paths.journal("lr").touch()
    with open(paths.journal("lr")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert with_jobs(read_state(paths), {"attack lr": JobState("7 FAILED", "failed")})[1].state == "running"


def test_a_result_under_another_attacks_name_is_damaged(paths: RunPaths) -> None:
    """Also in a directory of the version before, whose attacks all carry the same mark."""
    finish(paths, a_manifest())
    paths.attack("lr").rename(paths.attack("knn"))
    (lr, knn, _) = attack_statuses(paths, a_manifest())
    assert (lr.state, knn.state) == ("missing", "damaged")
    assert knn.detail == f"{paths.attack('knn')}: method: must be knn, got lr; remove it and run attack again"


def test_a_journal_that_its_owner_removes_at_that_moment_is_nobodys(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has finished between our opening and our locking: what we would write went nowhere."""
    lock = fcntl.flock

    def remove_and_lock(file: Any, how: int) -> None:
        paths.journal("lr").unlink()
        lock(file, how)

    make_run(paths, a_manifest())
    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with pytest.raises(InputError, match="another process is fitting this attack"):
        Journal(paths.journal("lr"), ["x"])
