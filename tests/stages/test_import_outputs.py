"""Imports: what they leave, what they never leave, and audits of them without a network."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from outputs import a_raw_config, made_up, softmax, write_csv, write_npz
from running import REPO, run_job

from mia_batch import signals
from mia_batch.attacks.split import _dealt, _dealt_alone
from mia_batch.cli import main
from mia_batch.data import tables
from mia_batch.data.outputs import Outputs
from mia_batch.errors import InputError
from mia_batch.process.stop import StopRequest
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir import claim, import_store
from mia_batch.rundir.features import FeatureStore, block_dtype, read_features
from mia_batch.rundir.identity import features_digest
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import read_state
from mia_batch.samples import Lookup, Samples, Split
from mia_batch.settings.loading import load_config
from mia_batch.stages import import_outputs
from mia_batch.stages.attack import attack
from mia_batch.stages.import_outputs import import_into
from mia_batch.stages.reduce import reduce
from mia_batch.verdict import checks
from mia_batch.verdict.checks import permutation

ALL = ("threshold_loss", "correctness", "class_threshold_loss", "threshold_entropy", "attack_p")


def write(folder: Path, files: Any, *methods: str, **sections: Any) -> Path:
    """A config in the folder."""
    raw = a_raw_config(files if isinstance(files, dict) else str(files), *(methods or ALL)) | sections
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def imported(config: Path, out: Path) -> RunPaths:
    """The run directory after an import."""
    paths = RunPaths(out)
    assert import_into(load_config(config), paths, StopRequest()) == 0
    return paths


def audited(config: Path, out: Path) -> Summary:
    """The summary of import, attack and reduce, in this process."""
    paths = imported(config, out)
    assert attack(load_config(config), paths, None, StopRequest()) == 0
    junit = str(out / "junit.xml")
    reduce(argparse.Namespace(config=str(config), out=str(out), checkpoint=None, changes=[], junit=junit))
    return read_summary(paths.summary_json)


def test_features_are_as_extract_writes_them(tmp_path: Path) -> None:
    arrays = made_up(50) | {"group": np.arange(50) // 2, "sample_id": np.array([f"r{i}" for i in range(50)])}
    paths = imported(write(tmp_path, write_npz(tmp_path / "a", arrays)), tmp_path / "out")
    found = read_features(paths.features)
    order = np.argsort(1 - arrays["member"], kind="stable")
    assert np.array_equal(found.sample_index, order)
    for name in ("member", "label", "logits", "group"):
        assert np.array_equal(getattr(found, name), arrays[name][order]), name
    assert np.array_equal(found.loss, signals.loss(arrays["logits"], arrays["label"])[order])
    assert (found.content, found.statistics, found.imported) == (None, None, True)
    assert set(found.split) == {"outputs"}
    with h5py.File(paths.features) as file:
        assert file["sample_id"][:].tolist() == [f"r{i}".encode() for i in order]
        assert all(file[name].chunks is None for name in file)
    assert found.attrs["outputs"] == "logits"
    assert found.logits is not None
    assert np.array_equal(found.logits[3:7], np.asarray(found.logits)[3:7])
    manifest = read_manifest(paths)
    assert manifest is not None
    assert found.attrs["digests"] == manifest.digests
    assert list(manifest.digests) == ["data.files"]
    assert [stage.stage for stage in read_state(paths)][:1] == ["import"]


def test_two_outputs_of_one_model_have_one_verdict_with_extract(tmp_path: Path) -> None:
    """The same logits as extract keeps them, and imported: the attacks find the same numbers."""
    arrays = made_up(400)
    config = write(tmp_path, write_npz(tmp_path / "a", arrays))
    ours = audited(config, tmp_path / "imported")
    features = read_features(RunPaths(tmp_path / "imported").features)
    paths = RunPaths(tmp_path / "extracted")
    paths.create()
    manifest = read_manifest(RunPaths(tmp_path / "imported"))
    assert manifest is not None
    paths.manifest.write_text(manifest.text())
    columns = {"sample_index": np.arange(400), "split": np.array(["s"] * 400), "group": np.full(400, -1)}
    columns |= {"label": features.label, "member": features.member}
    rows = np.zeros(400, block_dtype(4))
    rows["row"], rows["logits"], rows["loss"] = np.arange(400), features.logits, features.loss
    rows["content"][:, :2] = np.arange(400)[:, np.newaxis] // [1, 256] % 256
    attrs = {"config": manifest.config, "digests": manifest.digests, "identity": features_digest(manifest)}
    with FeatureStore.create(paths.features, columns, 4, attrs) as store:
        store.write(rows)
    assert attack(load_config(config), paths, None, StopRequest()) == 0
    reduce(argparse.Namespace(config=str(config), out=str(paths.root), checkpoint=None, changes=[], junit=None))
    theirs = read_summary(paths.summary_json)
    assert ours.verdict.sentence == theirs.verdict.sentence
    assert {name: each.metrics for name, each in ours.methods.items()} == {
        name: each.metrics for name, each in theirs.methods.items()
    }


def test_losses_alone_run_what_they_allow(tmp_path: Path) -> None:
    arrays = made_up(400, surer=4)
    loss = signals.loss(arrays["logits"], arrays["label"])
    path = write_npz(tmp_path / "a", {"loss": loss, "member": arrays["member"]})
    found = audited(write(tmp_path, path), tmp_path / "out")
    not_run = {name for name, method in found.methods.items() if method.not_run}
    assert not_run == {"correctness", "class_threshold_loss", "threshold_entropy"}
    assert set(found.verdict.methods) == set(ALL) - not_run
    assert found.verdict.outcome == "leak"
    said = "\n".join(found.verdict.cautions)
    assert "whether the model is evaluable is not known" in said
    assert "not run, because it needs logits, which these samples do not have: correctness, threshold_entropy." in said
    assert "not run, because it needs labels, which these samples do not have: class_threshold_loss." in said
    assert found.audited is not None
    assert not found.audited.known
    assert found.audited.members.accuracy is None
    assert found.audited.members.loss == pytest.approx(loss[arrays["member"] == 1].mean())
    assert {stage.state for stage in read_state(RunPaths(tmp_path / "out"))} == {"done"}
    junit = (tmp_path / "out" / "junit.xml").read_text()
    assert junit.count("<skipped") == 3
    assert 'skipped="3"' in junit


@pytest.mark.parametrize("rule", [{}, {"tutorial": True}, {"threshold": 0.6, "metrics": ["auc"]}])
@pytest.mark.parametrize(("stated", "outcome"), [(True, "no leak"), (False, "inconclusive")])
def test_losses_without_a_leak_pass_where_it_is_stated_that_any_model_is_judged(
    tmp_path: Path, capsys: Any, stated: bool, outcome: str, rule: dict[str, Any]
) -> None:
    """A model that was fed garbage would look the same, by whatever gate."""
    arrays = made_up(2000, surer=0)
    loss = signals.loss(arrays["logits"], arrays["label"])
    path = write_npz(tmp_path / "a", {"loss": loss, "member": arrays["member"], "label": arrays["label"]})
    config = write(tmp_path, path, "threshold_loss", "correctness", "lr", gate={"weak_model": stated, **rule})
    found = audited(config, tmp_path / "out")
    assert found.verdict.outcome == outcome
    assert ("losses alone do not say" in found.verdict.sentence) == (not stated)
    assert found.verdict.not_evaluable == {}
    printed = capsys.readouterr().out
    assert "EVALUABILITY NOT KNOWN" in printed
    assert "Method: lr, not run, because it needs logits" in printed
    assert "is evaluable." not in printed


@pytest.mark.parametrize(
    ("loss", "said"),
    [(np.ones(400), "the same loss on every sample"), (np.linspace(2, 9, 400), "than that of equal probabilities")],
)
def test_losses_that_show_a_fault_are_not_evaluable(tmp_path: Path, loss: np.ndarray, said: str) -> None:
    arrays = made_up(400)
    path = write_npz(tmp_path / "a", {"loss": loss, "member": arrays["member"], "label": arrays["label"]})
    found = audited(write(tmp_path, path), tmp_path / "out")
    assert found.verdict.outcome == "inconclusive"
    assert said in found.verdict.sentence


def test_where_no_attack_can_be_run_nothing_is_said(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a", {"loss": np.arange(100.0), "member": np.arange(100) % 2})
    found = audited(write(tmp_path, path, "correctness", "lr"), tmp_path / "out")
    assert found.verdict.outcome == "inconclusive"
    assert "it needs logits" in found.verdict.sentence


def test_probabilities_that_are_called_logits_are_not_evaluable(tmp_path: Path) -> None:
    arrays = made_up(200)
    path = write_npz(tmp_path / "a", {**arrays, "logits": softmax(arrays["logits"])})
    found = audited(write(tmp_path, path), tmp_path / "out")
    assert "Set data.columns.probabilities" in found.verdict.sentence
    assert found.verdict.outcome == "inconclusive"


def leftovers(folder: Path) -> list[str]:
    """Everything below."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_nothing_is_left_where_it_fails(tmp_path: Path) -> None:
    arrays = made_up(200)
    arrays["logits"][150, 2] = np.nan
    config = write(tmp_path, write_csv(tmp_path / "a", arrays))
    before = leftovers(tmp_path)
    with pytest.raises(InputError, match=r"a\.csv: logits: line 152: must be finite, got nan"):
        imported(config, tmp_path / "deep" / "out")
    assert leftovers(tmp_path) == before
    assert main(["run", str(config), "--out", str(tmp_path / "out")]) == 2
    assert leftovers(tmp_path) == before


