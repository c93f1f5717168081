"""Shared memory of killed ranks goes with the next start on the host, that of living ones stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mia_batch.mpi.leftovers import FOLDER, remove_left_segments

HOLD = """
import mmap, sys, time
file = open(sys.argv[1], "r+b")
if sys.argv[2] == "map":
    held = mmap.mmap(file.fileno(), 0)
    file.close()
print("held", flush=True)
time.sleep(60)
"""


def segment(folder: Path, name: str, *, age_s: float = 3600) -> Path:
    path = folder / name
    path.write_bytes(bytes(4096))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_only_old_ones_that_are_ours_go(tmp_path: Path) -> None:
    names = ("mpich_shm_1a_0", "mpich_shar_tmpx", "sm_segment.n1.0.1", "vader_segment.a")
    left = [segment(tmp_path, name) for name in names]
    stay = [segment(tmp_path, "psm_1a"), segment(tmp_path, "mpich_shm_2_0", age_s=10)]
    link = tmp_path / "mpich_shm_link"
    link.symlink_to(stay[0])
    foreign = segment(tmp_path, "mpich_shm_3_0")
    if os.geteuid() == 0:
        os.chown(foreign, 12345, -1)
        os.utime(foreign, (0, 0))
        stay.append(foreign)
    else:
        left.append(foreign)
    assert sorted(remove_left_segments(tmp_path)) == sorted(left)
    assert sorted(tmp_path.iterdir()) == sorted([*stay, link])
    assert remove_left_segments(tmp_path) == []


@pytest.mark.parametrize("how", ["map", "open"])
def test_one_that_a_process_has_stays_until_it_is_killed(tmp_path: Path, how: str) -> None:
    path = segment(tmp_path, "mpich_shm_1_0")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert remove_left_segments(tmp_path) == []
        assert path.exists()
        holder.kill()
        holder.wait()
    assert remove_left_segments(tmp_path) == [path]


KILLED = """
import os, sys
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
print(*{line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/" in line}, flush=True)
MPI.COMM_WORLD.Barrier()
os.kill(os.getpid(), 9)
"""


def test_what_this_hosts_mpi_leaves_has_a_name_that_is_known() -> None:
    """What the ranks themselves name: other tests have ranks, too."""
    command = [Path(sys.executable).with_name("mpirun"), "-n", "2", sys.executable, "-c", KILLED]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    left = {Path(name) for name in ended.stdout.split() if Path(name).exists()}
    for path in left:
        os.utime(path, (0, 0))
    assert left <= set(remove_left_segments())
    assert left.isdisjoint(FOLDER.iterdir())
