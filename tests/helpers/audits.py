"""Small real audits for the cluster: a network that compiles fast, and a data source that is slow and keeps count."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from minicluster import MiniCluster

from mia_batch.stages.plan import looked_at
from mia_batch.stages.trial import draw

BIN = Path(sys.prefix) / "bin"
ROWS = 128  # of each split
BATCH = 8

CODE = '''
import os, time
import numpy as np

def build(num_classes=10):
    from mindspore import nn
    os.write(2, b"what a library says\\n")
    return nn.SequentialCell(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dense(256, num_classes)
    )

class Images:
    """`n` images that differ, each noted in the file `log`, and read in as many seconds as the file `pace` says.

    In a job of Slurm's it is the file with the job's name behind, where there is one.
    """

    def __init__(self, split, n, pace, log):
        self.split, self.n, self.pace, self.log = split, n, pace, log
        self.labels = np.arange(n) % 10

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        of_job = f"{self.pace}.{os.environ.get('SLURM_JOB_NAME')}"
        with open(of_job if os.path.exists(of_job) else self.pace) as file:
            time.sleep(float(file.read() or 0))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{self.split} {i}\\n".encode())
        os.close(descriptor)
        shift = 40 * (self.split == "train")
        return np.random.default_rng(i).integers(shift, 216 + shift, (32, 32, 3), dtype=np.uint8), i % 10

def make(split, n, pace, log):
    return Images(split, n, pace, log)

def save(folder, count):
    import mindspore as ms
    for seed in range(count):
        ms.set_seed(seed)
        ms.save_checkpoint(build(), f"{folder}/net{seed:02d}.ckpt")
'''


def write_checkpoints(folder: Path, count: int) -> list[Path]:
    """`count` checkpoints of different weights, and `audited.py` with their network and the data source."""
    (folder / "audited.py").write_text(CODE)
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import audited; audited.save(sys.argv[1], {count})"
    subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, timeout=120)
    return sorted(folder.glob("*.ckpt"))


LR = {"method": "lr", "params": {"C": [0.1, 1.0]}}
KNN = {"method": "knn", "params": {"n_neighbors": [3, 5]}}
RF = {"method": "rf", "params": {"n_estimators": [300], "min_samples_leaf": [1, 2, 3, 4, 5, 6, 7, 8]}}  # takes seconds


@dataclass(frozen=True)
class Audit:
    """A config whose data is read at a chosen speed."""

    config: Path
    reads: Path

    @staticmethod
    def write(
        folder: Path, checkpoint: Path, *, delay: float = 0.0, methods: Sequence[dict[str, Any]] = (LR, KNN)
    ) -> Audit:
        """Write the config to `folder`."""
        audit = Audit(folder / "config.yaml", folder / "reads")
        audit.set_pace(delay)
        code = checkpoint.with_name("audited.py")
        kwargs = {"n": ROWS, "pace": str(folder / "pace"), "log": str(audit.reads)}
        sides = {"members": {"split": "train"}, "nonmembers": {"split": "test"}}
        raw = {
            "model": {"factory": f"{code}:build", "checkpoint": str(checkpoint)},
            "data": {"source": f"{code}:make", "kwargs": kwargs} | sides,
            "extract": {"device": "CPU", "batch_size": BATCH},
            "attack": {"cv": 2, "methods": list(methods)}, "gate": {"weak_model": True},
        }  # fmt: skip
        audit.config.write_text(yaml.safe_dump(raw))
        return audit

    def set_pace(self, delay: float, stage: str = "") -> None:
        """From now on a sample is read in `delay` seconds, by the jobs of a stage or by all that have no own pace."""
        self.config.with_name(f"pace.mia-{stage}" if stage else "pace").write_text(str(delay))

    def rows_read(self) -> list[str]:
        """Every row as often as it was read."""
        return self.reads.read_text().splitlines() if self.reads.exists() else []

    def read_more_than_once(self) -> int:
        """How often a row was read that had been read before, those aside that are looked at first."""
        split = np.repeat(["train", "test"], ROWS)
        aside = {f"{split[row]} {row % ROWS}" for rows in looked_at(split) for row in rows}
        aside |= {f"{split[row]} {row % ROWS}" for row in draw(split == "train", BATCH)}  # extract tries the network
        rows = [row for row in self.rows_read() if row not in aside]
        assert len(set(rows)) == 2 * ROWS - len(aside)
        return len(rows) - len(set(rows))


def write_site(path: Path, *, launcher: str = "mpirun", nodes: int = 2, per_node: int = 1) -> Path:
    """A site file for the mini-cluster."""
    site = {
        "source": [str(BIN / "activate")], "python": "python", "launcher": launcher,
        "extract": {"nodes": nodes, "tasks_per_node": per_node}, "attack": {"cpus_per_task": 1},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(site))
    return path


def mia_batch(
    cluster: MiniCluster, command: str, *argv: str | Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a sub-command of mia-batch as a client of the cluster."""
    return cluster.run(BIN / "mia-batch", command, *argv, check=check)


def submit(cluster: MiniCluster, *argv: str | Path) -> dict[str, str]:
    """Submit an audit; its job ids by stage."""
    line = mia_batch(cluster, "submit", *argv, "--json").stdout
    return {stage: str(job) for stage, job in json.loads(line)["jobs"].items()}


def extracted(run: Path) -> dict[str, Any]:
    """The data sets of features.h5, all rows done."""
    with h5py.File(run / "features.h5") as file:
        columns = {name: file[name][:] for name in file}
    assert columns["done"].all()
    return columns


def same_features(run: Path, other: Path) -> bool:
    """Whether two runs have bit-identical features."""
    ours, theirs = extracted(run), extracted(other)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def status(cluster: MiniCluster, run: Path) -> dict[str, dict[str, str]]:
    """What mia-batch says of each stage of a run."""
    said = json.loads(mia_batch(cluster, "status", run, "--json").stdout)
    return {stage["stage"]: stage for stage in said["stages"]}


def metrics(run: Path) -> dict[str, Any]:
    """Metrics of every method."""
    methods = json.loads((run / "summary.json").read_text())["methods"]
    return {name: found["metrics"] for name, found in methods.items()}
