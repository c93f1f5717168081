"""What a page draws of the other audits of its training: which of them, in what order, with which figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import made_audit, made_features
from rundirs import a_manifest, make_run

from mia_batch.report.evidence import Evidence
from mia_batch.report.page import to_page
from mia_batch.report.summary import Summary, to_json
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.stages.curves import over_training

N = 200


def audit_of(folder: Path, step: int, signal: float, **changes: object) -> tuple[RunPaths, Manifest, Summary]:
    """A finished audit of the checkpoint of a step."""
    known = {"model.checkpoint": f"/w/net-{step}_7.ckpt", "digests.model.checkpoint": f"{step:064d}"}
    manifest = a_manifest(**known | changes)
    paths = make_run(RunPaths(folder / f"run{step}"), manifest)
    summary, _ = made_audit(folder, features=made_features(N), signals={"lr": signal, "knn": 0.0})
    paths.summary_json.write_text(to_json(summary))
    return paths, manifest, summary


def test_steps_in_order_with_the_strongest_attack(tmp_path: Path) -> None:
    runs = [audit_of(tmp_path, step, signal) for step, signal in ((10, 3.0), (2, 0.5), (5, 1.5))]
    leakage, accuracy = over_training(*runs[2])
    assert leakage.x == accuracy.x == (2.0, 5.0, 10.0)
    by_step = [runs[1], runs[2], runs[0]]
    values = [summary.methods["lr"].metrics["balanced_accuracy"] for *_, summary in by_step]
    assert leakage.series["strongest attack"] == tuple((v.value, v.low, v.high) for v in values)
    assert leakage.level == 0.6
    audited = [summary.audited for *_, summary in by_step]
    assert [point[0] for point in accuracy.series["on members"]] == [a.members.accuracy for a in audited if a]
    assert [point[0] for point in accuracy.series["on non-members"]] == [a.nonmembers.accuracy for a in audited if a]
    page = to_page(runs[2][2], Evidence(curves=(leakage, accuracy)))
    assert '<section id="curves"' in page
    assert "Leakage over the training" in page


def test_other_trainings_and_what_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    own = audit_of(tmp_path, 1, 1.0)
    assert over_training(*own) == ()
    audit_of(tmp_path, 2, 1.0, **{"train.learning_rate": 0.5})
    unfinished, *_ = audit_of(tmp_path, 3, 1.0)
    unfinished.summary_json.unlink()
    damaged, *_ = audit_of(tmp_path, 4, 1.0)
    damaged.summary_json.write_text("{")
    broken, *_ = audit_of(tmp_path, 5, 1.0)
    broken.manifest.write_text("{")
    assert over_training(*own) == ()
    audit_of(tmp_path, 6, 1.0)
    assert over_training(*own)[0].x == (1.0, 6.0)


def test_earlier_checkpoints_may_lie_elsewhere(tmp_path: Path) -> None:
    own = audit_of(tmp_path / "own", 9, 2.0)
    earlier = [audit_of(tmp_path / "epochs", step, 1.0)[0].root for step in (3, 9, 1)]  # one directory's name is ours
    assert over_training(*own) == ()
    assert over_training(*own, earlier[::2])[0].x == (1.0, 3.0, 9.0)
    assert over_training(*own, [own[0].root, *earlier[::2]])[0].x == (1.0, 3.0, 9.0)


@pytest.mark.parametrize("name", ["net.ckpt", "best.ckpt"])
def test_an_audit_whose_step_nothing_tells_is_not_drawn(tmp_path: Path, name: str) -> None:
    own = audit_of(tmp_path, 1, 1.0)
    audit_of(tmp_path, 2, 1.0, **{"model.checkpoint": f"/w/{name}"})
    assert over_training(*own) == ()
