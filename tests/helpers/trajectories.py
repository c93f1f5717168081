"""Audits of the checkpoints of one training run, as they leave their directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rundirs import a_manifest, make_run, write_verdict

from mia_batch.rundir.features import FeatureStore, block_dtype
from mia_batch.rundir.identity import features_digest
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.signals import loss

CLASSES = 10


def some_logits(member: np.ndarray, *, seed: int) -> np.ndarray:
    """float32, of label 0: a network that is surer of its members by 1."""
    logits = np.random.default_rng(seed).normal(size=(len(member), CLASSES)).astype(np.float32)
    logits[:, 0] += np.float32(2) + member.astype(np.float32)
    return logits


def write_audit(
    runs: Path, step: int, outcome: bool | str | None, member: np.ndarray, *, accuracy: float = 0.55,
    rows: dict[str, np.ndarray] | None = None, **changes: Any,
) -> RunPaths:  # fmt: skip
    """The audit of net-1_STEP.ckpt, made on that day; `outcome` None has no verdict.

    `rows` are columns of features.h5 other than those of samples 0, 1, ... of split train; members are put first.
    """
    manifest = a_manifest(
        created=f"2030-01-{step:02d}T01:00:00+00:00",
        **{"model.checkpoint": f"/w/net-1_{step}.ckpt", "digests.model.checkpoint": f"{step:064x}"} | changes,
    )
    paths = make_run(RunPaths(runs / f"run{step}"), manifest)
    write_samples(paths, manifest, member, some_logits(member, seed=step), rows or {})
    if outcome is not None:
        write_verdict(paths, manifest, leak=outcome if isinstance(outcome, bool) else None)
        summary = json.loads(paths.summary_json.read_text())
        interval = {"value": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.04, "reason": None}
        none = {"value": None, "low": None, "high": None, "reason": "no value"}
        for method, numbers in (("lr", none), ("rf", interval)):
            summary["methods"][method]["metrics"]["balanced_accuracy"] = numbers
        paths.summary_json.write_text(json.dumps(summary))
    return paths


def write_samples(
    paths: RunPaths, manifest: Manifest, member: np.ndarray, logits: np.ndarray, rows: dict[str, np.ndarray]
) -> None:
    """features.h5, members first."""
    n = len(member)
    columns = {
        "sample_index": np.arange(n), "split": np.array(["train"] * n), "label": np.zeros(n, dtype=np.int32),
        "group": np.full(n, -1), "content": np.arange(n),
    } | rows  # fmt: skip
    order = np.argsort(-member, kind="stable")
    block = np.zeros(n, dtype=block_dtype(CLASSES))
    block["row"], block["content"][:, 0] = np.arange(n), columns.pop("content")[order]
    block["logits"], block["loss"] = logits[order], loss(logits, columns["label"])[order]
    known = {name: column[order] for name, column in (columns | {"member": member}).items()}
    attrs = {"config": manifest.config, "digests": manifest.digests, "identity": features_digest(manifest)}
    with FeatureStore.create(paths.features, known, CLASSES, attrs) as store:
        store.write(block)
