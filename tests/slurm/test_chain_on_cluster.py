"""Whole audits on the mini-cluster: submitted, disturbed in every stage, and compared with a run on one machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from audits import BATCH, Audit, metrics, same_features, submit, write_site
from minicluster import MiniCluster, wait_until

NewAudit = Callable[..., Audit]

# The two slowest things: 2 ranks read 96 rows each, in blocks of 8.
SLOW = 0.06
IN_FLIGHT = 2 * BATCH  # one block of each rank


def wait_for_reads(audit: Audit, count: int) -> None:
    """Wait until so many samples have been read."""
    wait_until(lambda: audit.reads.exists() and audit.reads.read_text().count("\n") >= count, what=f"{count} reads")


def finish(cluster: MiniCluster, jobs: dict[str, str]) -> None:
    """Wait for the chain's end: every stage has succeeded, the last with a verdict."""
    for stage, job in jobs.items():
        ended = cluster.wait_job(job)
        good = ("0:0", "3:0") if stage == "reduce" else ("0:0",)
        assert ended["ExitCode"] in good, (stage, ended["JobState"], ended["ExitCode"])


@pytest.mark.parametrize("name", ["plain", 'it\'s a "run" 100%j\nof two lines, $HOME *'])
def test_a_chain_over_four_nodes_gives_the_numbers_of_one_machine(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path, name: str
) -> None:
    audit, run = new_audit(), tmp_path / name
    jobs = submit(cluster, audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml", nodes=4))
    finish(cluster, jobs)
    assert same_features(run, reference)
    assert metrics(run) == metrics(reference)
    assert audit.read_more_than_once() == 0
    launches = json.loads((run / "run.json").read_text())["launches"]
    assert [(launch["rank_size"], launch["n_nodes"]) for launch in launches if launch["stage"] == "extract"] == [(4, 4)]
    assert (run / "logs" / f"extract-{jobs['extract']}.log").stat().st_size


def warn(cluster: MiniCluster, job: str, _node: str) -> None:
    """What --signal=B:USR1 does when the time limit is near."""
    cluster.run("scancel", "--signal=USR1", "--batch", job)


def requeue(cluster: MiniCluster, job: str, _node: str) -> None:
    cluster.run("scontrol", "requeue", job)


def preempt(cluster: MiniCluster, job: str, _node: str) -> None:
    urgent = cluster.sbatch("-p", "urgent", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    cluster.wait_job(urgent)


def set_down(cluster: MiniCluster, _job: str, node: str) -> None:
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


def power_off(cluster: MiniCluster, _job: str, node: str) -> None:
    cluster.power_off(node)


DISTURBANCES = [warn, requeue, preempt, set_down, power_off]


@pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda each: each.__name__)
def test_extract_goes_on_after(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path, disturb: Callable[..., None]
) -> None:
    audit, run = new_audit(SLOW), tmp_path / "run"
    jobs = submit(cluster, audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml"))
    wait_for_reads(audit, 5 * BATCH)
    nodes = cluster.run("scontrol", "show", "hostnames", cluster.job(jobs["extract"])["NodeList"]).stdout.split()
    disturb(cluster, jobs["extract"], nodes[-1])
    finish(cluster, jobs)
    assert int(cluster.job(jobs["extract"])["Restarts"]) >= 1
    assert same_features(run, reference)
    assert metrics(run) == metrics(reference)
    assert audit.read_more_than_once() <= (0 if disturb is warn else IN_FLIGHT)
