"""Reference models as an array on the mini-cluster: requeued, warned, and the same bits as undisturbed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from audits import Audit, mia_batch, status, submit, write_site
from minicluster import MiniCluster, wait_until

TRAIN = ("--set", "train.epochs=6", "--set", "train.checkpoint_every=1", "--set", "train.batch_size=8")
SLOW = 0.02  # seconds to read a sample: an epoch of half of 256 takes some 3 s


@pytest.mark.slow
def test_an_array_of_trainings_loses_nothing_and_the_audit_waits_for_it(
    cluster: MiniCluster, tmp_path: Path, new_audit: Callable[..., Audit]
) -> None:
    audit, run, calm = new_audit(), tmp_path / "run", tmp_path / "calm"
    words = ("--shadows", "2", *TRAIN, "--site", write_site(tmp_path / "site.yaml"))
    undisturbed = submit(cluster, audit.config, "--out", calm, *words)
    for number in range(2):
        assert cluster.wait_job(f"{undisturbed['shadows']}_{number}")["ExitCode"] == "0:0"
    cluster.run("scancel", *undisturbed.values())
    audit.set_pace(SLOW)
    command = (audit.config, "--out", run, *words)
    jobs = submit(cluster, *command)
    assert list(jobs) == ["shadows", "extract", "attack", "reduce"]
    folder, array = run / "shadows", jobs["shadows"]
    tasks = {number: f"{array}_{number}" for number in range(2)}
    for number in tasks:
        state = folder / f"shadow_00{number}.training.ckpt"
        wait_until(state.exists, what=f"a first epoch of model {number}")
    assert "in the queue" in mia_batch(cluster, "submit", *command, check=False).stderr
    cluster.run("scancel", "--signal=USR1", "--batch", tasks[0])
    cluster.run("scontrol", "requeue", tasks[1])
    for number, task in tasks.items():
        wait_until(lambda: int(cluster.job(task)["Restarts"]) > 0, what=f"restart of model {number}")  # noqa: B023
    assert cluster.job(jobs["extract"])["JobState"] == "PENDING"
    audit.set_pace(0)
    for task in tasks.values():
        assert cluster.wait_job(task)["ExitCode"] == "0:0"
    cluster.wait_job(jobs["reduce"])
    assert {stage["state"] for stage in status(cluster, run).values()} == {"done"}
    for name in ("plan.npz", "shadow_000.ckpt", "shadow_001.ckpt"):
        assert (folder / name).read_bytes() == (calm / "shadows" / name).read_bytes(), name
    assert "going on after" in (folder / "logs" / f"shadows-{array}_0.log").read_text()
    again = json.loads(mia_batch(cluster, "submit", *command, "--json").stdout)
    assert again == {"jobs": {}, "runs": []}
    assert os.stat(folder).st_mode & 0o077 == 0
