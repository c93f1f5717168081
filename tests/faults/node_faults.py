"""Nodes that lose power under a chain of jobs on the mini-cluster."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cluster"))

from audits import KNN, LR, RF, Audit, metrics, same_features, submit, write_checkpoints, write_site
from chains import disturb, power_off
from minicluster import MiniCluster

STAGES = {"extract": 0.15, "attack": 0.0}  # seconds to read a sample, for the stage to last
GOOD = {"reduce": ("0:0", "3:0", "4:0")}


def nodes_off(n: int, seed: int, work: Path) -> Iterator[tuple[str, str, str]]:
    """Seed, stage, and what is bad of each of so many chains, one of whose nodes is off for a while; "" if nothing."""
    checkpoint = write_checkpoints(work, 1)[0]
    cluster = MiniCluster.start()
    try:
        calm = work / "calm"
        audit = Audit.write(work, checkpoint, methods=(LR, KNN, RF))
        site = write_site(work / "site.yaml")
        if bad := _finish(cluster, submit(cluster, audit.config, "--out", calm, "--site", site)):
            raise AssertionError(f"a chain must work undisturbed, got {bad}")
        for number in range(n):
            text = f"{seed} node {number}"
            drawn = random.Random(text)
            stage, run = drawn.choice(list(STAGES)), work / f"run{number}"
            audit.set_pace(STAGES[stage])
            jobs = submit(cluster, audit.config, "--out", run, "--site", site)
            disturb(cluster, jobs, stage, power_off, drawn)
            audit.set_pace(0)
            bad = _finish(cluster, jobs)
            if not bad and not (same_features(run, calm) and metrics(run) == metrics(calm)):
                bad = "changed"
            yield text, stage, bad
            cluster.repair()
            cluster.wait_ready()
    finally:
        cluster.stop()


def _finish(cluster: MiniCluster, jobs: dict[str, str]) -> str:
    """Wait for the end of the chain; the first job that has not ended as it should."""
    for stage, job in jobs.items():
        ended = cluster.wait_job(job)
        if ended["ExitCode"] not in GOOD.get(stage, ("0:0",)):
            return f"lost: {stage} {ended['JobState']} {ended['ExitCode']}"
    return ""