def test_another_run_is_never_overwritten(tmp_path: Path) -> None:
    config = write(tmp_path, write_npz(tmp_path / "a", made_up(100)))
    paths = imported(config, tmp_path / "out")
    mark = paths.features.read_bytes()
    assert import_into(load_config(config), paths, StopRequest()) == 0  # nothing to do
    write_npz(tmp_path / "a", made_up(100, seed=1))
    with pytest.raises(InputError, match=r"holds another run: the content of data\.files has changed"):
        imported(config, tmp_path / "out")
    assert paths.features.read_bytes() == mark
    stray = RunPaths(tmp_path / "stray")
    stray.create()
    stray.features.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"got features\.h5 without run\.json"):
        imported(config, stray.root)
    assert stray.features.read_bytes() == b"precious"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path / "a", made_up(100))
    config, copy = write(tmp_path, path), import_outputs._copy

    def change(*arguments: Any) -> None:
        copy(*arguments)
        os.utime(path, (1, 1))

    monkeypatch.setattr(import_outputs, "_copy", change)
    with pytest.raises(InputError, match=r"data\.files: must not change while they are read"):
        imported(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stopped_import_leaves_nothing_and_begins_again(tmp_path: Path) -> None:
    config, stop = write(tmp_path, write_npz(tmp_path / "a", made_up(100))), StopRequest()
    stop.signal = signal.SIGUSR1
    assert import_into(load_config(config), RunPaths(tmp_path / "out"), stop) == 75
    assert not (tmp_path / "out").exists()
    imported(config, tmp_path / "out")


@pytest.mark.parametrize(("n_asked", "where"), [(1, "hashed"), (5, "hashed"), (6, "read"), (9, "read")])
def test_a_stop_is_asked_for_wherever_an_import_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_asked: int, where: str
) -> None:
    """Between blocks of files that are hashed, and of samples."""
    monkeypatch.setattr(tables, "BLOCK_VALUES", 64)
    path = write_npz(tmp_path / "a", made_up(300) | {"ballast": np.zeros(5 << 17)})  # of 5 blocks of a MiB, and a rest
    reached: list[str] = []
    for phase, name in (("read", "read_samples"), ("copied", "read_outputs")):
        inner = getattr(Outputs, name)
        monkeypatch.setattr(
            Outputs, name, lambda *all, phase=phase, inner=inner: reached.append(phase) or inner(*all)
        )

    class Asked(StopRequest):
        n = 0

        def __bool__(self) -> bool:
            self.n += 1
            return self.n >= n_asked + 1

    assert import_into(load_config(write(tmp_path, path)), RunPaths(tmp_path / "out"), Asked()) == 75
    assert reached == ["read"] * (where == "read")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [1, 2, 3])
