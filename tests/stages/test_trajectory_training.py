"""A target and references that are really trained: audits of two of their epochs, joined in an audit and by step."""

from __future__ import annotations

import csv
import json
import runpy
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import run_job
from trainings import write_config, write_training

ms = pytest.importorskip("mindspore")

from mindspore import nn  # noqa: E402

from mia_batch.cli import main  # noqa: E402
from mia_batch.network.preprocess import Preprocess  # noqa: E402
from mia_batch.process.exit_codes import OK, run_main  # noqa: E402
from mia_batch.process.stop import StopRequest  # noqa: E402
from mia_batch.rundir.features import read_features  # noqa: E402
from mia_batch.rundir.manifest import read_manifest  # noqa: E402
from mia_batch.rundir.paths import RunPaths  # noqa: E402
from mia_batch.rundir.results import read_attack  # noqa: E402
from mia_batch.settings.loading import load_config  # noqa: E402
from mia_batch.signals import phi  # noqa: E402
from mia_batch.stages.attack import run_attack_stage  # noqa: E402
from mia_batch.stages.reduce import reduce  # noqa: E402
from mia_batch.stages.trajectory_columns import Checkpoint, reference_trajectories  # noqa: E402

N, PAIRS = 42, 2  # records of each split, pairs of references
EPOCHS, STEPS = (2, 12), 2  # which epochs are audited, steps of each


def train_models(folder: Path, inside: np.ndarray) -> None:
    """Checkpoints of a model for each row of `inside` at each epoch, and what it says of every sample then."""
    data = load_config(folder / "config.yaml", need=("data",)).data
    files = [np.fromfile(folder / f"{split}.bin", np.uint8).reshape(N, 3074) for split in ("train", "test")]
    records = np.concatenate(files)
    images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    images = np.stack(list(Preprocess(data.image_size, data.mean, data.std).resize(images))) / 255
    x = ((images - data.mean) / data.std).transpose(0, 3, 1, 2).astype(np.float32)
    y = records[:, 1].astype(np.int32)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # whatever tests before have left
    build = runpy.run_path(str(folder / "net.py"))["build"]
    for k, chosen in enumerate(inside == 1):
        ms.set_seed(k)
        name, network = f"ref{k}" if k else "net", build()
        loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
        step = nn.TrainOneStepCell(loss, nn.Momentum(network.trainable_params(), 0.1, 0.9))
        for epoch in range(1, EPOCHS[-1] + 1):
            step.set_train()
            for _ in range(STEPS):
                step(ms.Tensor(x[chosen]), ms.Tensor(y[chosen]))
            if epoch in EPOCHS:
                network.set_train(False)
                np.save(folder / f"{name}-{epoch}.npy", network(ms.Tensor(x)).asnumpy())
                ms.save_checkpoint(network, str(folder / f"{name}-{epoch}_{STEPS * epoch}.ckpt"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A target that is trained on one split, and references in pairs by coins."""
    write_training(tmp_path)
    coins = np.random.default_rng(3).integers(0, 2, (PAIRS, 2 * N))
    references = np.stack([coins, 1 - coins], axis=1).reshape(-1, 2 * N)
    split, sample_index = np.repeat(["train", "test"], N), np.tile(np.arange(N), 2)
    np.savez(tmp_path / "in.npz", included=references, split=split, sample_index=sample_index)
    train_models(tmp_path, np.vstack([np.repeat([1, 0], N), references]))
    return tmp_path


def audit(folder: Path, epoch: int, methods: list[str], earlier: list[str]) -> RunPaths:
    """Its network runs in processes of their own, the rest here."""
    config = write_config(
        folder, f"audit_{epoch}.yaml",
        model={"checkpoint": f"net-{epoch}_{STEPS * epoch}.ckpt"},
        references={"checkpoints": [f"ref*-{epoch}_*.ckpt"], "inclusion": "in.npz"},
        attack={"methods": [{"method": name} for name in methods], "backend": "serial", "trajectory": earlier},
        gate={"weak_model": True},
    )  # fmt: skip
    run = RunPaths(folder / "runs" / f"epoch_{epoch}")
    for stage in ("extract", "references"):
        done = run_job(stage, config, "--out", run.root)
        assert done.returncode == OK, done.stderr
    args = Namespace(
        config=str(config), out=str(run.root), checkpoint=None, changes=[], method=None, junit=None, verbose=False
    )  # fmt: skip
    assert run_main(partial(run_attack_stage, args, StopRequest())) == OK
    assert run_main(partial(reduce, args)) in (0, 3, 4)
    return run


def opened(run: RunPaths) -> Checkpoint:
    manifest = read_manifest(run)
    assert manifest is not None
    return Checkpoint(run, manifest, read_features(run.features))


def answers_when_trained(folder: Path, own: Checkpoint, name: str) -> np.ndarray:
    """Phi of a model at each epoch as its training saw it, in the order of an audit, (n_samples, n_epochs)."""
    rows = own.features.sample_index + N * (own.features.split == "test")
    logits = [np.load(folder / f"{name}-{epoch}.npy")[rows] for epoch in EPOCHS]
    assert own.features.label is not None
    return np.stack([phi(each, own.features.label) for each in logits], axis=1)


@pytest.mark.slow
def test_two_epochs_of_a_training_with_references_of_each(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        audit(trained, EPOCHS[0], ["threshold_loss"], []),
        audit(trained, EPOCHS[1], ["lira_fixed", "lira_trajectory"], [f"runs/epoch_{EPOCHS[0]}"]),
    ]
    first, last = map(opened, runs)
    asked = reference_trajectories([first, last])["trajectory_references"]
    naive = [answers_when_trained(trained, last, f"ref{k}") for k in range(1, 2 * PAIRS + 1)]
    np.testing.assert_allclose(asked, np.stack(naive, axis=2), rtol=1e-3, atol=1e-4)

    of_audit: dict[str, Any] = json.loads(runs[1].summary_json.read_text())["methods"]["lira_trajectory"]
    assert not read_attack(runs[1].attack("lira_trajectory")).reason
    assert of_audit["metrics"]["auc"]["low"] > 0.5
    capsys.readouterr()
    assert main(["trajectory", str(trained / "runs"), "--json", "--csv", str(trained / "records.csv")]) in (0, 3, 4)
    found = json.loads(capsys.readouterr().out)
    assert [step["run"] for step in found["steps"]] == [run.root.name for run in runs]
    assert [step["step"] for step in found["steps"]] == [f"{epoch} {STEPS * epoch}" for epoch in EPOCHS]
    assert found["lira"]["reason"] is None
    assert (found["lira"]["n_members"], found["lira"]["n_nonmembers"]) == (N, N)
    assert found["lira"]["auc"] == pytest.approx(of_audit["metrics"]["auc"])
    rows = list(csv.DictReader((trained / "records.csv").read_text().splitlines()))
    assert len(rows) == 2 * N
    by_sample = {(each["split"], int(each["index"])): float(each["lt_iqr"]) for each in rows}
    for row, change in enumerate(np.abs(first.features.loss - last.features.loss)):  # the runs have one order
        sample = str(last.features.split[row]), int(last.features.sample_index[row])
        assert by_sample[sample] == pytest.approx(change / 2, abs=1e-6)
