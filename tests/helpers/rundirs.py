"""Run directories as the stages leave them, without running anything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from running import REPO

from mia_batch.attacks.base import BLIND, AttackResult
from mia_batch.rundir.features import FeatureStore, block_dtype
from mia_batch.rundir.identity import attack_digest, features_digest
from mia_batch.rundir.manifest import Manifest, write_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import write_attack

BEFORE = REPO / "tests" / "report" / "files" / "summary_0_1.json"
N = 20  # rows: the first half are members
METHODS = ("lr", "knn")


def a_config(**changes: Any) -> dict[str, Any]:
    """The resolved config of a run of two attacks, with changes such as {"attack.seed": 2}."""
    methods = [{"method": "lr", "params": {"C": [0.1, 1.0]}}, {"method": "knn", "params": {"n_neighbors": [3, 5]}}]
    config: dict[str, Any] = {
        "model": {"factory": "mia_batch.models.vgg:vgg11", "kwargs": {"num_classes": 10}, "checkpoint": "/w/n.ckpt"},
        "data": {
            "source": "cifar100", "path": "/data", "kwargs": {}, "label": "fine", "image_size": [32, 32],
            "mean": [0.4465, 0.4822, 0.4914], "std": [0.201, 0.1994, 0.2023], "augment_members": False,
            "members": [{"split": "train", "num_samples": None, "range": None, "indices": None}],
            "nonmembers": [{"split": "test", "num_samples": None, "range": None, "indices": None}],
        },
        "extract": {"device": "auto", "batch_size": 64},
        "attack": {
            "seed": 1, "eval_fraction": 0.2, "cv": 3, "features": "logits_loss", "search": "shared", "n_iter": 10,
            "memory_gib": 4.0, "backend": "loky", "scheduler": None, "methods": methods,
        },
        "report": {"metrics": ["precision", "accuracy", "recall"]},
        "gate": {
            "rule": "all_above", "threshold": 0.6, "metrics": ["accuracy", "precision", "recall"], "bound": "point"
        },
        "train": {"epochs": 100, "learning_rate": 0.1},
    }  # fmt: skip
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        target = config
        for section in sections:
            target = target[int(section) if isinstance(target, list) else section]
        target[key] = value
    return config


def a_manifest(*, created: str = "2030-01-01T01:00:00+00:00", **changes: Any) -> Manifest:
    """A run of `a_config(**changes)`; a change "digests.FIELD" is of a file's content."""
    digests = {"model.checkpoint": "1" * 64, "data:train.bin": "2" * 64, "data:test.bin": "3" * 64}
    for name in [name for name in changes if name.startswith("digests.")]:
        digests[name.removeprefix("digests.")] = changes.pop(name)
    return Manifest(
        created=created, config_file="/c.yaml", config=a_config(**changes), digests=digests, versions={"python": "3"}
    )


def make_run(paths: RunPaths, manifest: Manifest) -> RunPaths:
    """A run directory with run.json alone."""
    paths.create()
    write_manifest(paths, manifest)
    return paths


def write_rows(paths: RunPaths, manifest: Manifest, *, done: int = N, total: int = N, **attrs: Any) -> None:
    """features.h5 with so many rows done; `attrs` instead of what this version writes to say whose it is."""
    columns = {
        "sample_index": np.arange(total), "split": np.array(["train"] * total), "label": np.zeros(total),
        "member": np.repeat([1, 0], [total // 2, total - total // 2]), "group": np.full(total, -1),
    }  # fmt: skip
    rows = np.zeros(done, dtype=block_dtype(10))
    rows["row"] = np.arange(done)
    rows["content"][:, 0] = np.arange(done)
    whose = attrs or {"identity": features_digest(manifest)}
    origin = {"config": manifest.config, "digests": manifest.digests, "versions": manifest.versions}
    with FeatureStore.create(paths.features, columns, 10, {**origin, **whose}) as store:
        if done:
            store.write(rows)


@contextmanager
def a_writer(paths: RunPaths) -> Iterator[None]:
    """Another process has features.h5 open to write."""
    code = """
import sys, pathlib
from mia_batch.rundir.features import FeatureStore
with FeatureStore(pathlib.Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(paths.features)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        yield
        writer.communicate("")


def write_result(paths: RunPaths, manifest: Manifest, name: str, **provenance: Any) -> None:
    """attacks/<name>.h5; `provenance` instead of what this version writes to say whose it is."""
    evaluated = np.arange(N) % 5 == 0
    write_attack(paths.attack(name), AttackResult(
        method=name,
        scores=np.where(evaluated, 0.5, np.nan),
        predicted=np.where(evaluated, 1, -1).astype(np.int8),
        scored_by=np.where(evaluated, 0, -1).astype(np.int32),
        member=np.repeat([1, 0], N // 2).astype(np.int8),
        best_params={},
        best_score=0.5,
        cv_results={"params": ["{}"], "mean_test_score": [0.5]},
        provenance=provenance or {"identity": attack_digest(manifest, name)},
    ))  # fmt: skip


def write_verdict(
    paths: RunPaths, manifest: Manifest, *, leak: bool | None = False, auc: float | None = 0.5
) -> None:
    """summary.json of the version before, with this verdict (None: inconclusive), highest AUC and accuracy."""
    summary = json.loads(BEFORE.read_text())
    summary["verdict"] |= {"leak": leak, "sentence": "Said."}
    summary["methods"] = {name: summary["methods"][name] for name in ("lr", "rf")}
    for method, value in zip(summary["methods"].values(), (None, auc), strict=True):
        reason = "no value" if value is None else None
        method["metrics"] |= {
            name: {"value": value, "low": value, "high": value, "reason": reason} for name in ("auc", "accuracy")
        }
    summary["provenance"] = manifest.as_json()
    paths.summary_json.write_text(json.dumps(summary))


def finish(paths: RunPaths, manifest: Manifest) -> None:
    """Everything that is not there: as if the run had ended."""
    if not paths.features.exists():
        write_rows(paths, manifest)
    for name in (*manifest.methods, BLIND):
        write_result(paths, manifest, name)
    write_verdict(paths, manifest)


def one_entry(name: bytes) -> bytes:
    """A checkpoint of one scalar of this name, of one byte."""
    tensor = b"\x12\x05UInt8\x1a\x01\x00"
    value = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(tensor)]) + tensor
    return b"\x0a" + bytes([len(value)]) + value
