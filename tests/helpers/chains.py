"""The chain of an audit that trains its own references: what it leaves, to compare one with another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from audits import metrics
from minicluster import MiniCluster, wait_until

from mia_batch.files import sha256

Deed = Callable[[MiniCluster, str, str], None]
NOTHING: dict[str, list[str]] = {"jobs": {}, "runs": []}  # type: ignore[dict-item]  # what a second submit says


def left_behind(run: Path, store: Path) -> dict[str, Any]:
    """Digests of plan and weights, of every dataset of the store by key, and of the features; all metrics."""
    found: dict[str, Any] = {file.name: sha256(file) for file in sorted((run / "shadows").glob("*.ckpt"))}
    found["plan.npz"] = sha256(run / "shadows" / "plan.npz")
    for file in (*sorted(store.glob("*.h5")), run / "features.h5"):
        found |= {f"{file.name}/{name}": digest for name, digest in _datasets(file).items()}
    return found | {"metrics": metrics(run)}


def _datasets(path: Path) -> dict[str, str]:
    with h5py.File(path) as file:
        return {name: hashlib.sha256(np.ascontiguousarray(file[name][:]).tobytes()).hexdigest() for name in file}


def times_of(*folders: Path) -> dict[Path, int]:
    """When each visible file of these folders was last changed."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {file: file.stat().st_mtime_ns for file in files if not file.name.startswith(".")}


def running(cluster: MiniCluster, jobs: Mapping[str, str], stage: str) -> list[tuple[str, str]]:
    """The jobs or tasks of a stage that run, each with its node."""
    found = []
    for each in cluster.jobs(jobs[stage]):
        if each["JobState"] == "RUNNING":
            task = f"{each['ArrayJobId']}_{each['ArrayTaskId']}" if "ArrayTaskId" in each else each["JobId"]
            nodes = cluster.run("scontrol", "show", "hostnames", each["NodeList"], check=False).stdout.split()
            found += [(task, node) for node in nodes[:1]]
    return found


def restarts(cluster: MiniCluster, jobs: Mapping[str, str]) -> dict[str, int]:
    """How often Slurm has started jobs of each stage again."""
    return {stage: sum(int(each.get("Restarts", 0)) for each in cluster.jobs(job)) for stage, job in jobs.items()}


def warn(cluster: MiniCluster, task: str, _node: str) -> None:
    """What --signal=B:USR1 does when the time limit is near."""
    cluster.run("scancel", "--signal=USR1", "--batch", task, check=False)


def requeue(cluster: MiniCluster, task: str, _node: str) -> None:
    """What an operator may do."""
    cluster.run("scontrol", "requeue", task, check=False)


def set_down(cluster: MiniCluster, _task: str, node: str) -> None:
    """Slurm ends what runs on the node, and starts it elsewhere."""
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


def power_off(cluster: MiniCluster, _task: str, node: str) -> None:
    """The node's processes are gone at once; it comes back."""
    cluster.power_off(node)
    cluster.power_on(node)


def disturb(cluster: MiniCluster, jobs: Mapping[str, str], stage: str, deed: Deed, drawn: random.Random) -> str:
    """Do it to a job of a stage that runs, drawn by chance; its name, once it is not running as it was."""
    chosen = wait_until(lambda: running(cluster, jobs, stage), timeout=1800, what=f"a job of {stage} that runs")
    task, node = drawn.choice(chosen)
    deed(cluster, task, node)
    return task
