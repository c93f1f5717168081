"""Audits of the checkpoints of one training run, as they leave their directories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rundirs import a_manifest, make_run, write_verdict

from mia_batch.files import sha256
from mia_batch.rundir.features import FeatureStore, block_dtype, read_features
from mia_batch.rundir.identity import features_digest
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_store import ReferenceStore, StoredSamples, make_store, reference_paths, row_dtype
from mia_batch.signals import loss

CLASSES = 10


def some_logits(member: np.ndarray, *, seed: int) -> np.ndarray:
    """float32, of label 0: a network that is surer of its members by 1."""
    logits = np.random.default_rng(seed).normal(size=(len(member), CLASSES)).astype(np.float32)
    logits[:, 0] += np.float32(2) + member.astype(np.float32)
    return logits


def write_audit(
    runs: Path, step: int, outcome: bool | str | None, member: np.ndarray, *, accuracy: float = 0.55,
    rows: dict[str, np.ndarray] | None = None, logits: np.ndarray | None = None, **changes: Any,
) -> RunPaths:  # fmt: skip
    """The audit of net-1_STEP.ckpt, made on that day; `outcome` None has no verdict.

    `rows` are columns of features.h5 other than those of samples 0, 1, ... of split train; members are put first.
    `logits` are those of `some_logits` where none are given.
    """
    manifest = a_manifest(
        created=f"2030-01-{step:02d}T01:00:00+00:00",
        **{"model.checkpoint": f"/w/net-1_{step}.ckpt", "digests.model.checkpoint": f"{step:064x}"} | changes,
    )
    paths = make_run(RunPaths(runs / f"run{step}"), manifest)
    write_samples(paths, manifest, member, some_logits(member, seed=step) if logits is None else logits, rows or {})
    if outcome is not None:
        write_verdict(paths, manifest, leak=outcome if isinstance(outcome, bool) else None)
        summary = json.loads(paths.summary_json.read_text())
        interval = {"value": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.04, "reason": None}
        none = {"value": None, "low": None, "high": None, "reason": "no value"}
        for method, numbers in (("lr", none), ("rf", interval)):
            summary["methods"][method]["metrics"]["balanced_accuracy"] = numbers
        paths.summary_json.write_text(json.dumps(summary))
    return paths


def write_referenced(
    runs: Path, step: int, member: np.ndarray, inside: np.ndarray, *, weights: int | None = None, shift: float = 0.5,
    stored: bool = True, outcome: bool = False, answers: list[np.ndarray] | None = None, **changes: Any,
) -> RunPaths:  # fmt: skip
    """The audit of a step, with references of the same step, and their outputs in a store.

    Target and references are surer by `shift * step` of what they were trained on, in a noise that steps share.

    Args:
        runs: directory of the runs; the store and the inclusion file are beside it.
        step: of the checkpoint.
        member: of the target, (n,).
        inside: of the references, (n_references, n).
        weights: what the references' digests are made of, instead of the step.
        shift: 0 of models that leak nothing.
        stored: whether the outputs are in the store.
        outcome: leak or not.
        answers: logits of the target and of each reference, instead of made-up ones.
        changes: of the config.
    """
    inclusion, named = runs.parent / f"in{step}.npz", "digests.references.checkpoints"
    runs.parent.mkdir(exist_ok=True)
    np.savez(inclusion, included=inside, split=np.array(["train"] * len(member)), sample_index=np.arange(len(member)))
    files = [f"/w/ref{k}-1_{step}.ckpt" for k in range(len(inside))]
    section = {"checkpoints": files, "inclusion": str(inclusion), "store": str(runs.parent / "store"),
               "logits": "float32", "group": None, "queries": None}  # fmt: skip
    digests = {f"{named}[{k}]": f"{1000 * (weights or step) + k:064x}" for k in range(len(inside))}
    digests["digests.references.inclusion"] = sha256(inclusion)
    logits = answers or [_made_up(each, seed=k, step=step, shift=shift) for k, each in enumerate([member, *inside])]
    paths = write_audit(runs, step, outcome, member, logits=logits[0], **{"references": section} | digests | changes)
    manifest, features = read_manifest(paths), read_features(paths.features)
    assert manifest is not None
    assert features.content is not None
    assert features.label is not None
    samples = StoredSamples(features.split, features.sample_index, features.label)
    for where, answers in zip(reference_paths(manifest, samples).values(), logits[1:], strict=True):
        if stored and not where.outputs.exists():
            _write_answers(where, samples, features.content, answers)
    return paths


def _made_up(inside: np.ndarray, *, seed: int, step: int, shift: float) -> np.ndarray:
    hard, own = np.random.default_rng(99), np.random.default_rng(seed)
    logits = (own.normal(size=(len(inside), CLASSES)) + np.random.default_rng([seed, step]).normal(
        size=(len(inside), CLASSES)) / 2).astype(np.float32)  # fmt: skip
    logits[:, 0] += (2 + hard.normal(size=len(inside)) + shift * step * inside).astype(np.float32)
    return logits


def trained_answers(inside: np.ndarray, label: np.ndarray, epochs: Sequence[int]) -> list[list[np.ndarray]]:
    """By epoch the logits of models that are really trained: softmax regressions of more numbers than samples.

    Args:
        inside: which samples each model is trained on, (n_models, n).
        label: true classes, (n,).
        epochs: when to ask, ascending.
    """
    rng = np.random.default_rng(11)
    X, Y = rng.normal(size=(len(label), 2 * len(label))) / 20, np.eye(CLASSES)[label]
    found: list[list[np.ndarray]] = [[] for _ in epochs]
    for chosen in inside == 1:
        W = rng.normal(size=(X.shape[1], CLASSES)) / 2
        for epoch in range(1, epochs[-1] + 1):
            z = X[chosen] @ W
            p = np.exp(z - z.max(axis=1, keepdims=True))
            W -= 0.05 * X[chosen].T @ (p / p.sum(axis=1, keepdims=True) - Y[chosen])
            if epoch in epochs:
                found[epochs.index(epoch)].append((X @ W).astype(np.float32))
    return found


def _write_answers(where: ReferencePaths, samples: StoredSamples, content: np.ndarray, logits: np.ndarray) -> None:
    """`logits` by the samples' index, as the store has them."""
    make_store(where.outputs.parent, None)
    sent = row_dtype(CLASSES, n_queries=1, logits="float32")
    block = np.zeros(len(logits), dtype=sent)
    block["row"], block["content"] = np.arange(len(logits)), content[samples.order]
    block["logits"][:, 0] = logits[samples.sample_index[samples.order]]
    store = ReferenceStore.create(where, samples, sent, {"versions": {}})
    store.write(block)
    store.finish(where)


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
