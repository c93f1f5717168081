"""An audit that trains its own references, as one chain on the mini-cluster: disturbed, and the same as undisturbed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audits import Audit, mia_batch, status, submit, write_site
from chains import NOTHING, disturb, left_behind, power_off, requeue, restarts, running, times_of, warn
from minicluster import MiniCluster, wait_until

TRAIN = ("--set", "train.epochs=6", "--set", "train.checkpoint_every=1", "--set", "train.batch_size=8")
STARTING, HELD = 0.02, 1.0  # seconds to read a sample: an epoch of half of 256 takes some 3 s, then 2 minutes
METHODS = ({"method": "threshold_loss"}, {"method": "lira_fixed"})


def finish(cluster: MiniCluster, jobs: dict[str, str]) -> None:
    """Wait until the chain has ended, each job as it should."""
    for stage, job in jobs.items():
        good = ("0:0", "3:0", "4:0") if stage == "reduce" else ("0:0",)
        assert cluster.wait_job(job)["ExitCode"] in good, stage


def launches(run: Path, stage: str) -> list[dict[str, Any]]:
    """What run.json tells of the launches of a stage."""
    return [launch for launch in json.loads((run / "run.json").read_text())["launches"] if launch["stage"] == stage]


def disturb_often(
    cluster: MiniCluster, jobs: dict[str, str], stage: str, drawn: random.Random, begun: Callable[[int], bool]
) -> None:
    """Warn, requeue and power off what runs of a stage, each once what the one before has ended has begun again."""
    for number, deed in enumerate((warn, requeue, power_off)):
        wait_until(lambda: begun(number), what=f"begun after {number} deeds")  # noqa: B023
        disturb(cluster, jobs, stage, deed, drawn)
        wait_until(lambda: restarts(cluster, jobs)[stage] > number, what=f"restart {number + 1}")  # noqa: B023


@pytest.mark.slow
def test_a_chain_with_its_own_references_loses_nothing_and_uses_them(
    cluster: MiniCluster, tmp_path: Path, new_audit: Callable[..., Audit]
) -> None:
    audit, run, calm = new_audit(methods=METHODS), tmp_path / "run", tmp_path / "calm"
    site = write_site(tmp_path / "site.yaml")

    def words(out: Path) -> list[str | Path]:
        store = f"references.store={out}-store"
        return [audit.config, "--out", out, "--shadows", "2", *TRAIN, "--set", store, "--site", site]

    finish(cluster, submit(cluster, *words(calm)))
    for stage in ("shadows", "references"):
        audit.set_pace(STARTING, stage)
    jobs, drawn = submit(cluster, *words(run)), random.Random(0)
    assert list(jobs) == ["extract", "shadows", "references", "attack", "reduce"]
    folder, store = run / "shadows", Path(f"{run}-store")
    for number in range(2):
        wait_until((folder / f"shadow_00{number}.training.ckpt").exists, what=f"a first epoch of model {number}")
    audit.set_pace(HELD, "shadows")
    assert cluster.wait_job(jobs["extract"])["ExitCode"] == "0:0"
    assert running(cluster, jobs, "shadows")  # which it has not waited for
    assert status(cluster, run)["shadows"]["state"] == "running"
    assert "in the queue" in mia_batch(cluster, "submit", *words(run), check=False).stderr
    disturb_often(cluster, jobs, "shadows", drawn, lambda _: True)
    assert {each["JobState"] for each in cluster.jobs(jobs["references"])} == {"PENDING"}
    audit.set_pace(0, "shadows")
    wait_until(lambda: list(store.glob(".*.h5")), timeout=600, what="outputs of a reference that are begun")
    audit.set_pace(HELD, "references")
    disturb_often(cluster, jobs, "references", drawn, lambda n: len(launches(run, "references")) >= 2 + n)
    audit.set_pace(0, "references")
    finish(cluster, jobs)
    assert left_behind(run, store) == left_behind(calm, Path(f"{calm}-store"))
    said = status(cluster, run)
    assert {stage["state"] for stage in said.values()} == {"done"}
    assert (said["shadows"]["detail"], said["references"]["detail"]) == ("2 of 2 trained", "2 of 2")
    assert len(launches(run, "shadows")) == 2
    assert len(launches(run, "references")) >= 2 + 3
    assert sum(launch.get("complete", False) for launch in launches(run, "references")) == 2
    before = times_of(tmp_path)
    assert json.loads(mia_batch(cluster, "submit", *words(run), "--json").stdout) == NOTHING
    assert times_of(tmp_path) == before
    assert os.stat(folder).st_mode & 0o077 == 0
