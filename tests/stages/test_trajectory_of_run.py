"""Audits with `attack.trajectory`: real ones of imported outputs, whose model is surer of its members by the epoch."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from outputs import a_raw_config

from mia_batch.attacks.features import n_features
from mia_batch.process.exit_codes import OK, run_main
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.features import read_features
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack
from mia_batch.stages.attack import run_attack_stage
from mia_batch.stages.import_outputs import run_import_stage
from mia_batch.stages.reduce import reduce

N, EPOCHS = 240, 3
THRESHOLD = {"method": "threshold_loss"}
LR = {"method": "lr", "params": {"C": [1.0]}}
MEMBER = np.random.default_rng(1).permutation(N) % 2


def write_epoch(folder: Path, epoch: int, *, seed: int = 0, losses: bool = False) -> None:
    rng = np.random.default_rng([seed, epoch])
    label = np.random.default_rng(2).integers(4, size=N)
    logits = rng.normal(size=(N, 4)).astype(np.float32)
    logits[np.arange(N), label] += (2 + epoch * MEMBER).astype(np.float32)
    outputs: dict[str, Any] = {"loss": np.abs(logits[:, 0])} if losses else {"logits": logits}
    np.savez(folder / f"epoch_{epoch}.npz", label=label, member=MEMBER, **outputs)


def audit(folder: Path, epoch: int, earlier: Any, methods: Any = (LR, THRESHOLD)) -> tuple[int, RunPaths]:
    """All stages in this process; its exit code, or that of the first that is not done."""
    raw = a_raw_config(f"epoch_{epoch}.npz")
    raw["gate"] = {"weak_model": True}
    raw["attack"] |= {"methods": list(methods), "backend": "serial", "trajectory": earlier}
    config, out = folder / f"epoch_{epoch}.yaml", folder / "runs" / f"epoch_{epoch}"
    config.write_text(yaml.safe_dump(raw))
    args = Namespace(
        config=str(config), out=str(out), checkpoint=None, changes=[], method=None, junit=None, verbose=False
    )  # fmt: skip
    stop = StopRequest()
    for stage in (run_import_stage, run_attack_stage):
        code = run_main(partial(stage, args, stop))
        if code != OK:
            return code, RunPaths(out)
    return run_main(partial(reduce, args)), RunPaths(out)


@pytest.fixture
def epochs(tmp_path: Path) -> Path:
    """Two audits, and the outputs of a third epoch."""
    for epoch in range(EPOCHS):
        write_epoch(tmp_path, epoch)
    for epoch in range(EPOCHS - 1):
        assert audit(tmp_path, epoch, [])[0] in (0, 3, 4)
    return tmp_path


def test_classifiers_are_told_of_earlier_checkpoints_and_records_of_exposure(epochs: Path) -> None:
    code, paths = audit(epochs, 2, ["runs/epoch_[01]"])
    assert code in (0, 3, 4)
    rows = list(csv.DictReader(paths.records.read_text().splitlines()))
    losses = []
    for epoch in range(EPOCHS):
        features = read_features(RunPaths(epochs / "runs" / f"epoch_{epoch}").features)
        losses.append(features.loss[np.argsort(features.sample_index)])
    naive = np.subtract(*np.quantile(np.stack(losses), [0.75, 0.25], axis=0))
    assert [float(row["lt_iqr"]) for row in rows] == pytest.approx([naive[int(row["sample_index"])] for row in rows])
    alone = RunPaths(epochs / "runs" / "epoch_1")
    assert "lt_iqr" not in alone.records.read_text().splitlines()[0]
    both = [json.loads(each.summary_json.read_text())["methods"]["lr"] for each in (alone, paths)]
    assert both[1]["metrics"]["auc"]["value"] > 0.7
    assert n_features("signals", 4, 3) - n_features("signals", 4) == 6


def test_an_audit_is_stale_where_an_earlier_one_holds_something_else(epochs: Path) -> None:
    earlier = ["runs/epoch_0", "runs/epoch_1"]
    code, paths = audit(epochs, 2, earlier)
    marks = {name: read_attack(paths.attack(name)).provenance["identity"] for name in ("lr", "threshold_loss")}
    scores = read_attack(paths.attack("lr")).scores
    written = {name: paths.attack(name).stat().st_mtime_ns for name in marks}
    assert audit(epochs, 2, earlier)[0] == code
    assert {name: paths.attack(name).stat().st_mtime_ns for name in marks} == written
    for file in (epochs / "runs" / "epoch_0").rglob("*"):
        if file.is_file():
            file.unlink()
    write_epoch(epochs, 0, seed=7)
    audit(epochs, 0, [])
    audit(epochs, 2, earlier)
    assert read_attack(paths.attack("lr")).provenance["identity"] != marks["lr"]
    assert not np.array_equal(read_attack(paths.attack("lr")).scores, scores)
    assert read_attack(paths.attack("threshold_loss")).provenance["identity"] == marks["threshold_loss"]
    assert paths.attack("threshold_loss").stat().st_mtime_ns == written["threshold_loss"]
    audit(epochs, 2, [])
    assert read_attack(paths.attack("lr")).provenance["identity"] not in marks.values()


def test_without_references_lira_over_checkpoints_is_not_run(epochs: Path) -> None:
    methods = [LR, {"method": "lira_trajectory"}]
    _, paths = audit(epochs, 2, ["runs/epoch_0"], methods=methods)
    found = read_attack(paths.attack("lira_trajectory"))
    assert found.not_run
    assert found.reason.startswith("it needs reference models")
    assert "earlier checkpoints (attack.trajectory)" not in found.reason
    _, paths = audit(epochs, 2, [], methods=methods)
    assert "earlier checkpoints (attack.trajectory)" in read_attack(paths.attack("lira_trajectory")).reason


@pytest.mark.parametrize(
    ("earlier", "rule"),
    [
        (["runs/nowhere"], "attack.trajectory[0]: must be the directory of a run whose rows are all done, got "),
        (["runs/none_*"], "attack.trajectory: must match a file, none matches runs/none_*"),
        (["runs/epoch_0", "runs/epoch_0"], "attack.trajectory[1]: must be of a checkpoint of its own, got "),
        ("runs/epoch_0", "attack.trajectory: must be a list of run directories, which may be globs, got"),
    ],
)
def test_what_is_no_earlier_audit_is_refused_in_one_line(
    earlier: Any, rule: str, epochs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, _ = audit(epochs, 2, earlier)
    said = [line for line in capsys.readouterr().err.splitlines() if "attack.trajectory" in line]
    assert code == 2
    assert len(said) == 1
    assert rule in said[0]


def test_an_audit_of_losses_alone_is_no_earlier_one_of_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_epoch(tmp_path, 0, losses=True)
    audit(tmp_path, 0, [], methods=[THRESHOLD])
    write_epoch(tmp_path, 1)
    capsys.readouterr()
    assert audit(tmp_path, 1, ["runs/epoch_0"])[0] == 2
    assert "logits: must be there as those of epoch_1 are, got losses alone" in capsys.readouterr().err
