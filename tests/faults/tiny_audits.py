"""Two audits so small that a stage takes a second: of outputs in a file, and of a network with its own references."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from outputs import made_up, write_npz

CODE = '''
import numpy as np

def build(num_classes=4):
    from mindspore import nn
    return nn.SequentialCell(nn.Dense(8, 16), nn.ReLU(), nn.Dense(16, num_classes))

class Rows:
    """`n` vectors of four classes; those of one split differ from those of the other."""
    def __init__(self, split, n):
        rng = np.random.default_rng(split == "train")
        self.labels = rng.integers(4, size=n).astype(np.int32)
        self.x = (rng.normal(size=(n, 8)) + np.eye(8)[self.labels]).astype(np.float32)
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, i):
        return self.x[i], int(self.labels[i])

def make(split, n):
    return Rows(split, n)
'''
N_MODELS = 2
VERDICTS = (0, 3, 4)
OF_THE_RUN = {  # keys that say when, where and by whom something was made, or how long it took; the page says all that
    "checkpoint", "content_sha256", "created", "epochs_timed", "forward_seconds", "launch", "launches", "memory",
    "modified", "n_jobs", "seconds", "tasks", "versions", "mean_fit_time", "std_fit_time",
    "mean_score_time", "std_score_time", "report.html",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A job of `jobs/`, its words, and the exit codes with which it is done."""

    name: str
    job: str
    words: tuple[str, ...]
    done: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class TinyAudit:
    """Files of an audit in a folder, and its stages in order."""

    name: str
    folder: Path
    stages: tuple[Stage, ...]

    @property
    def config(self) -> Path:
        return self.folder / "audit.yaml"


def _stage(name: str, folder: Path, *words: str, done: tuple[int, ...] = (0,), out: str = "run") -> Stage:
    return Stage(name, name.partition(" ")[0], (str(folder / "audit.yaml"), f"--out={folder / out}", *words), done)


def _last(folder: Path) -> tuple[Stage, ...]:
    return _stage("attack", folder), _stage("reduce", folder, done=VERDICTS)


def of_outputs(folder: Path, backend: str) -> TinyAudit:
    """An audit of a file of outputs."""
    folder.mkdir(parents=True)
    write_npz(folder / "outputs", made_up(90))
    attack = {"cv": 2, "backend": backend, "methods": [{"method": "threshold_loss"}, _lr()]}
    _write(folder, {"data": {"source": "outputs", "files": "outputs.npz"}, "attack": attack})
    return TinyAudit("outputs", folder, (_stage("import_outputs", folder), *_last(folder)))


def of_network(folder: Path, backend: str) -> TinyAudit:
    """An audit of a network by MindSpore with two references; who makes it plans and trains them, see `TRAINED`."""
    folder.mkdir(parents=True)
    (folder / "tiny_net.py").write_text(CODE)
    methods = [{"method": "threshold_loss"}, _lr(), {"method": "log_ratio"}]
    sides = {"members": {"split": "train"}, "nonmembers": {"split": "test"}}
    _write(folder, {
        "model": {"factory": "tiny_net.py:build", "checkpoint": "net.ckpt"},
        "data": {"source": "tiny_net.py:make", "kwargs": {"n": 48}, "preprocess": "none", **sides},
        "extract": {"device": "CPU", "batch_size": 8}, "gate": {"weak_model": True},
        "references": {"shadows": "shadows", "count": N_MODELS, "store": "store"},
        "train": {"epochs": 3, "batch_size": 16, "checkpoint_every": 1},
        "attack": {"cv": 2, "backend": backend, "methods": methods},
    })  # fmt: skip
    models = [_stage(f"shadows {i}", folder, f"--only={i}", "--quiet", out="shadows") for i in range(N_MODELS)]
    train = Stage("train", "train", (str(folder / "audit.yaml"),))
    return TinyAudit("network", folder, (train, *models, _stage("extract", folder), _stage("references", folder),
                                         *_last(folder)))  # fmt: skip


def _lr() -> dict[str, Any]:
    return {"method": "lr", "params": {"C": [0.1, 1.0]}}


def _write(folder: Path, raw: dict[str, Any]) -> None:
    (folder / "audit.yaml").write_text(yaml.safe_dump(raw))


def left_by(folder: Path) -> dict[str, Any]:
    """What an audit has found, by file: data sets of features, attacks and stores, weights, figures, records."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if name.startswith(".") or "/." in name:  # what a failing disk has not let go
            continue
        if path.suffix == ".h5":
            found[name] = _datasets(path)
        elif path.suffix == ".ckpt":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".json":
            found[name] = _of_any_run(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            found[name] = list(csv.reader(path.read_text().splitlines()))
    return found


def _datasets(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def take(name: str, each: Any) -> None:
        last = name.rpartition("/")[2]
        if isinstance(each, h5py.Dataset) and last not in OF_THE_RUN and not name.startswith(("attrs/", "seal")):
            found[name] = np.asarray(each[()]).tolist() if each.dtype.kind == "O" else _digest(each[()])

    with h5py.File(path) as file:
        file.visititems(take)
        attrs = {name: json.loads(text) for name, text in file.attrs.items() if not name.startswith("seal")}
    if "digests" in attrs:  # of references it has those that were trained when the run was planned; run.json has all
        attrs["digests"] = {key: each for key, each in attrs["digests"].items() if not key.startswith("references.")}
    return {**found, **_of_any_run(attrs)}


def _digest(values: Any) -> str:
    array = np.ascontiguousarray(values)
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"


def _of_any_run(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _of_any_run(item) for key, item in value.items() if key not in OF_THE_RUN}
    return [_of_any_run(item) for item in value] if isinstance(value, list) else value


def differing(found: Any, wanted: Any, where: str = "") -> list[str]:
    """What is missing, is there besides, or is something else: files, data sets, keys."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted(found.keys() | wanted.keys())
        return [each for name in names for each in differing(found.get(name), wanted.get(name), f"{where}/{name}")]
    return [] if found == wanted else [f"{where}: {str(found)[:100]} instead of {str(wanted)[:100]}"]
