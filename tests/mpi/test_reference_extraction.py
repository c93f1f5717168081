"""References with a real network: one store for every target, the same from any number of ranks and after any stop."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import yaml
from reference_runs import Difference, write_inclusion
from running import REPO, one_line, run_job

from mia_batch.attacks.base import INCLUSION_DOUBT
from mia_batch.attacks.registry import ATTACKS
from mia_batch.files import sha256
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.features import read_features
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.reference_store import files_in
from mia_batch.rundir.results import read_attack
from mia_batch.rundir.state import left_to_do, read_state
from mia_batch.settings.loading import load_config
from mia_batch.signals import phi
from mia_batch.stages.attack import attack
from mia_batch.stages.plan import make_manifest
from mia_batch.stages.reduce import summarise
from mia_batch.stages.reference_columns import reference_columns

Write = Callable[..., Path]
K, MEMBERS, N = 3, 90, 160  # references; rows of the plain records
DATASETS = ("sample_index", "split", "label", "content", "logits", "done")

SAVE = """
import sys, mindspore as ms
sys.path.insert(0, sys.argv[1])
import net
for seed in range(int(sys.argv[2])):
    ms.set_seed(100 + seed)
    ms.save_checkpoint(net.build(), f"{sys.argv[1]}/ref_{seed}.ckpt")
