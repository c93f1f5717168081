"""Which checkpoints a nightly takes, and that of many processes one gets each: no daemons needed."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rundirs import one_entry, write_rows

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_bytes import SUFFIXES, check_whole
from mia_batch.process.command_line import add_output_arguments
from mia_batch.rundir.manifest import write_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import claims, nightly
from mia_batch.scheduler.submission import Run
from mia_batch.scheduler.watch import complete_checkpoints
from mia_batch.settings.loading import load_config, with_checkpoint
from mia_batch.stages.plan import make_manifest


def is_whole(path: Path) -> bool:
    try:
        check_whole(path)
    except InputError:
        return False
    return True


def test_every_prefix_of_a_checkpoint_that_cuts_a_parameter_is_incomplete(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    data = checkpoints[0].read_bytes()
    file = tmp_path / "x.ckpt"
    whole = []
    for end in range(len(data) + 1):
        file.write_bytes(data[:end])
        if is_whole(file):
            whole.append(end)
    # What ends between two parameters is a valid file of fewer of them; extract refuses it as such.
    assert whole[-1] == len(data)
    assert len(whole) < 20
    file.write_bytes(data + b"crc_num" + bytes(10))
    assert is_whole(file)
    file.write_bytes(data + b"crc_num" + bytes(9))
    assert not is_whole(file)


def test_safetensors_are_whole_when_the_last_tensor_is_there(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(8)
    file = tmp_path / "x.safetensors"
    for end in range(len(data) + 1):
        file.write_bytes(data[:end])
        assert is_whole(file) == (end == len(data))


@pytest.mark.parametrize("content", [b"", b"text that is no checkpoint", b"\x0a" + b"\xff" * 12, bytes(100)])
def test_other_files_are_not_checkpoints(tmp_path: Path, content: bytes) -> None:
    for suffix in SUFFIXES:
        file = tmp_path / f"x{suffix}"
        file.write_bytes(content)
        assert not is_whole(file)


def test_files_are_taken_once_nobody_writes_to_them(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("old.ckpt", 300), ("older.ckpt", 400), ("fresh.ckpt", 1), (".hidden.ckpt", 300), ("x.txt", 300)):
        (tmp_path / name).write_bytes(one_entry(name.encode()))
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "torn.ckpt").write_bytes(one_entry(b"torn")[:-1])
    os.utime(tmp_path / "torn.ckpt", (now - 300, now - 300))
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "gone.ckpt").symlink_to(tmp_path / "nowhere")
    found = [path.name for path, _ in complete_checkpoints(tmp_path)]
    assert found == ["older.ckpt", "old.ckpt"]
    with pytest.raises(InputError, match="--watch: must be a directory"):
        list(complete_checkpoints(tmp_path / "nowhere"))


def test_one_of_many_gets_a_claim(tmp_path: Path) -> None:
    for name in range(20):
        paths = RunPaths(tmp_path / str(name))
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda _: claims.claim(paths), range(8)))  # noqa: B023
        assert got.count(True) == 1


def age(paths: RunPaths, seconds: float) -> None:
    """Make everything in a run directory older."""
    for path in [paths.root, *paths.root.iterdir()]:
        status = path.stat()
        os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_claim_of_a_process_that_died_is_taken_over_once(tmp_path: Path, sign: int) -> None:
    """Also of one whose clock was ahead, which would never grow old."""
    paths = RunPaths(tmp_path / "run")
    assert claims.claim(paths)
    assert not claims.claim(paths)
    age(paths, (claims.STALE_CLAIM_S + 1) * sign)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: claims.claim(paths), range(8)))
    assert got.count(True) == 1
    assert not claims.claim(paths)


def test_a_failed_audit_is_queued_again_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "active_jobs", lambda runs: {paths: [] for paths in runs})
    paths = RunPaths(tmp_path / "run")
    assert claims.claim(paths)
    paths.jobs.write_text('{"submissions": []}')
    age(paths, 2 * claims.STALE_CLAIM_S)
    assert not claims.claim(paths)
    assert claims.claim(paths, retry=True)
    assert not claims.claim(paths, retry=True)
    paths.jobs.write_text('{"submissions": []}')
    monkeypatch.setattr(claims, "active_jobs", lambda runs: {paths: ["1 RUNNING"] for paths in runs})
    assert not claims.claim(paths, retry=True)
    paths.summary_json.write_text("{}")
    monkeypatch.setattr(claims, "active_jobs", lambda runs: {paths: [] for paths in runs})
    assert not claims.claim(paths, retry=True)


def test_a_run_whose_jobs_cannot_be_read_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = RunPaths(tmp_path / "run")
    assert claims.claim(paths)
    paths.jobs.write_text("{")
    age(paths, 2 * claims.STALE_CLAIM_S)
    assert not claims.claim(paths, retry=True)
    assert f"left alone: {paths.jobs}: must be a record of submitted jobs" in caplog.text


def test_a_released_claim_can_be_claimed(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    assert claims.claim(paths)
    claims.release([Run(tmp_path / "x.ckpt", paths)])
    assert claims.claim(paths)


def run_nightly(config: Path, watch: object, runs: object, *words: str) -> int:
    parser = argparse.ArgumentParser()
    nightly.add_arguments(parser)
    add_output_arguments(parser, **nightly.QUIET)
    return nightly.run(parser.parse_args([str(config), "--watch", str(watch), "--runs", str(runs), *words]))


def test_bad_input_is_refused_also_on_a_night_without_a_checkpoint(
    tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    config, watch = write_config(), tmp_path / "watch"
    watch.mkdir()
    (tmp_path / "file").touch()
    for argv, rule in (
        ((tmp_path / "nowhere.yaml", watch, tmp_path / "runs"), "must be a configuration file"),
        ((config, watch, tmp_path / "file" / "runs"), "--runs: must be a directory, got .*file/runs, but "),
        ((config, watch, ""), "--runs: must name a directory"),
        ((config, "", tmp_path / "runs"), "--watch: must name a directory"),
        ((config, watch, tmp_path / "runs", "--quiet=-1"), "--quiet: must be 0 or more, got -1"),
        ((config, watch, tmp_path / "runs", "--quiet=nan"), "--quiet: must be 0 or more, got nan"),
    ):
        with pytest.raises(InputError, match=rule):
            run_nightly(*argv)
    assert run_nightly(config, watch, tmp_path / "runs") == 0
    assert not (tmp_path / "runs").exists()


def test_a_night_ends_with_the_trajectories_of_all_audits(
    tmp_path: Path, write_config: Callable[..., Path], checkpoints: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    watch = tmp_path / "watch"
    watch.mkdir()
    shutil.copy(checkpoints[0], watch)
    assert run_nightly(write_config(), watch, tmp_path / "runs", "--quiet=0", "--dry-run") == 0
    *_, reduce, trajectory = capsys.readouterr().out.splitlines()
    assert reduce.startswith("reduce=$(sbatch")
    assert "--dependency=afterany:$reduce" in trajectory
    assert f"trajectory.sbatch {tmp_path}" in trajectory
    assert f" {tmp_path / 'runs'} -- " in trajectory


def test_claims_are_given_up_when_a_later_one_cannot_be_made(
    tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, runs = tmp_path / "watch", tmp_path / "runs"
    watch.mkdir()
    for name in ("a", "b"):
        (watch / f"{name}.ckpt").write_bytes(one_entry(name.encode()))
        os.utime(watch / f"{name}.ckpt", (0, 0))
    claim, asked = claims.claim, []

    def fail_on_the_second(paths: RunPaths, *, retry: bool) -> bool:
        asked.append(paths)
        if len(asked) == 2:
            raise InputError("Slurm: must answer")
        return claim(paths, retry=retry)

    monkeypatch.setattr(nightly, "claim", fail_on_the_second)
    with pytest.raises(InputError, match="must answer"):
        run_nightly(write_config(), watch, runs)
    assert list(runs.iterdir()) == []


def test_a_claim_that_the_system_refuses_is_not_another_processs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(tmp_path / "run")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    paths.root.mkdir()
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space"):
        claims._mark_claim(paths, 0)


def test_a_failed_audit_of_another_config_does_not_stop_the_others(
    tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claims, "active_jobs", lambda runs: {paths: [] for paths in runs})
    watch, runs = tmp_path / "watch", tmp_path / "runs"
    watch.mkdir()
    for name in ("failed", "new"):
        (watch / f"{name}.ckpt").write_bytes(one_entry(name.encode()))
        os.utime(watch / f"{name}.ckpt", (0, 0))
    parser = argparse.ArgumentParser()
    nightly.add_arguments(parser)
    add_output_arguments(parser, **nightly.QUIET)
    args = parser.parse_args([str(write_config()), "--watch", str(watch), "--runs", str(runs), "--retry"])
    config = load_config(args.config)
    failed, new = nightly.find_new(args, config, runs)
    of_config = make_manifest(with_checkpoint(config, failed.checkpoint))
    write_manifest(failed.paths, of_config)
    failed.paths.jobs.write_text('{"submissions": []}')
    args.dry_run = True
    larger = load_config(write_config({"data.image_size": [64, 64]}))
    assert nightly.find_new(args, larger, runs) == [failed]  # it holds no rows yet
    write_rows(failed.paths, of_config, done=1)
    assert nightly.find_new(args, config, runs) == [failed]
    assert nightly.find_new(args, load_config(write_config({"gate": {"threshold": 0.7}})), runs) == [failed]
    assert nightly.find_new(args, larger, runs) == []
    assert "holds another run: data.image_size was [32, 32] and is now [64, 64]" in caplog.text
    claims.release([new])
    args.dry_run = False
    assert nightly.find_new(args, larger, runs) == [new]
    assert nightly.find_new(args, config, runs) == [failed]  # its claim was given up


def test_at_most_so_many_are_queued_the_oldest_first(
    tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, runs = tmp_path / "watch", tmp_path / "runs"
    watch.mkdir()
    for when, name in enumerate(("c", "a", "b")):
        (watch / f"{name}.ckpt").write_bytes(one_entry(name.encode()))
        os.utime(watch / f"{name}.ckpt", (when, when))
    queued: list[list[str]] = []

    def note(_config: object, new: list[Run], *_: object, **__: object) -> None:
        queued.append([run.checkpoint.stem for run in new])
        for run in new:
            run.paths.jobs.write_text("{}")
        raise InputError("stop here")

    monkeypatch.setattr(nightly, "submit_arrays", note)
    for _ in range(2):
        with pytest.raises(InputError, match="stop here"):
            run_nightly(write_config(), watch, runs, "--at-most=2")
    assert queued == [["c", "a"], ["b"]]
    assert run_nightly(write_config(), watch, runs, "--at-most=2") == 0
    with pytest.raises(InputError, match="--at-most: must be at least 1, got 0"):
        run_nightly(write_config(), watch, runs, "--at-most=0")
