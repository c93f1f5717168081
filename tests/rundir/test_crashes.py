"""A crash is known from who crashed or from who saw it, and takes the rows of its launch with it, no others."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rundirs import N, a_manifest, finish, write_rows

from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.rundir.crashes import CRASHES, begin_launch, crash_of, note_crash, refuse_crashed, rows_before_crash
from mia_batch.rundir.features import features_progress
from mia_batch.rundir.manifest import write_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import left_to_do, read_rows, read_state
from mia_batch.stages.extract import RootFile

BEFORE = np.arange(N) % 3 == 0
DIE = """
import os, sys
from mia_batch.rundir.crashes import report_own_crash
from mia_batch.rundir.paths import RunPaths
report_own_crash(RunPaths(sys.argv[1]))
os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    begin_launch(RunPaths(tmp_path), BEFORE)
    return RunPaths(tmp_path)


@pytest.mark.parametrize("signum", [*CRASHES, signal.SIGKILL, signal.SIGTERM])
def test_who_dies_of_a_crash_says_so(paths: RunPaths, signum: signal.Signals) -> None:
    for _ in range(2):
        code = subprocess.run([sys.executable, "-c", DIE, paths.root, str(int(signum))], check=False).returncode
        assert code == -signum
        before = rows_before_crash(paths, N)
        if signum in CRASHES:
            np.testing.assert_array_equal(before, BEFORE)
        else:
            assert before is None
    begin_launch(paths, ~BEFORE)
    assert rows_before_crash(paths, N) is None
    note_crash(paths, "exit code 139")
    np.testing.assert_array_equal(rows_before_crash(paths, N), ~BEFORE)


def test_a_start_that_finds_all_as_it_was_leaves_the_file_to_the_ranks_that_hold_it(paths: RunPaths) -> None:
    with open(paths.launch, "a") as held:
        begin_launch(paths, BEFORE)
        held.write("Fatal Python error")
    assert rows_before_crash(paths, N) is not None


def test_what_is_known_of_other_rows_makes_all_suspect(paths: RunPaths) -> None:
    note_crash(paths, "exit code 139")
    np.testing.assert_array_equal(rows_before_crash(paths, N + 1), np.zeros(N + 1, bool))


def test_a_directory_of_a_version_without_such_a_file_keeps_its_rows(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    note_crash(paths, "exit code 139")
    assert rows_before_crash(paths, N) is None
    refuse_crashed(paths)


@pytest.mark.parametrize(
    ("code", "crash"),
    [(0, None), (1, None), (2, None), (75, None), (9, None), (137, None), (15, None), (143, None), (130, None)]
    + [(base + signum, signum) for base in (0, 128) for signum in CRASHES],
)
def test_crashes_by_exit_code(code: int, crash: signal.Signals | None) -> None:
    assert crash_of(code) == crash


def test_a_crash_after_the_last_row_leaves_no_stage_done(tmp_path: Path) -> None:
    paths, manifest = RunPaths(tmp_path), a_manifest()
    paths.create()
    write_manifest(paths, manifest)
    write_rows(paths, manifest)
    finish(paths, manifest)
    begin_launch(paths, BEFORE)
    assert left_to_do(read_state(paths, manifest)).stages == ()
    note_crash(paths, "exit code 134")
    rows = read_rows(paths)
    assert rows is not None
    assert (rows.done, rows.total) == (BEFORE.sum(), N)
    assert "extract" in left_to_do(read_state(paths, manifest)).stages
    with pytest.raises(InputError, match="must be of an extraction whose ranks did not crash") as caught:
        refuse_crashed(paths)
    assert len(str(caught.value).splitlines()) == 1
    file = RootFile()
    known = np.zeros(N), np.repeat([1, 0], N // 2), np.full(N, -1)
    np.testing.assert_array_equal(file.rows_done(paths, Selection(np.arange(N), np.full(N, "train"), *known)), BEFORE)
    file.close()
    assert features_progress(paths.features) == (BEFORE.sum(), N)
    assert left_to_do(read_state(paths, manifest)).attacks == ("lr", "knn")