def test_nothing_is_left_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """When the file is allocated, completed, or run.json is written."""
    config = write(tmp_path, write_npz(tmp_path / "a", made_up(100)))
    before, calls, room, put = leftovers(tmp_path), [0], import_store.check_room, claim.write_manifest

    def counted(inner: Callable[..., None], *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise InputError("the disk is full")
        inner(*arguments)

    monkeypatch.setattr(import_store, "check_room", partial(counted, room))
    monkeypatch.setattr(claim, "write_manifest", partial(counted, put))
    with pytest.raises(InputError, match="the disk is full"):
        imported(config, tmp_path / "out")
    assert leftovers(tmp_path) == before


def test_a_killed_import_begins_again(tmp_path: Path) -> None:
    n = 300_000
    config = write(tmp_path, write_npz(tmp_path / "a", made_up(n, 30)))
    out = tmp_path / "out"
    command = [sys.executable, str(REPO / "jobs" / "import_outputs.py"), str(config), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(out.glob(".features.h5.*.tmp")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (out / "features.h5").exists()
    assert list(out.glob(".features.h5.*.tmp"))
    assert len(read_features(imported(config, out).features).member) == n
    assert list(out.glob(".features.h5.*.tmp")) == []


def test_a_run_takes_another_attack_and_no_other_outputs(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a", made_up(200))
    audited(write(tmp_path, path, "threshold_loss"), tmp_path / "out")
    found = audited(write(tmp_path, path, "threshold_loss", "attack_p"), tmp_path / "out")
    assert set(found.methods) == {"threshold_loss", "attack_p"}
    two = write(tmp_path, path, data={"source": "outputs", "files": str(path), "columns": {"label": "label"}})
    with pytest.raises(InputError, match=r"data\.columns\.label was null and is now label"):
        imported(two, tmp_path / "out")


def test_what_a_later_stage_would_refuse_is_refused_before(tmp_path: Path) -> None:
    arrays = made_up(100)
    too_many = {"cv": 90, "methods": [{"method": "correctness"}]}
    config = write(tmp_path, write_npz(tmp_path / "a", arrays), attack=too_many)
    with pytest.raises(InputError, match=r"attack\.cv: must be at most"):
        imported(config, tmp_path / "out")
    canary = {"source": "outputs", "files": str(tmp_path / "a.npz"), "canaries": {"split": "train"}}
    with pytest.raises(InputError, match=r"data\.canaries\[0\]: must be members or non-members of split 'train'"):
        imported(write(tmp_path, "", data=canary), tmp_path / "out")
    for argv in (["nightly", str(config), "--watch", str(tmp_path), "--runs", str(tmp_path / "r")],
                 ["run", str(config), "--out", "o", "--checkpoint", "x"]):  # fmt: skip
        assert main(argv) == 2


def test_an_extraction_of_outputs_is_one_line(tmp_path: Path) -> None:
    config = write(tmp_path, write_npz(tmp_path / "a", made_up(100)))
    result = run_job("extract", config, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "data.source: must be samples for a network, got outputs" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("n", "parts"), [(2, 2), (11, 3), (100, 5), (1001, 7)])
def test_rows_that_stand_alone_are_dealt_as_groups_of_one(n: int, parts: int) -> None:
    rng = np.random.default_rng(n)
    y = (rng.random(n) < 0.3).astype(np.int8)
    for seed in range(3):
        assert np.array_equal(_dealt_alone(y, parts, seed), _dealt(y, np.arange(n), parts, seed))


def test_samples_with_a_lookup_come_back_from_their_arrays() -> None:
    split = Split(np.arange(4), np.array([0, 1, 0, 1], np.int32), np.arange(4, 6))
    table, row = np.arange(6.0).reshape(3, 2), np.array([0, 1, 2, 2, 1, 0], np.int32)
    samples = Samples(np.array([1, 0] * 3, np.int8), [split], blind=Lookup(table, row), loss=np.arange(6.0))
    again = Samples.of_arrays(samples.arrays())
    assert again.known == samples.known == {"member", "blind", "loss"}
    assert np.array_equal(again.columns["blind"][[5, 2]], table[[0, 2]])
    assert again.columns["blind"].shape == (6, 2)


def test_the_permutation_test_of_very_many_samples_is_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_PERMUTED", 500)
    rng = np.random.default_rng(0)
    member = rng.random(4000) < 0.5
    found = permutation(member, {"a": member + rng.normal(size=4000)}, np.arange(4000) % 2, None, seed=1)
    assert (found.n_drawn, found.reason) == (500, None)
    assert found.p_value < 0.01
    none = permutation(member, {"a": rng.normal(size=4000)}, np.arange(4000) % 2, None, seed=1)
    assert none.p_value > 0.01


def test_history_lists_imports(tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        config = write(tmp_path, write_npz(tmp_path / name, made_up(200)), "threshold_loss")
        audited(config, tmp_path / "runs" / name)
    capsys.readouterr()
    assert main(["history", str(tmp_path / "runs"), "--format", "json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [entry["checkpoint"] for entry in found] == ["a.npz", "b.npz"]
    assert {entry["outcome"] for entry in found} == {"leak"}


def halves(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Members and non-members, without the column of membership."""
    sides = [{name: array[arrays["member"] == side] for name, array in arrays.items()} for side in (1, 0)]
    members, nonmembers = ({name: side[name] for name in side if name != "member"} for side in sides)
    return members, nonmembers


def two_files(folder: Path, members: dict[str, np.ndarray], nonmembers: dict[str, np.ndarray]) -> dict[str, str]:
    return {"members": str(write_npz(folder / "m", members)), "nonmembers": str(write_npz(folder / "n", nonmembers))}


def test_rows_on_both_sides_are_left_out_and_counted(tmp_path: Path) -> None:
    members, nonmembers = halves(made_up(600))
    for name in nonmembers:
        nonmembers[name][:10] = members[name][:10]
    config = write(tmp_path, two_files(tmp_path, members, nonmembers))
    summary = audited(config, tmp_path / "out")
    assert summary.samples.n_twins == 20
    said = [line for line in summary.verdict.cautions if "on both sides, and are left out" in line]
    assert said[0].startswith("10 members and 10 non-members have outputs and a label that are on both sides")
    assert any("only such were looked for" in line for line in summary.verdict.cautions)


@pytest.mark.parametrize("kind", ["logits", "loss"])
def test_the_same_rows_on_both_sides_are_not_evaluable(tmp_path: Path, kind: str) -> None:
    members, _ = halves(made_up(600))
    if kind == "loss":
        members = {"loss": signals.loss(members["logits"], members["label"])}
    other = {name: array[::-1] for name, array in members.items()}
    config = write(tmp_path, two_files(tmp_path, members, other))
    summary = audited(config, tmp_path / "out")
    assert "(100.0%) have their outputs and label on the other side too" in summary.verdict.sentence
    assert summary.verdict.outcome == "inconclusive"


def test_many_rows_on_both_sides_are_not_evaluable_unless_a_config_says_so(tmp_path: Path) -> None:
    members, nonmembers = halves(made_up(600))
    for name in nonmembers:
        nonmembers[name][:60] = members[name][:60]
    files = two_files(tmp_path, members, nonmembers)
    assert "60 of 300 members (20.0%)" in audited(write(tmp_path, files), tmp_path / "a").verdict.sentence
    raw = a_raw_config(files, *ALL)
    raw["data"]["max_duplicates"] = 0.5
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(raw))
    assert audited(tmp_path / "d.yaml", tmp_path / "b").verdict.outcome == "leak"


def test_rows_that_a_loader_gave_twice_are_no_leak(tmp_path: Path) -> None:
    members, nonmembers = halves(made_up(400, surer=0.0))
    twice = [{name: np.concatenate([array] * 2) for name, array in side.items()} for side in (members, nonmembers)]
    methods = [{"method": "knn", "params": {"n_neighbors": [1]}}]
    raw = a_raw_config(two_files(tmp_path, *twice), *ALL)
    raw["attack"]["methods"] += methods
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    summary = audited(tmp_path / "c.yaml", tmp_path / "out")
    assert summary.verdict.outcome != "leak"
    assert summary.samples.n_groups == 400


def test_the_same_file_for_both_sides_is_refused(tmp_path: Path) -> None:
    members, _ = halves(made_up(100))
    one, copy = write_npz(tmp_path / "a", members), write_npz(tmp_path / "b", members)
    (tmp_path / "link.npz").hardlink_to(one)
    (tmp_path / "soft.npz").symlink_to(one)
    said = r"data\.files\.nonmembers: must be another file than data\.files\.members"
    for other in (one, tmp_path / "link.npz", tmp_path / "soft.npz", copy):
        with pytest.raises(InputError, match=said):
            imported(write(tmp_path, {"members": str(one), "nonmembers": str(other)}), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_labels_of_both_sides_may_be_one_file(tmp_path: Path) -> None:
    members, nonmembers = halves(made_up(100))
    for name, array in (("m", members["logits"]), ("n", nonmembers["logits"]), ("y", members["label"])):
        np.save(tmp_path / f"{name}.npy", array)
    label = str(tmp_path / "y.npy")
    files = {side: {"logits": str(tmp_path / f"{side[0]}.npy"), "label": label} for side in ("members", "nonmembers")}
    assert imported(write(tmp_path, files), tmp_path / "out")


def test_columns_of_slices_have_any_names(tmp_path: Path) -> None:
    names = ["a/b", "a%2Fb", "/", ".", "..", "<i>"]
    values = {name: np.array([f"{name}{i % 2}" for i in range(50)]) for name in names}
    files = write_npz(tmp_path / "a", made_up(50) | values)
    raw = a_raw_config(str(files), *ALL)
    paths = imported(write(tmp_path, files, data=raw["data"] | {"columns": {"slices": names}}), tmp_path / "out")
    found = read_features(paths.features)
    assert list(found.slices) == names
    for name, (numbers, said) in found.slices.items():
        assert [said[i] for i in numbers] == values[name][found.sample_index].tolist(), name
