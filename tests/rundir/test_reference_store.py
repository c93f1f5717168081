"""The store of references' outputs: keyed by content, in an order of its own, read in blocks."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import change_and_seal
from reference_memory import measured
from reference_runs import Difference
from rundirs import a_manifest

from mia_batch.attacks.registry import ATTACKS
from mia_batch.errors import InputError
from mia_batch.rundir.identity import attack_identity, verdict_identity
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_store import (
    ReferenceStore,
    StoredSamples,
    files_in,
    make_store,
    read_phi,
    reference_paths,
    row_dtype,
    rows_done,
)
from mia_batch.signals import phi

N, C, Q = 30, 5, 2
SECTION = {
    "checkpoints": ["/w/a.ckpt", "/w/b.ckpt"], "inclusion": "/w/in.npy", "store": "/s", "logits": "float32",
    "group": None, "queries": None,
}  # fmt: skip
OF_REFERENCES = {
    "references.checkpoints[0]": "a" * 64, "references.checkpoints[1]": "b" * 64, "references.inclusion": "c" * 64,
}  # fmt: skip


def manifest(references: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """A run with two references; more of the section, and changes as of `a_manifest`."""
    found = a_manifest(**changes)
    section = {"references": SECTION | (references or {})}
    return found.model_copy(update={"config": found.config | section, "digests": OF_REFERENCES | found.digests})


def samples(seed: int = 1, n: int = N) -> StoredSamples:
    """Samples of two splits, in an order that `seed` decides."""
    order = np.random.default_rng(seed).permutation(n)
    split, index = np.repeat(["train", "test"], n // 2), np.tile(np.arange(n // 2), 2)
    return StoredSamples(split[order], index[order], (np.arange(n) % C).astype(np.int32)[order])


def keys(manifest: Manifest, of: StoredSamples | None = None) -> list[str]:
    return [paths.key for paths in reference_paths(manifest, of or samples()).values()]


def test_the_key_does_not_depend_on_the_target_nor_on_names() -> None:
    wanted = keys(manifest())
    assert len(set(wanted)) == 2
    for other in (
        manifest(**{"digests.model.checkpoint": "9" * 64}),
        manifest(**{"data.members": [{"split": "test", "num_samples": 3, "range": None, "indices": None}]}),
        manifest(**{"attack.seed": 7, "data.path": "/elsewhere"}),
        manifest({"checkpoints": ["/x/1", "/x/2"], "store": "/t", "group": "staff", "inclusion": "/y"}),
        manifest(**{"digests.data.members[0].indices": "8" * 64}),
    ):
        assert keys(other) == wanted
    assert keys(manifest(), samples(seed=2)) == wanted
    # One more reference before them changes no key.
    digests = {"references.checkpoints[0]": "f" * 64, "references.checkpoints[1]": "a" * 64}
    moved = manifest(**{f"digests.{field}": digest for field, digest in digests.items()})
    assert keys(moved)[1] == wanted[0]


@pytest.mark.parametrize("changes", [
    {"digests.references.checkpoints[0]": "d" * 64}, {"digests.data:train.bin": "d" * 64},
    {"model.kwargs": {"num_classes": 11}}, {"data.image_size": [64, 64]}, {"data.mean": [0.5, 0.5, 0.5]},
    {"extract.batch_size": 32}, {"model.output": "probabilities"},
])  # fmt: skip
def test_another_content_is_another_key(changes: dict[str, Any]) -> None:
    assert keys(manifest(**changes))[0] != keys(manifest())[0]


def test_other_samples_types_and_queries_are_other_keys() -> None:
    one = samples()
    other_label = replace(one, label=np.roll(one.label, 1))
    fewer = StoredSamples(one.split[1:], one.sample_index[1:], one.label[1:])
    found = [keys(manifest()), keys(manifest(), other_label), keys(manifest(), fewer)]
    found += [keys(manifest({"logits": "float16"}))]
    asked = [keys(manifest({"queries": {"flip": True, "shifts": n, "seed": 1}})) for n in (0, 1)]
    assert [len(each) for each in asked] == [3, 3]  # the target is asked the same queries
    assert len({key for each in (*found, *asked) for key in each}) == 2 * len(found) + 6


def test_references_are_of_the_identity_of_those_attacks_that_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"attack.methods": [{"method": "lr", "params": {"C": [1]}}, {"method": "difference", "params": {}}]}
    monkeypatch.setitem(ATTACKS, "difference", Difference())
    without, having = a_manifest(**methods), manifest(**methods)
    assert attack_identity(without, "lr") == attack_identity(having, "lr")
    assert attack_identity(without, "blind") == attack_identity(having, "blind")
    more = attack_identity(having, "difference").items() - attack_identity(without, "difference").items()
    assert dict(more) == {f"SHA-256 of {field}": digest for field, digest in OF_REFERENCES.items()}
    assert verdict_identity(without) != verdict_identity(having)
    only_lr = {"attack.methods": methods["attack.methods"][:1]}
    assert verdict_identity(a_manifest(**only_lr)) == verdict_identity(manifest(**only_lr))


def fill(paths: ReferencePaths, of: StoredSamples, logits: np.ndarray, kind: str = "float32") -> None:
    """Write a complete reference; logits (n, n_queries, n_classes) in the order of the audit."""
    sent = row_dtype(logits.shape[2], n_queries=logits.shape[1], logits=kind)
    with ReferenceStore.create(paths, of, sent, {"weights": "x"}) as store:
        block = np.zeros(len(logits), sent)
        block["row"], block["logits"] = np.arange(len(logits)), logits[of.order]
        block["content"] = contents(of)[of.order]
        store.write(block)
        store.finish(paths)


def contents(of: StoredSamples) -> np.ndarray:
    return np.repeat((of.sample_index + 100 * (of.split == "test")).astype(np.uint8)[:, None], 16, axis=1)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_what_is_written_for_one_target_is_read_for_another(tmp_path: Path, kind: str) -> None:
    one, other = samples(1), samples(2)
    found = [ReferencePaths(tmp_path, letter * 64) for letter in "ab"]
    logits = np.random.default_rng(0).normal(size=(2, N, Q, C)).astype(kind)
    for paths, each in zip(found, logits, strict=True):
        fill(paths, one, each, kind)
    assert [(each.key, each.complete) for each in files_in(tmp_path)] == [("a" * 64, True), ("b" * 64, True)]
    read = read_phi(found, one, contents(one))
    assert read.dtype == np.float64
    assert read.shape == (N, Q, 2)
    for k in range(2):
        for q in range(Q):
            np.testing.assert_array_equal(read[:, q, k], phi(logits[k, :, q], one.label))
    place = {(s, i): row for row, (s, i) in enumerate(zip(one.split, one.sample_index, strict=True))}
    rows = [place[s, i] for s, i in zip(other.split, other.sample_index, strict=True)]
    np.testing.assert_array_equal(read_phi(found, other, contents(other)), read[rows])


def test_other_inputs_and_other_keys_are_refused(tmp_path: Path) -> None:
    paths, of = ReferencePaths(tmp_path, "a" * 64), samples()
    fill(paths, of, np.zeros((N, 1, C)))
    changed = contents(of)
    changed[3] += 1
    with pytest.raises(InputError, match=rf"{of.split[3]} sample {of.sample_index[3]} must be what it was .* got 1"):
        read_phi([paths], of, changed)
    assert read_phi([paths], of, None).shape == (N, 1, 1)
    with pytest.raises(InputError, match="must be of the audit's samples"):
        read_phi([paths], replace(of, label=(of.label + 1) % C), None)
    renamed = ReferencePaths(tmp_path, "b" * 64)
    paths.outputs.rename(renamed.outputs)
    with pytest.raises(InputError, match="must be of the key that it is named by, got aaa"):
        read_phi([renamed], of, None)
    with pytest.raises(InputError, match="does not exist"):
        read_phi([paths], of, None)


def _lose_rows(file: h5py.File) -> None:
    file["done"][3:5] = 0


def _other_splits(file: h5py.File) -> None:
    file["split"][:] = b"else"


def _one_query(file: h5py.File) -> None:
    """Which NumPy would take for both."""
    logits = file["logits"][:, :1]
    del file["logits"]
    file["logits"] = logits


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_lose_rows, "must have all rows, got 2 that are not done"),
        (_other_splits, "must be of the audit's samples, got others"),
        (_one_query, rf"must have logits of shape \({N}, {Q}, {C}\) as a*.h5, got \({N}, 1, {C}\)"),
    ],
)
def test_a_file_that_was_changed_is_refused(change: Callable[[h5py.File], None], rule: str, tmp_path: Path) -> None:
    found, of = [ReferencePaths(tmp_path, letter * 64) for letter in "ab"], samples()
    for paths in found:
        fill(paths, of, np.zeros((N, Q, C)))
    change_and_seal(found[1].outputs, change)
    with pytest.raises(InputError, match=rf"b\.h5: {rule}; remove it"):
        read_phi(found, of, None)


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    """A FIFO would wait for ever."""
    paths = ReferencePaths(tmp_path, "a" * 64)
    for name in (paths.outputs, paths.partial):
        os.mkfifo(name)
    rule = "must be a readable HDF5 file of this product, got: a FIFO, which is no regular file"
    with pytest.raises(InputError, match=rule):
        read_phi([paths], samples(), None)
    with pytest.raises(InputError, match=rule):
        rows_done(paths)
    with pytest.raises(InputError, match=rule):
        ReferenceStore(paths.partial)


def test_a_partial_file_is_no_result_and_tells_how_far_it_is(tmp_path: Path) -> None:
    paths, of = ReferencePaths(tmp_path, "a" * 64), samples()
    sent = row_dtype(C, n_queries=1, logits="float16")
    assert rows_done(paths) == (0, False)
    with ReferenceStore.create(paths, of, sent, {}) as store:
        block = np.zeros(3, sent)
        block["row"] = [5, 0, 1]
        store.write(block)
    assert rows_done(paths) == (3, False)
    assert not paths.outputs.exists()
    with h5py.File(paths.partial) as file:
        assert file["logits"].dtype == np.float16
        assert file["logits"].id.get_offset() is not None  # contiguous, and there from the start
    assert [each.complete for each in files_in(tmp_path)] == [False]


def test_a_store_is_shared_with_a_group_or_with_nobody(tmp_path: Path) -> None:
    own = grp.getgrgid(os.getgid()).gr_name
    former = os.umask(0o077)
    try:
        make_store(tmp_path / "alone", None)
        make_store(tmp_path / "shared", own)
        paths = ReferencePaths(tmp_path / "shared", "a" * 64)
        ReferenceStore.create(paths, samples(), row_dtype(C, n_queries=1, logits="float32"), {}, own).close()
    finally:
        os.umask(former)
    assert (tmp_path / "alone").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o2770
    assert paths.partial.stat().st_mode & 0o777 == 0o660
    with pytest.raises(InputError, match=r"references\.group: must be a group of users that you are in, got 'no such'"):
        make_store(tmp_path / "other", "no such")


def test_no_more_than_some_megabytes_of_logits_are_in_memory(tmp_path: Path) -> None:
    """tests/bench/reference_store.py does so with 256 references of 60,000 samples and 100 classes."""
    more, peak = measured(tmp_path, n_references=16, n_samples=40_000, n_classes=100)
    assert more < 16 * 40_000 * 8 + (150 << 20)  # what is asked for, and the blocks; the logits are 256 MB
    assert peak < 1 << 30
