"""What a run directory's file system must bear is tried before the first stage; what is odd but enough is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from refusing import answer, refused
from rundirs import a_manifest, make_run, write_rows

from mia_batch.commands import doctor
from mia_batch.errors import InputError
from mia_batch.rundir import file_system
from mia_batch.rundir.claim import claim
from mia_batch.rundir.features import read_features
from mia_batch.rundir.file_system import try_once, try_out
from mia_batch.rundir.paths import RunPaths

LOCKS = "must be on a file system that locks files, by flock or by fcntl, got one that refuses both"


@pytest.fixture(autouse=True)
def nothing_tried_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system, "_tried", set())


@pytest.mark.parametrize(
    "calls", ["", "flock=ENOSYS", "flock=ENOLCK link=EPERM", "flock=ENOTSUPP link=ENOSYS", "range=ENOSYS link=EMLINK"]
)
def test_a_file_system_with_locks_of_either_kind_is_enough(tmp_path: Path, calls: str) -> None:
    answer(calls, try_out, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ("flock=ENOSYS range=ENOLCK", LOCKS),
        ("flock=0", "can lock files, got: a lock that keeps nobody out"),
        ("link=EACCES", "can give a name once, got: Permission denied"),
        ("fsync=EIO", "must be writable, got: Input/output error"),
        ("mmap_shared=ENODEV", "can write and map HDF5, got: No such device"),
    ],
)
def test_what_does_not_work_is_named(tmp_path: Path, calls: str, problem: str) -> None:
    with pytest.raises(InputError) as raised:
        answer(calls, try_out, tmp_path)
    (line,) = raised.value.problems
    assert line.startswith(str(tmp_path))
    assert problem in line
    assert ".mia-batch-try-" not in line
    assert not list(tmp_path.iterdir())


def test_each_file_system_is_tried_once_and_only_where_something_may_be_written(tmp_path: Path) -> None:
    try_once(tmp_path / "not" / "yet" / "there")
    assert file_system._tried == {tmp_path.stat().st_dev}
    before = tmp_path.stat().st_mtime_ns
    try_once(tmp_path)
    assert tmp_path.stat().st_mtime_ns == before


def test_nothing_is_tried_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by permissions, which root does not heed."""
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK | os.X_OK))
    try_once(tmp_path)
    assert not file_system._tried


def claimed(folder: Path) -> None:
    claim(RunPaths(folder), a_manifest())


def test_a_run_is_refused_before_its_first_stage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=LOCKS):
        answer("flock=ENOSYS range=ENOSYS", claimed, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_store_of_references_on_another_file_system_is_tried_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr("mia_batch.rundir.claim.try_once", tried.append)
    manifest = a_manifest()
    store = {"references": {"store": str(tmp_path / "store"), "checkpoints": []}}
    claim(RunPaths(tmp_path / "run"), manifest.model_copy(update={"config": {**manifest.config, **store}}))
    assert tried == [tmp_path / "run", tmp_path / "store"]


def test_the_doctor_tries_what_the_stages_do(tmp_path: Path) -> None:
    found = answer("flock=ENOSYS range=ENOSYS", doctor.directory, tmp_path)
    assert (found.state, found.advice) == (doctor.BAD, f"{tmp_path}: {LOCKS}")
    assert answer("flock=ENOSYS link=EPERM", doctor.directory, tmp_path).state == doctor.GOOD


# -- HDF5_USE_FILE_LOCKING ---------------------------------------------------------------------------------------------

VARIABLE = "HDF5_USE_FILE_LOCKING"
LOOK = """
import sys
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import read_state
print(read_state(RunPaths(sys.argv[1]))[0])
"""
WRITE = """
import sys; from pathlib import Path
from mia_batch.rundir.features import FeatureStore
with FeatureStore(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("told", "calls"),
    [("TRUE", ""), ("1", ""), ("TRUE", "flock=ENOSYS"), ("BEST_EFFORT", "flock=ENOLCK link=EPERM"), ("FALSE", "")],
)
def test_a_running_file_is_running_and_has_one_writer_whatever_the_environment_says(
    tmp_path: Path, told: str, calls: str
) -> None:
    """TRUE made it unreadable beside its writer; FALSE, which many sites set, let a second writer in."""
    paths = make_run(RunPaths(tmp_path / "run"), a_manifest())
    write_rows(paths, a_manifest(), done=2)

    def start(code: str, path: Path) -> subprocess.Popen[str]:
        command, pipe = refused(calls, sys.executable, "-c", code, path), subprocess.PIPE
        environ = {**os.environ, VARIABLE: told}
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environ)

    with start(WRITE, paths.features) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "writing\n"
        looked, said = start(LOOK, paths.root).communicate(timeout=60)
        assert "state='running', detail='2 of 20 rows'" in looked, said
        wrote, said = start(WRITE, paths.features).communicate(timeout=60)
        assert wrote == ""
        assert said.splitlines()[-1].endswith(f"{paths.features}: is in use by another process")


def read_rows_done(path: Path) -> int:
    return int(read_features(path).member.sum())


def test_complete_rows_can_be_read_where_there_are_no_locks(tmp_path: Path) -> None:
    """A run that was copied to an archive."""
    paths = make_run(RunPaths(tmp_path / "run"), a_manifest())
    write_rows(paths, a_manifest())
    assert answer("flock=ENOSYS range=ENOSYS", read_rows_done, paths.features) == 10
