"""Extraction under real mpirun: the same file from any number of ranks, after any stop, and no hang."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import yaml
from hdf5_files import forget_rows, make_of_before
from rundirs import N, a_manifest, make_run, write_rows
from running import REPO, one_line, run_job

from mia_batch.attacks.grouping import twins
from mia_batch.cli import main
from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.inputs import NO_GROUP
from mia_batch.process.exit_codes import RESUME
from mia_batch.rundir.features import features_progress, read_features
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import read_rows
from mia_batch.settings.loading import load_config
from mia_batch.stages.extract import RootFile
from mia_batch.stages.plan import look_at, looked_at

Write = Callable[..., Path]
DATASETS = (
    "sample_index", "split", "label", "member", "group", "content", "statistics", "logits", "loss", "done",
)  # fmt: skip


SAVE_TEXT = """
import sys, mindspore as ms
sys.path.insert(0, sys.argv[1] + "/text")
import model
ms.set_seed(1)
ms.save_checkpoint(model.net(4), sys.argv[1] + "/net.ckpt")
"""


def read(run: Path) -> dict[str, np.ndarray]:
    with h5py.File(run / "features.h5") as file:
        return {name: file[name][:] for name in DATASETS}


def assert_same(one: Path, other: Path) -> None:
    for (name, a), b in zip(read(one).items(), read(other).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def start(config: Path, out: Path, ranks: int) -> subprocess.Popen[str]:
    mpirun = str(Path(sys.prefix) / "bin" / "mpirun")
    job = [sys.executable, str(REPO / "jobs" / "extract.py"), str(config), "--out", str(out)]
    return subprocess.Popen([mpirun, "-n", str(ranks), *job], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_rows(out: Path, count: int, seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        rows = features_progress(out / "features.h5")
        if rows and rows[0] >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} rows after {seconds} s")


def ranks_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    return [p for p in psutil.Process(launcher.pid).children(recursive=True) if "extract.py" in " ".join(p.cmdline())]


def test_one_two_and_three_ranks_give_the_same_file(tmp_path: Path, net_config: Write) -> None:
    config = net_config()  # 160 samples in batches of 16: uneven shards and short batches
    for ranks in (1, 2, 3):
        assert run_job("extract", config, "--out", tmp_path / f"r{ranks}", ranks=ranks).returncode == 0
    alone = run_job("extract", config, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    features = read(tmp_path / "r1")
    assert features["done"].all()
    assert features["member"].tolist() == [1] * 90 + [0] * 70
    assert features["sample_index"].tolist() == [*range(90), *range(70)]
    for name in ("logits", "content", "statistics"):
        assert len(np.unique(features[name], axis=0)) == 160
    assert set(features["group"]) == {NO_GROUP}
    for other in ("r2", "r3", "alone"):
        assert_same(tmp_path / "r1", tmp_path / other)


@pytest.mark.parametrize("victims", ["one", "all", "launcher"])
def test_kill_9_loses_nothing_acknowledged_and_a_rerun_does_the_rest(
    tmp_path: Path, source_config: Write, victims: str
) -> None:
    out, config = tmp_path / "killed", source_config(delay=0.02)
    process = start(config, out, 2)
    wait_for_rows(out, 32)
    ranks = ranks_of(process)
    assert len(ranks) == 2, "mpirun has started two ranks"
    for rank in {"one": ranks[1:], "all": ranks, "launcher": [psutil.Process(process.pid)]}[victims]:
        rank.kill()
    process.communicate(timeout=20)
    psutil.wait_procs(ranks, timeout=20)
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    before = read(out)
    assert 32 <= before["done"].sum() < 192
    rerun = run_job("extract", config, "--out", out, ranks=3)
    assert rerun.returncode == 0, rerun.stderr
    after, kept = read(out), before["done"].astype(bool)
    for name in ("logits", "content", "statistics"):
        np.testing.assert_array_equal(after[name][kept], before[name][kept])
    assert run_job("extract", config, "--out", tmp_path / "whole", ranks=1).returncode == 0
    assert_same(out, tmp_path / "whole")


@pytest.mark.parametrize(("signum", "ranks"), [(signal.SIGSEGV, 2), (signal.SIGABRT, 0)])
def test_rows_of_a_launch_that_crashed_are_computed_again_and_no_others(
    tmp_path: Path, source_config: Write, signum: signal.Signals, ranks: int
) -> None:
    out, deadly = tmp_path / "out", tmp_path / "deadly"
    config = source_config(delay=0.01, deadly=str(deadly))
    for line in (f"train 40 {int(signal.SIGKILL)}", f"test 90 {int(signum)}"):
        before = read(out)["done"].astype(bool) if out.exists() else np.zeros(192, bool)
        deadly.write_text(line)
        result = run_job("extract", config, "--out", out, ranks=ranks)
        assert result.returncode not in (0, 1, 2, 75), result.stderr
    damaged = read(out)["done"].astype(bool) & ~before
    assert before.any()
    assert 0 < damaged.sum() < 192 - before.sum()
    with h5py.File(out / "features.h5", "r+") as file:  # what damaged memory may have made of them
        file["logits"][:] += damaged[:, None].astype(np.float32)
    rows = read_rows(RunPaths(out))
    assert rows is not None
    assert rows.done == before.sum()
    again = run_job("extract", config, "--out", out, ranks=3)
    assert again.returncode == 0, again.stderr
    assert "a rank of the last launch crashed" in again.stderr
    assert run_job("extract", config, "--out", tmp_path / "whole").returncode == 0
    assert_same(out, tmp_path / "whole")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_warning_signal_saves_and_says_so(tmp_path: Path, source_config: Write, signum: signal.Signals) -> None:
    out, config = tmp_path / "out", source_config(delay=0.02)
    process = start(config, out, 2)
    wait_for_rows(out, 32)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    done, total = features_progress(out / "features.h5") or (0, 0)
    assert 32 <= done < total
    if signum == signal.SIGUSR1:  # mpirun forwards it; SIGTERM it may follow with a kill
        assert process.returncode == RESUME, stderr
        assert f"{done} of {total} rows done; the same command goes on from there" in stderr
    assert run_job("extract", config, "--out", out, ranks=2).returncode == 0
    assert features_progress(out / "features.h5") == (total, total)


def test_a_signal_to_one_rank_alone_stops_all(tmp_path: Path, source_config: Write) -> None:
    out = tmp_path / "out"
    process = start(source_config(delay=0.02), out, 2)
    wait_for_rows(out, 32)
    ranks_of(process)[1].send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == RESUME


def test_an_exception_on_one_rank_ends_the_job_with_its_message(tmp_path: Path, source_config: Write) -> None:
    started = time.monotonic()
    result = run_job("extract", source_config(broken=90), "--out", tmp_path / "out", ranks=2, timeout=60)
    assert result.returncode not in (0, 75)
    assert "cannot decode image 90" in result.stderr
    assert time.monotonic() - started < 40


def test_a_second_run_has_nothing_to_do_and_imports_no_mindspore(tmp_path: Path, source_config: Write) -> None:
    config, out = source_config(), tmp_path / "out"
    assert run_job("extract", config, "--out", out, ranks=2).returncode == 0
    before = (out / "features.h5").stat().st_mtime_ns
    started = time.monotonic()
    again = run_job("extract", config, "--out", out, ranks=2)
    assert again.returncode == 0
    assert "nothing to do, all 192 rows are done" in again.stderr
    assert time.monotonic() - started < 10
    assert (out / "features.h5").stat().st_mtime_ns == before


def test_a_world_that_the_launcher_did_not_mean_is_refused(tmp_path: Path, source_config: Write) -> None:
    env = {**os.environ, "PMI_SIZE": "4", "SLURM_NTASKS": "4"}
    result = run_job("extract", source_config(), "--out", tmp_path / "out", env=env)
    assert result.returncode == 2
    assert result.stderr.startswith("mia-batch: MPI: the world must have ")
    assert not (tmp_path / "out").exists()


def test_no_mpi_library_is_one_line_from_all_ranks(tmp_path: Path, source_config: Write) -> None:
    broken = tmp_path / "site" / "mpi4py"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('cannot load MPI library\\nlibmpi.so: no such file')")
    env = {**os.environ, "PYTHONPATH": str(broken.parent)}
    line = one_line(run_job("extract", source_config(), "--out", tmp_path / "out", ranks=2, env=env))
    assert line.startswith("mia-batch: MPI: the launcher's MPI library must be loadable by mpi4py")
    assert line.endswith("got: cannot load MPI library")


def test_a_label_outside_the_network_is_one_line(tmp_path: Path, net_config: Write) -> None:
    config = net_config()
    records = np.fromfile(tmp_path / "data" / "test.bin", np.uint8).reshape(-1, 3074)
    records[40, 1] = 57
    records.tofile(tmp_path / "data" / "test.bin")
    line = one_line(run_job("extract", config, "--out", tmp_path / "out", ranks=2))
    assert "test sample 40" in line
    assert "label must be in [0, 10), got 57" in line


def test_a_label_that_is_another_with_its_image_is_one_line(tmp_path: Path, source_config: Write) -> None:
    """Of one sample that the check has not looked at."""
    selection = look_at(load_config(config := source_config(other=41), need=()).data)[0]
    assert 41 not in {selection.sample_index[row] for rows in looked_at(selection.split) for row in rows}
    result = run_job("extract", config, "--out", tmp_path / "out", ranks=2)
    rule = "the label read with the input must equal the one in labels or targets, or read alone, got 2 and 1"
    assert f"{config}: data.source: test sample 41: {rule}" in one_line(result)


def test_a_label_that_has_changed_since_the_run_began_is_one_line(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "out")
    write_rows(make_run(paths, a_manifest()), a_manifest(), done=5)
    labels, member, group = np.zeros(N), np.arange(N) < N // 2, np.full(N, NO_GROUP)
    selection = [
        Selection(np.arange(N), np.full(N, "train"), found, member, group) for found in (labels, labels + 3)
    ]
    assert RootFile().rows_done(paths, selection[0]).sum() == 5
    rule = "train sample 0: label must be what it was when the run began, got 3, was 0"
    with pytest.raises(InputError, match=f"features.h5: {rule}"):
        RootFile().rows_done(paths, selection[1])


def test_another_config_into_the_same_directory_is_refused(tmp_path: Path, source_config: Write) -> None:
    out = tmp_path / "out"
    assert run_job("extract", source_config(), "--out", out, ranks=2).returncode == 0
    before = (out / "features.h5").read_bytes()
    line = one_line(run_job("extract", source_config(n=80), "--out", out, ranks=2))
    assert "--out: holds another run: data.kwargs.n was nothing and is now 80" in line
    assert (out / "features.h5").read_bytes() == before


def test_unfinished_rows_of_another_run_are_refused_and_kept(tmp_path: Path, source_config: Write) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    config = source_config()
    assert run_job("extract", config, "--out", one).returncode == 0
    forget_rows(one / "features.h5", range(5, 9))
    config.write_text(config.read_text().replace("batch_size: 16", "batch_size: 32"))
    assert run_job("extract", config, "--out", other).returncode == 0
    shutil.copy(one / "features.h5", other / "features.h5")
    line = one_line(run_job("extract", config, "--out", other))
    assert "--out: holds another run: extract.batch_size was 16 and is now 32" in line
    assert (other / "features.h5").read_bytes() == (one / "features.h5").read_bytes()


def test_a_checkpoint_that_has_changed_is_refused(tmp_path: Path, checkpoint: Path, net_config: Write) -> None:
    own = tmp_path / "own.ckpt"
    shutil.copy(checkpoint, own)
    config, out = net_config(checkpoint=own), tmp_path / "out"
    assert run_job("extract", config, "--out", out).returncode == 0
    content = bytearray(own.read_bytes())
    content[len(content) // 2] ^= 1  # a weight's
    own.write_bytes(content)
    line = one_line(run_job("extract", config, "--out", out))
    assert "--out: holds another run: the content of model.checkpoint has changed; choose another --out" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which needs root")
def test_a_full_disk_is_one_line(tmp_path: Path, net_config: Write) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", small], check=True)
    try:
        result = run_job("extract", net_config(), "--out", small / "out", ranks=2)
        assert "the disk is full" in one_line(result)
        assert not (small / "out" / "features.h5").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_groups_and_twins_come_out_of_any_number_of_ranks(
    tmp_path: Path, records: Path, net_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test sample 7 is train sample 4 with another label; each group has rows on both sides."""
    train, test = (np.fromfile(records / f"{name}.bin", np.uint8).reshape(-1, 3074) for name in ("train", "test"))
    test[7, 2:], test[7, 1] = train[4, 2:], (train[4, 1] + 1) % 10
    test.tofile(records / "test.bin")
    groups = {name: str(tmp_path / f"{name}.npy") for name in ("train", "test")}
    for name, file in groups.items():
        np.save(file, np.arange({"train": 90, "test": 70}[name]) // 3)
    config = net_config({"data.group": groups})
    for ranks in (1, 2):
        assert run_job("extract", config, "--out", tmp_path / f"r{ranks}", ranks=ranks).returncode == 0
    assert_same(tmp_path / "r1", tmp_path / "r2")
    features = read_features(tmp_path / "r2" / "features.h5")
    assert np.flatnonzero(twins(features.content, features.member)).tolist() == [4, 97]
    assert features.group is not None
    assert features.group_name is not None
    assert features.group_name.astype(str).tolist() == [str(number) for number in features.group]
    assert main(["verify", str(tmp_path / "r2")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["whole", "whole"]
    assert features.group.tolist() == [*(np.arange(90) // 3), *(np.arange(70) // 3)]
    assert (features.statistics[4] == features.statistics[97]).all()
    np.testing.assert_allclose(features.statistics[:90, 0], train[:, 2:].mean(1), rtol=1e-6)


def test_tokens_through_a_function_are_the_same_from_any_ranks_prepared_and_resumed(tmp_path: Path) -> None:
    """The shipped classifier of text, untrained; ids are shifted and masks turned to floats on their way to it."""
    shutil.copytree(REPO / "configs" / "text", tmp_path / "text")
    (tmp_path / "change.py").write_text("def change(given): return given[0] % 100, given[1].astype('f8')\n")
    subprocess.run([sys.executable, "-c", SAVE_TEXT, tmp_path], check=True, capture_output=True)
    raw = yaml.safe_load((REPO / "configs" / "text.yaml").read_text())
    raw["model"]["checkpoint"], raw["data"]["kwargs"]["n"] = "net.ckpt", 75
    raw["data"]["preprocess"] = "change.py:change"
    del raw["data"]["pad_to"]
    config = tmp_path / "text.yaml"
    config.write_text(yaml.safe_dump(raw))
    for ranks in (1, 3):
        done = run_job("extract", config, "--out", tmp_path / f"r{ranks}", ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "r1", tmp_path / "r3")
    assert len(np.unique(read(tmp_path / "r1")["content"], axis=0)) == 150
    assert set(read(tmp_path / "r1")["statistics"][:, 5]) == set(range(6, 25))  # lengths before padding
    assert run_job("prepare", config, "--out", tmp_path / "prepared").returncode == 0
    shutil.copytree(tmp_path / "r1", tmp_path / "again")
    forget_rows(tmp_path / "again" / "features.h5", [3, 20, 21, 90])
    prepared = f"--prepared={tmp_path / 'prepared'}"
    assert run_job("extract", config, "--out", tmp_path / "again", prepared, ranks=2).returncode == 0
    assert_same(tmp_path / "r1", tmp_path / "again")
    (tmp_path / "change.py").write_text("def change(given): return given[0], given[1]\n")
    line = one_line(run_job("extract", config, "--out", tmp_path / "r1"))
    assert "--out: holds another run: the content of data.preprocess has changed" in line


def test_a_half_finished_file_of_the_version_before_is_continued(tmp_path: Path, net_config: Write) -> None:
    config, out = net_config(), tmp_path / "out"
    assert run_job("extract", config, "--out", out).returncode == 0
    whole = read(out)
    forget_rows(out / "features.h5", range(50, len(whole["done"])))
    make_of_before(out / "features.h5")
    assert run_job("extract", config, "--out", out, ranks=2).returncode == 0
    features = read_features(out / "features.h5")
    assert features.content is None
    np.testing.assert_array_equal(features.logits, whole["logits"])