"""


@pytest.fixture(scope="session")
def weights(checkpoint: Path) -> list[Path]:
    """Checkpoints of K references and of another target."""
    subprocess.run([sys.executable, "-c", SAVE, checkpoint.parent, str(K + 1)], check=True, capture_output=True)
    return sorted(checkpoint.parent.glob("ref_*.ckpt"))


@pytest.fixture
def inclusion(tmp_path: Path) -> Path:
    """Fair coins for every record."""
    included = np.random.default_rng(3).random((K, N)) < 0.5
    split = ["train"] * MEMBERS + ["test"] * (N - MEMBERS)
    index = np.concatenate([np.arange(MEMBERS), np.arange(N - MEMBERS)])
    return write_inclusion(tmp_path / "in.npz", included, split, index)


@pytest.fixture
def reference_config(net_config: Write, weights: list[Path], inclusion: Path) -> Write:
    """A config with K references; options of the section, or changes by dotted key."""

    def write(changes: dict[str, Any] | None = None, **options: Any) -> Path:
        section = {"checkpoints": list(map(str, weights[:K])), "inclusion": str(inclusion)}
        return net_config({"references": section | options, "gate.weak_model": True, **(changes or {})})

    return write


def outputs(store: Path) -> dict[str, dict[str, np.ndarray]]:
    """The datasets of every complete file, by key."""
    found = {}
    for each in files_in(store):
        assert each.complete, each.path
        with h5py.File(each.path) as file:
            found[each.key] = {name: file[name][:] for name in DATASETS}
    return found


def same(one: Path, other: Path) -> bool:
    ours, theirs = outputs(one), outputs(other)
    assert ours.keys() == theirs.keys()
    return all(np.array_equal(ours[key][name], theirs[key][name]) for key in ours for name in DATASETS)


def test_one_and_two_ranks_give_the_same_files_which_are_what_extract_gives(
    tmp_path: Path, reference_config: Write, weights: list[Path]
) -> None:
    for ranks in (1, 2):
        config = reference_config(store=f"r{ranks}")
        found = run_job("references", config, "--out", tmp_path / "run", ranks=ranks)
        assert found.returncode == OK, found.stderr
    assert len(outputs(tmp_path / "r1")) == K
    assert same(tmp_path / "r1", tmp_path / "r2")
    assert run_job("extract", config, "--out", tmp_path / "run").returncode == OK
    shutil.rmtree(tmp_path / "run" / "attacks")
    # The weights of the last reference were put into a network that had run with others.
    alone = tmp_path / "alone"
    assert run_job("extract", config, "--out", alone, "--checkpoint", weights[2]).returncode != OK  # it is a reference
    plain = yaml.safe_load(config.read_text()) | {"references": None}
    del plain["references"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    job = run_job("extract", tmp_path / "plain.yaml", "--out", alone, "--checkpoint", weights[2])
    assert job.returncode == OK, job.stderr
    features = read_features(alone / "features.h5")
    order = np.lexsort((features.sample_index, features.split))
    logits = [each["logits"][:, 0] for each in outputs(tmp_path / "r1").values()]
    assert sum(np.allclose(each, features.logits[order], atol=1e-6) for each in logits) == 1


def read_columns(config: Path, run: Path) -> dict[str, np.ndarray]:
    loaded = load_config(config)
    return reference_columns(loaded, make_manifest(loaded), read_features(run / "features.h5"), ["difference"])


def test_an_attack_gets_them_in_the_order_of_its_audit_and_other_attacks_are_not_done_again(
    tmp_path: Path, reference_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "difference", Difference())
    methods = [{"method": "threshold_loss"}, {"method": "difference"}]
    plain = reference_config({"attack.methods": methods, "attack.backend": "serial"})
    raw = yaml.safe_load(plain.read_text())
    section = raw.pop("references")
    plain.write_text(yaml.safe_dump(raw))
    only_extract = yaml.safe_load(plain.read_text())
    only_extract["attack"]["methods"] = [{"method": "threshold_loss"}]
    (tmp_path / "extract.yaml").write_text(yaml.safe_dump(only_extract))
    run = RunPaths(tmp_path / "run")
    assert run_job("extract", tmp_path / "extract.yaml", "--out", run.root).returncode == OK
    assert attack(load_config(plain), run, None, StopRequest()) == OK
    assert "it needs reference models" in read_attack(run.attack("difference")).reason
    before = run.attack("threshold_loss").stat().st_mtime_ns

    plain.write_text(yaml.safe_dump(raw | {"references": section}))
    with pytest.raises(ValueError, match=r"references.checkpoints\[0\]: outputs must be in the store, got 0 of 3"):
        attack(load_config(plain), run, None, StopRequest())
    (tmp_path / "extract.yaml").write_text(yaml.safe_dump(only_extract | {"references": section}))
    assert run_job("references", tmp_path / "extract.yaml", "--out", run.root).returncode == OK
    assert attack(load_config(plain), run, None, StopRequest()) == OK
    result = read_attack(run.attack("difference"))
    assert not result.reason
    assert "with AUC" in result.provenance[INCLUSION_DOUBT]  # nothing has trained the references
    assert run.attack("threshold_loss").stat().st_mtime_ns == before

    features, found = read_features(run.features), read_columns(plain, run.root)
    assert found["query_phi"].shape == (N, 1)
    assert found["reference_phi"].shape == (N, 1, K)
    assert found["reference_in"].dtype == np.int8
    np.testing.assert_array_equal(found["query_phi"][:, 0], phi(features.logits, features.label))
    with np.load(tmp_path / "in.npz") as file:
        for row in (0, 17, 89, 90, 159):
            here = (file["split"] == features.split[row]) & (file["sample_index"] == features.sample_index[row])
            assert found["reference_in"][row].tolist() == file["included"][:, here][:, 0].astype(int).tolist()
    stages = {each.stage: each.state for each in read_state(run)}
    assert stages["references"] == stages["attack difference"] == "done"
    assert left_to_do(read_state(run)).stages == ("reduce",)

    with np.load(tmp_path / "in.npz") as file:
        np.savez(tmp_path / "in.npz", **dict(file) | {"included": ~file["included"]})
    with pytest.raises(ValueError, match=r"difference\.h5: must come from .*, got a result of another run"):
        summarise(load_config(plain), run)  # stages alone decide as `run` does
    assert attack(load_config(plain), run, None, StopRequest()) == OK
    again = read_attack(run.attack("difference"))
    assert again.provenance["identity"] != result.provenance["identity"]
    assert run.attack("threshold_loss").stat().st_mtime_ns == before
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.digests["references.inclusion"] == sha256(tmp_path / "in.npz")
    summarise(load_config(plain), run)


def start(config: Path, out: Path, ranks: int) -> subprocess.Popen[str]:
    mpirun = str(Path(sys.prefix) / "bin" / "mpirun")
    job = [sys.executable, str(REPO / "jobs" / "references.py"), str(config), "--out", str(out)]
    return subprocess.Popen([mpirun, "-n", str(ranks), *job], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def rows_there(store: Path) -> int:
    found = 0
    for each in files_in(store):
        if each.path.suffix == ".h5":
            with h5py.File(each.path, "r", locking=False) as file:
                found += int(file["done"][:].sum())
    return found


def wait_for_rows(store: Path, count: int, seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if rows_there(store) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} rows after {seconds} s")


@pytest.fixture
def slow_config(tmp_path: Path, source_config: Write, weights: list[Path]) -> Write:
    """References of a source that takes its time: 96 samples of each split."""

    def write(store: str) -> Path:
        config = source_config(delay=0.01)
        np.save(tmp_path / "in.npy", np.random.default_rng(3).random((K, 192)) < 0.5)
        raw = yaml.safe_load(config.read_text())
        section = {"checkpoints": list(map(str, weights[:K])), "inclusion": "in.npy", "store": store}
        config.write_text(yaml.safe_dump(raw | {"references": section}))
        return config

    return write


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1])
def test_a_stop_in_the_second_reference_loses_nothing_and_a_rerun_does_the_rest(
    tmp_path: Path, slow_config: Write, how: signal.Signals
) -> None:
    store, config = tmp_path / "s", slow_config("s")
    process = start(config, tmp_path / "run", 2)
    wait_for_rows(store, 192 + 32)
    ranks = [
        each for each in psutil.Process(process.pid).children(recursive=True)
        if "references.py" in " ".join(each.cmdline())
    ]
    if how == signal.SIGKILL:
        for rank in ranks:
            rank.kill()
    else:
        process.send_signal(how)
    process.communicate(timeout=30)
    psutil.wait_procs(ranks, timeout=20)
    assert how == signal.SIGKILL or process.returncode == RESUME
    states = {each.path.name: each for each in files_in(store)}
    complete = [each for each in states.values() if each.complete]
    assert len(complete) == 1
    made = complete[0].path.stat().st_mtime_ns
    kept = rows_there(store)
    assert 192 + 32 <= kept < 2 * 192
    rerun = run_job("references", config, "--out", tmp_path / "run", ranks=1)
    assert rerun.returncode == OK, rerun.stderr
    assert complete[0].path.stat().st_mtime_ns == made
    assert len(outputs(store)) == K
    assert {each.path.suffix for each in files_in(store)} == {".h5"}
    assert run_job("references", slow_config("whole"), "--out", tmp_path / "run", ranks=2).returncode == OK
    assert same(store, tmp_path / "whole")


def mia_batch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mia_batch.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def test_run_does_references_once_and_the_command_lists_and_prunes(
    tmp_path: Path, reference_config: Write, weights: list[Path]
) -> None:
    changes = {"attack.methods": [{"method": "threshold_loss"}]}
    store, out = tmp_path / "s", tmp_path / "run"
    config = reference_config(changes, store="s", logits="float16")
    said = mia_batch("check", config).stdout
    assert f"references: {K} outputs of {N} samples, {K} of them missing in {store}" in said
    assert "estimate: references:" in said
    first = mia_batch("run", config, "--out", out)
    assert first.returncode in (0, 3, 4), first.stderr
    assert [line for line in first.stderr.splitlines() if "stage " in line][1].endswith("stage references")
    found = outputs(store)
    assert {each["logits"].dtype for each in found.values()} == {np.dtype(np.float16)}
    times = {each.path: each.path.stat().st_mtime_ns for each in files_in(store)}
    again = mia_batch("run", config, "--out", out)
    assert again.returncode == first.returncode
    assert "stage references" not in again.stderr
    # Another target of the same samples, with the sides exchanged, finds all of it there.
    sides = {"data.members": {"split": "test"}, "data.nonmembers": {"split": "train"}}
    other = reference_config(changes | sides | {"model.checkpoint": str(weights[K])}, store="s", logits="float16")
    job = run_job("references", other, "--out", tmp_path / "other")
    assert job.returncode == OK
    assert "nothing to do" in job.stderr
    assert {each.path: each.path.stat().st_mtime_ns for each in files_in(store)} == times

    listed = mia_batch("references", other).stdout.splitlines()
    assert len(listed) == K + 1
    assert all(" done " in line for line in listed[:K])
    fewer = reference_config(changes | sides, store="s", logits="float16", checkpoints=[str(weights[0])])
    np.save(tmp_path / "one.npy", np.zeros((1, N), bool))
    raw = yaml.safe_load(fewer.read_text())
    raw["references"]["inclusion"] = "one.npy"
    fewer.write_text(yaml.safe_dump(raw))
    shown = mia_batch("references", fewer, "--prune").stdout
    assert shown.count("not named") == K - 1
    assert len(files_in(store)) == K
    assert mia_batch("references", fewer, "--prune", "--yes").stdout.count("removed  ") == K - 1
    assert len(files_in(store)) == 1
    del raw["references"]
    fewer.write_text(yaml.safe_dump(raw))
    assert "references: is required" in one_line(mia_batch("references", fewer))


def test_queries_are_answered_alike_by_references_and_target_on_any_ranks(
    tmp_path: Path, reference_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "difference", Difference())
    for ranks in (1, 2):
        config = reference_config(store=f"q{ranks}", queries={"flip": True, "shifts": 1})
        job = run_job("references", config, "--out", tmp_path / "run", ranks=ranks)
        assert job.returncode == OK, job.stderr
    assert same(tmp_path / "q1", tmp_path / "q2")
    plain = reference_config(store="plain")
    assert run_job("references", plain, "--out", tmp_path / "run").returncode == OK
    assert run_job("extract", plain, "--out", tmp_path / "run").returncode == OK
    once = read_columns(plain, tmp_path / "run")
    found = read_columns(reference_config(store="q1", queries={"flip": True, "shifts": 1}), tmp_path / "run")
    assert found["query_phi"].shape == (N, 4)
    assert found["reference_phi"].shape == (N, 4, K)
    np.testing.assert_allclose(found["query_phi"][:, 0], once["query_phi"][:, 0], atol=1e-5)
    np.testing.assert_array_equal(found["reference_phi"][:, 0], once["reference_phi"][:, 0])
    assert len(np.unique(found["query_phi"], axis=1)) == N
    for other in (1, 2, 3):
        assert (abs(found["query_phi"][:, other] - found["query_phi"][:, 0]) > 1e-6).mean() > 0.9


def test_a_task_does_one_reference_and_the_complement_of_the_target_is_left_out(
    tmp_path: Path, reference_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "difference", Difference())
    included = np.random.default_rng(3).random((K, N)) < 0.5
    included[1] = np.arange(N) >= MEMBERS
    np.save(tmp_path / "in.npy", included)
    config = reference_config(store="s", inclusion="in.npy")
    for number in (2, 0):
        assert run_job("references", config, "--out", tmp_path / "run", "--only", str(number)).returncode == OK
    assert len(outputs(tmp_path / "s")) == 2
    line = one_line(run_job("references", config, "--out", tmp_path / "run", "--only", "3"))
    assert line.endswith("--only: must be in 0..2, the references, got 3")
    assert run_job("references", config, "--out", tmp_path / "run").returncode == OK
    assert run_job("extract", config, "--out", tmp_path / "run").returncode == OK
    found = read_columns(config, tmp_path / "run")
    assert found["reference_phi"].shape == (N, 1, K - 1)
    np.testing.assert_array_equal(found["reference_in"], included[[0, 2]].T)


def test_bad_weights_of_a_reference_are_refused_with_their_field(
    tmp_path: Path, reference_config: Write, weights: list[Path], checkpoint: Path
) -> None:
    (tmp_path / "short.ckpt").write_bytes(weights[0].read_bytes()[:-7])
    config = reference_config(checkpoints=[str(weights[0]), str(tmp_path / "short.ckpt"), str(weights[1])])
    line = one_line(run_job("references", config, "--out", tmp_path / "run"))
    assert f"{tmp_path / 'short.ckpt'}: references.checkpoints[1]: must " in line
    config = reference_config(checkpoints=[str(weights[0]), str(checkpoint), str(weights[1])])
    line = one_line(run_job("references", config, "--out", tmp_path / "run"))
    assert "references.checkpoints[1]: must be other weights than the audited ones" in line


def test_prepared_samples_give_the_same_files_and_are_not_read_again(
    tmp_path: Path, source_config: Write, weights: list[Path]
) -> None:
    """The store's order is not that of the audit, in which samples are prepared; images change their size."""
    deadly, prepared = tmp_path / "deadly", tmp_path / "prepared"
    deadly.write_text("no 0 0")
    config = source_config(deadly=str(deadly))
    raw = yaml.safe_load(config.read_text())
    raw["data"] |= {"image_size": [30, 31], "nonmembers": {"split": "test", "num_samples": 60}}
    np.save(tmp_path / "in.npy", np.random.default_rng(3).random((K, 96 + 60)) < 0.5)

    def run(store: str, *words: str) -> subprocess.CompletedProcess[str]:
        section = {"checkpoints": list(map(str, weights[:K])), "inclusion": "in.npy", "store": store}
        config.write_text(yaml.safe_dump(raw | {"references": section}))
        return run_job("references", config, "--out", tmp_path / "run", *words, ranks=2)

    config.write_text(yaml.safe_dump(raw))
    assert run_job("prepare", config, "--out", prepared).returncode == OK
    deadly.write_text(f"train 17 {signal.SIGKILL.value}")
    done = run("s", f"--prepared={prepared}")
    assert done.returncode == OK, done.stderr
    assert run("read").returncode != OK  # which reads that sample, once
    done = run("read")
    assert done.returncode == OK, done.stderr
    assert len(outputs(tmp_path / "s")) == K
    assert same(tmp_path / "s", tmp_path / "read")


def test_two_audits_fill_one_store_at_a_time(tmp_path: Path, slow_config: Write) -> None:
    config = slow_config("s")
    jobs = [start(config, tmp_path / f"run{i}", 1) for i in range(2)]
    said = [job.communicate(timeout=200)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [OK, OK], said
    assert len(outputs(tmp_path / "s")) == K
    written = [line for each in said for line in each.splitlines() if ": written" in line]
    assert len(written) == K
    assert any("waits for another process" in each for each in said)
