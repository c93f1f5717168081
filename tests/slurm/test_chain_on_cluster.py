"""Whole audits on the mini-cluster: submitted, disturbed in every stage, and compared with a run on one machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from audits import BATCH, Audit, metrics, mia_batch, same_features, submit, write_site
from minicluster import MiniCluster, wait_until

NewAudit = Callable[..., Audit]

SLOW = 0.1  # seconds to read a sample: 2 ranks need 10 s for the 192 of an audit
IN_FLIGHT = 2 * BATCH  # one block of each rank


def finish(cluster: MiniCluster, jobs: dict[str, str]) -> None:
    """Wait for the chain's end: every stage has succeeded, the last with a verdict."""
    for stage, job in jobs.items():
        ended = cluster.wait_job(job)
        good = ("0:0", "3:0") if stage == "reduce" else ("0:0",)
        assert ended["ExitCode"] in good, (stage, ended["JobState"], ended["ExitCode"])


def test_a_chain_over_four_nodes_gives_the_numbers_of_one_machine(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path
) -> None:
    audit, run = new_audit(), tmp_path / 'it\'s a "run" 100%j\nof two lines, $HOME *'
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


def crash_controller(cluster: MiniCluster, job: str, _node: str) -> None:
    cluster.crash_controller(job)
    cluster.power_on("slurmctld")
    wait_until(lambda: cluster.job(job), what="controller answers")


RESTARTING = (warn, requeue, preempt, set_down, power_off)


def restarts(cluster: MiniCluster, job: str) -> int:
    """How often Slurm has started a job again."""
    return int(cluster.job(job)["Restarts"])


def test_extract_loses_nothing_whatever_happens(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path
) -> None:
    audit, run = new_audit(SLOW), tmp_path / "run"
    jobs = submit(cluster, audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml"))
    job = jobs["extract"]
    for number, disturb in enumerate((*RESTARTING, crash_controller)):
        before = len(audit.rows_read())
        wait_until(lambda: len(audit.rows_read()) >= before + IN_FLIGHT + 1, what=f"work before {disturb.__name__}")  # noqa: B023
        if disturb is crash_controller:  # no restart: the stage does not notice
            disturb(cluster, job, "")
            continue
        nodes = cluster.run("scontrol", "show", "hostnames", cluster.job(job)["NodeList"]).stdout.split()
        disturb(cluster, job, nodes[-1])
        wait_until(lambda: restarts(cluster, job) > number, what=f"restart after {disturb.__name__}")  # noqa: B023
    assert json.loads(mia_batch(cluster, "status", run, "--json").stdout)["stages"][0]["state"] in (
        "running",
        "partial",
    )
    finish(cluster, jobs)
    assert same_features(run, reference)
    assert metrics(run) == metrics(reference)
    assert audit.read_more_than_once() <= IN_FLIGHT * (restarts(cluster, job) - 1)  # the warned one lost nothing


def test_attack_and_reduce_are_requeued_cancelled_and_resubmitted(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path
) -> None:
    audit, run = new_audit(), tmp_path / "run"
    command = (audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml", nodes=1))
    jobs = submit(cluster, *command)
    cluster.wait_job(f"{jobs['attack']}_0", ["RUNNING"])
    assert "in the queue" in mia_batch(cluster, "submit", *command, check=False).stderr
    set_down(cluster, "", cluster.job(f"{jobs['attack']}_0")["NodeList"])
    wait_until(lambda: cluster.job(f"{jobs['attack']}_0")["JobState"] != "RUNNING", what="attack off its node")
    cluster.run("scancel", *jobs.values())
    for job in jobs.values():
        cluster.wait_job(job)
    jobs = submit(cluster, *command)
    assert list(jobs) == ["attack", "reduce"]
    cluster.wait_job(f"{jobs['attack']}_1", ["RUNNING"])
    cluster.run("scontrol", "requeue", f"{jobs['attack']}_1")
    cluster.wait_job(jobs["reduce"], ["RUNNING"])
    cluster.run("scontrol", "requeue", jobs["reduce"])
    finish(cluster, jobs)
    assert metrics(run) == metrics(reference)
    assert audit.read_more_than_once() == 0


def test_a_launch_that_makes_worlds_of_one_is_refused(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit
) -> None:
    audit, run = new_audit(), tmp_path / "run"
    site = write_site(tmp_path / "site.yaml", launcher="srun --mpi=none")
    jobs = submit(cluster, audit.config, "--out", run, "--site", site)
    assert cluster.wait_job(jobs["extract"])["ExitCode"] == "2:0"
    said = (run / "logs" / f"extract-{jobs['extract']}.log").read_text()
    assert "MPI: the world must have" in said
    assert "--mpi=pmi2" in said
    assert cluster.wait_job(jobs["reduce"])["JobState"] == "CANCELLED"
    assert not (run / "features.h5").exists()
