"""The mini-cluster itself: that it is a cluster, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from minicluster import MiniCluster, wait_until

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
WORLD = """
from mpi4py import MPI
world = MPI.COMM_WORLD
nodes = set(world.allgather(MPI.Get_processor_name()))
if world.rank == 0:
    print(world.size, "ranks on", len(nodes))
"""


def daemons_of(root: str) -> list[str]:
    """Command lines on this host that name the directory `root`."""
    lines = subprocess.run(["ps", "axww", "-o", "stat=,args="], text=True, capture_output=True, check=True).stdout
    return [line for line in lines.splitlines() if root in line and not line.startswith("Z")]


@pytest.mark.usefixtures("daemons")
@pytest.mark.parametrize("victim", ["owner", "supervisor"])
def test_nothing_is_left_when_killed(victim: str) -> None:
    code = """
        import sys, time
        from minicluster import MiniCluster
        print(MiniCluster.start().root, flush=True)
        time.sleep(600)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=HERE)
    assert owner.stdout is not None
    root = owner.stdout.readline().strip()
    assert len(daemons_of(root)) > 6
    supervisor = int(Path(root, "supervisor.pid").read_text())
    if victim == "owner":
        owner.kill()
        wait_until(lambda: not Path(root).exists(), what="directory removed", timeout=20)
    else:
        os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not daemons_of(root), what="daemons gone", timeout=20)
    owner.kill()
    owner.communicate(timeout=20)
    MiniCluster.start().stop()
    assert not Path(root).exists()


def test_a_job_outlives_the_controller(cluster: MiniCluster, tmp_path: Path) -> None:
    job = cluster.sbatch("-o", tmp_path / "out", "--wrap", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo done")
    cluster.wait_job(job, ["RUNNING"])
    cluster.crash_controller(job)
    (tmp_path / "go").touch()
    wait_until(lambda: (tmp_path / "out").read_text() == "done\n", what="job finished without its controller")
    cluster.power_on("slurmctld")
    assert cluster.wait_job(job)["JobState"] == "COMPLETED"


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("launch", ["mpirun", "srun --mpi=pmi2 --kill-on-bad-exit"])
def test_mpi_makes_one_world_over_nodes(cluster: MiniCluster, tmp_path: Path, nodes: int, launch: str) -> None:
    script = tmp_path / "job.sh"
    script.write_text('#!/bin/bash\nexec "$@"\n')
    task = (*launch.split(), sys.executable, "-c", WORLD)
    path = {"PATH": f"{BIN}:{cluster.env['PATH']}"}
    job = cluster.sbatch(
        f"-N{nodes}", "--ntasks-per-node=2", "-o", tmp_path / "out", "-e", tmp_path / "err", script, *task, env=path
    )
    cluster.wait_job(job)
    assert (tmp_path / "out").read_text() == f"{2 * nodes} ranks on {nodes}\n"


def test_cards_are_given_by_name_and_number(cluster: MiniCluster) -> None:
    seen = cluster.run("srun", "--gres=gpu:2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES").stdout
    assert seen.strip() == "0,1"
    shown = cluster.run("srun", "--gres=npu:2", "sh", "-c", "scontrol show job $SLURM_JOB_ID").stdout
    assert "npu:2" in shown
    refused = cluster.run("srun", "--gres=npu:3", "true", check=False)
    assert refused.returncode != 0
