"""LiRA over the checkpoints of a training, from run directories and a store of references: value, reason or refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_references import pairs_by_coins
from trajectories import trained_answers, write_audit, write_referenced

from mia_batch.attacks.sides import References
from mia_batch.attacks.trajectories import lira_trajectory
from mia_batch.cli import main
from mia_batch.errors import InputError
from mia_batch.metrics.ranking import auc
from mia_batch.rundir.features import read_features
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.reference_store import files_in
from mia_batch.settings.schema import AttackConfig, Config
from mia_batch.stages.trajectory_attacks import lira_over_steps
from mia_batch.stages.trajectory_columns import Checkpoint, reference_trajectories, trajectory_columns

N, K = 240, 6
RNG = np.random.default_rng(5)
MEMBER = RNG.integers(0, 2, N).astype(np.int8)
INSIDE = pairs_by_coins(N, K, RNG).T
STEPS = (1, 2, 3)


def a_checkpoint(paths: RunPaths) -> Checkpoint:
    manifest = read_manifest(paths)
    assert manifest is not None
    return Checkpoint(paths, manifest, read_features(paths.features))


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Checkpoint]:
    return [a_checkpoint(write_referenced(tmp_path / "runs", step, MEMBER, INSIDE)) for step in STEPS]


def told(capsys: pytest.CaptureFixture[str], runs: Path) -> dict[str, Any]:
    assert main(["trajectory", str(runs), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found["lira"]


def own_config(checkpoint: Checkpoint, earlier: list[Checkpoint]) -> Config:
    methods = [{"method": "lira_trajectory"}, {"method": "lr"}]
    attack = AttackConfig(methods=methods, trajectory=[str(each.paths.root) for each in earlier])
    return Config.model_construct(attack=attack)


def test_it_is_what_the_core_makes_of_every_reference_at_every_step(
    checkpoints: list[Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lira_over_steps(checkpoints, level=0.95)
    own = checkpoints[-1]
    columns = trajectory_columns(own_config(own, checkpoints[:-1]), own, ["lira_trajectory"], {"reference_in": INSIDE})
    order = own.features.sample_index  # members first
    phi, others = columns["trajectory_phi"], columns["trajectory_references"]
    assert (phi.shape, others.shape) == ((N, 3), (N, 3, K))
    scores = lira_trajectory(References(phi, others, INSIDE.T[order].astype(np.int8))).values[:, 0]
    naive = auc(MEMBER[order], scores)
    assert found.metrics["auc"].value == naive.value > 0.7
    assert found.metrics["auc"].low < naive.low  # cross-fitted decisions: half of the scores count
    assert (found.n_members, found.n_nonmembers, found.n_left_out) == (MEMBER.sum(), (1 - MEMBER).sum(), 0)
    shown = told(capsys, tmp_path / "runs")
    assert shown["auc"]["value"] == naive.value
    assert shown["reason"] is None
    main(["trajectory", str(tmp_path / "runs")])
    area = found.metrics["auc"]
    line = f"LiRA over 3 checkpoints: AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f})"
    assert line in capsys.readouterr().out


def test_of_models_that_are_really_trained(tmp_path: Path) -> None:
    """It finds the members, and more of them than the first epochs alone."""
    epochs, label = (1, 2, 4), np.zeros(N, dtype=np.int64)
    inside = np.vstack([MEMBER, INSIDE])
    mixed = np.random.default_rng(8).integers(0, 10, N)
    answers = trained_answers(inside, mixed, epochs)
    turned = [[np.take_along_axis(z, (mixed[:, None] + np.arange(10)) % 10, axis=1) for z in each] for each in answers]
    made = [
        a_checkpoint(write_referenced(tmp_path / "runs", step, MEMBER, INSIDE, answers=each))
        for step, each in zip((1, 2, 3), turned, strict=True)
    ]  # helpers write label 0: the true class comes first
    assert made[0].features.label is not None
    assert (made[0].features.label == label).all()
    whole, early = (lira_over_steps(made[:n], level=0.95).metrics["auc"] for n in (3, 2))
    assert whole.low > 0.6
    assert whole.value > early.value


def test_without_a_leak_its_auc_covers_one_half(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    made = [a_checkpoint(write_referenced(runs, step, MEMBER, INSIDE, shift=0.0)) for step in STEPS]
    area = lira_over_steps(made, level=0.99).metrics["auc"]
    assert area.low < 0.5 < area.high


def test_the_order_of_an_audit_s_samples_does_not_matter(checkpoints: list[Checkpoint], tmp_path: Path) -> None:
    """As where a sample arrives, so that features.h5 has it among the members: it is left out, and no other changes."""
    later = MEMBER.copy()
    late = np.flatnonzero(MEMBER == 0)[:10]
    later[late] = 1
    now = a_checkpoint(write_referenced(tmp_path / "runs", 4, later, INSIDE))
    assert not np.array_equal(now.features.sample_index, checkpoints[0].features.sample_index)
    found = lira_over_steps([*checkpoints, now], level=0.95)
    assert (found.n_left_out, found.n_members) == (10, MEMBER.sum())
    columns = reference_trajectories([*checkpoints, now])["trajectory_references"]
    before = reference_trajectories(checkpoints)["trajectory_references"]
    places = np.argsort(checkpoints[0].features.sample_index)
    assert np.array_equal(columns[:, :3], before[places[now.features.sample_index]])


def test_why_it_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reason(name: str) -> str:
        return told(capsys, tmp_path / name / "runs")["reason"]

    for name in ("one", "none", "same", "gone"):
        write_referenced(tmp_path / name / "runs", 1, MEMBER, INSIDE)
    assert reason("one") == "there is one checkpoint"
    write_audit(tmp_path / "none" / "runs", 2, False, MEMBER)
    assert reason("none") == "it needs references of each step: the audit run2 has none"
    write_referenced(tmp_path / "same" / "runs", 2, MEMBER, INSIDE, weights=1)
    assert reason("same") == (
        "it needs references of each step: run2 references.checkpoints[0] has the weights of run1 "
        "references.checkpoints[0]: each audit needs references of its own step"
    )
    write_referenced(tmp_path / "gone" / "runs", 2, MEMBER, INSIDE, stored=False)
    assert reason("gone") == f"of run2 references.checkpoints[0]: outputs must be in the store, got 0 of {K}"


def test_other_inclusion_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(name: str) -> str:
        assert main(["trajectory", str(tmp_path / name / "runs")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    other = INSIDE.copy()
    other[0, 7] = 1 - other[0, 7]
    for name, inside in (("bit", other), ("fewer", INSIDE[:4]), ("turned", INSIDE[::-1])):
        write_referenced(tmp_path / name / "runs", 1, MEMBER, inside)
        write_referenced(tmp_path / name / "runs", 2, MEMBER, INSIDE)
    rule = "references.inclusion of run1: must be that of run2, reference by reference, got"
    assert f"{rule} {other[0, 7]} for reference 0 and train 7, {INSIDE[0, 7]} there" in refused("bit")
    assert f"{rule} 4 references" in refused("fewer")
    assert rule in refused("turned")
    write_referenced(tmp_path / "changed" / "runs", 1, MEMBER, INSIDE)
    write_referenced(tmp_path / "changed" / "runs", 2, MEMBER, INSIDE)
    np.savez(tmp_path / "changed" / "in1.npz", included=other, split=["train"] * N, sample_index=np.arange(N))
    assert "of run1: must be as it was when the stage references has run, got another content" in refused("changed")


def test_the_complement_of_the_target_is_no_reference(tmp_path: Path) -> None:
    inside = np.vstack([INSIDE, 1 - MEMBER])
    made = [a_checkpoint(write_referenced(tmp_path / "runs", step, MEMBER, inside)) for step in (1, 2)]
    assert reference_trajectories(made)["trajectory_references"].shape == (N, 2, K)


def test_a_damaged_store_is_refused(checkpoints: list[Checkpoint], tmp_path: Path) -> None:
    files_in(tmp_path / "store")[0].path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"\.h5"):
        lira_over_steps(checkpoints, level=0.95)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"digests.model.checkpoint": f"{3:064x}"}, "must be of a checkpoint of its own, got .*, of the audited one"),
        ({"model.kwargs": {"num_classes": 20}}, "must be of the training that is audited, got .*, of another one"),
        ({"model.checkpoint": "/w/net-1_9.ckpt"}, "must be of an earlier checkpoint than the audited one, got "),
    ],
)
def test_a_run_that_is_not_of_an_earlier_checkpoint_is_refused(
    changes: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    own = a_checkpoint(write_audit(tmp_path, 3, False, MEMBER))
    wrong = a_checkpoint(write_audit(tmp_path, 2, False, MEMBER, **changes))
    with pytest.raises(InputError, match=rf"^attack\.trajectory\[0\]: {rule}"):
        trajectory_columns(own_config(own, [wrong]), own, ["lr"], {})


def test_runs_are_taken_in_the_order_of_training(tmp_path: Path) -> None:
    made = [a_checkpoint(write_audit(tmp_path, step, False, MEMBER)) for step in (1, 2, 10)]
    found, turned = (
        trajectory_columns(own_config(made[2], runs), made[2], ["lr"], {}) for runs in (made[:2], made[1::-1])
    )
    assert np.array_equal(found["trajectory_phi"], turned["trajectory_phi"])
    losses = np.stack([each.features.loss for each in made], axis=1)
    assert np.array_equal(found["trajectory_loss"], losses)
    assert trajectory_columns(own_config(made[2], made[:2]), made[2], ["threshold_loss"], {}) == {}
    assert trajectory_columns(own_config(made[2], []), made[2], ["lr"], {}) == {}
    twice = own_config(made[2], [made[0], made[0]])
    with pytest.raises(InputError, match=r"\[1\]: must be of a checkpoint of its own, got .*, of that of attack"):
        trajectory_columns(twice, made[2], ["lr"], {})
