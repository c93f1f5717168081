"""Whole audits on the mini-cluster: submitted, disturbed in every stage, and compared with a run on one machine."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import yaml
from audits import BATCH, BIN, LR, RF, ROWS, Audit, metrics, mia_batch, same_features, status, submit, write_site
from minicluster import MiniCluster, wait_until
from outputs import made_up, write_csv

from mia_batch.rundir.jobs import latest_jobs, record
from mia_batch.rundir.paths import RunPaths

NewAudit = Callable[..., Audit]

SLURM = Path(__file__).parents[2] / "slurm"
NO_ANSWER = "unknown: Slurm does not answer"
SLOW = 0.3  # seconds to read a sample: 2 ranks need 38 s for all of an audit, so that there is time to disturb them
IN_FLIGHT = 2 * BATCH  # one block of each rank


def finish(cluster: MiniCluster, jobs: dict[str, str]) -> None:
    """Wait for the chain's end: every stage has succeeded, the last with a verdict."""
    for stage, job in jobs.items():
        ended = cluster.wait_job(job)
        good = ("0:0", "3:0", "4:0") if stage == "reduce" else ("0:0",)
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
    log = (run / "logs" / f"extract-{jobs['extract']}.log").stat()
    assert log.st_size
    assert {stat.S_IMODE(found.st_mode) for found in (log, (run / "features.h5").stat())} == {0o600}


def test_every_line_of_a_batch_log_says_node_and_rank(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path
) -> None:
    run = tmp_path / "run"
    options = ("--nodes=2", "--ntasks-per-node=2", "-o", tmp_path / "out")
    words = (f"source={BIN / 'activate'}", "--", "mpirun", "python")
    job = cluster.sbatch(*options, SLURM / "extract.sbatch", new_audit().config, run, *words)
    assert cluster.wait_job(job)["ExitCode"] == "0:0", (tmp_path / "out").read_text()
    first, *lines = (run / "logs" / f"extract-{job}.log").read_text().splitlines()
    assert first.startswith("mia-extract job ")
    said = [re.fullmatch(r"\[(n\d) (\d)\] (.*)", line) for line in lines]
    assert all(said), lines
    libraries = [match[2] for match in said if match and match[3] == "what a library says"]
    assert sorted(libraries) == ["0", "1", "2", "3"]
    assert len({match[1] for match in said if match}) == 2
    assert any(f"{2 * ROWS}/{2 * ROWS} samples (100 %), " in line and "samples/s" in line for line in lines)
    assert same_features(run, reference)


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


def restarts(cluster: MiniCluster, job: str) -> int:
    """How often Slurm has started a job again."""
    return int(cluster.job(job)["Restarts"])


def test_extract_loses_nothing_whatever_happens(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, reference: Path
) -> None:
    audit, run = new_audit(delay=SLOW), tmp_path / "run"
    command = (audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml"))

    def wait_for_work(what: str) -> None:
        before = len(audit.rows_read())
        wait_until(lambda: len(audit.rows_read()) >= before + IN_FLIGHT + 1, what=f"work {what}")

    job = submit(cluster, *command)["extract"]
    assert "in the queue" in mia_batch(cluster, "submit", *command, check=False).stderr
    for number, disturb in enumerate((warn, requeue, power_off)):
        wait_for_work(f"before {disturb.__name__}")
        assert status(cluster, run)["extract"]["state"] == "running"
        nodes = cluster.run("scontrol", "show", "hostnames", cluster.job(job)["NodeList"]).stdout.split()
        disturb(cluster, job, nodes[-1])
        wait_until(lambda: restarts(cluster, job) > number, what=f"restart after {disturb.__name__}")  # noqa: B023
    restarted = restarts(cluster, job)
    wait_for_work("before it is cancelled")
    cluster.run("scancel", job)
    cluster.wait_job(job)
    said = status(cluster, run)
    assert (said["extract"]["state"], said["attack lr"]["state"]) == ("failed", "not started")
    assert said["extract"]["job"] == f"{job} CANCELLED"
    cluster.repair()
    write_site(tmp_path / "site.yaml", nodes=3, launcher="srun --mpi=pmi2 --kill-on-bad-exit=1")
    jobs = submit(cluster, *command)
    wait_for_work("on three nodes")
    cluster.crash_controller(jobs["extract"])
    said = status(cluster, run)
    assert said["extract"]["state"] in ("running", "done")  # it goes on without the controller
    assert (said["reduce"]["state"], said["reduce"]["job"]) == ("missing", f"{jobs['reduce']} {NO_ANSWER}")
    cluster.power_on("slurmctld")
    audit.set_pace(0)
    finish(cluster, jobs)
    assert {stage["state"] for stage in status(cluster, run).values()} == {"done"}
    assert same_features(run, reference)
    assert metrics(run) == metrics(reference)
    assert audit.read_more_than_once() <= IN_FLIGHT * restarted  # a cancel may lose as much; the warning lost nothing


def test_attack_and_reduce_are_requeued_cancelled_and_resubmitted(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit
) -> None:
    audit, run = new_audit(methods=(LR, RF)), tmp_path / "run"
    command = (audit.config, "--out", run, "--site", write_site(tmp_path / "site.yaml", nodes=1))
    journal = RunPaths(run).journal("rf")

    def wait_for_fits(count: int) -> str:
        """The forest's job, once the journal holds so many fits after the line that begins it."""
        what = f"{count} fits"
        wait_until(lambda: journal.exists() and journal.read_text().count("\n") > count, timeout=120, what=what)
        return latest_jobs(RunPaths(run))["attack rf"]

    jobs = submit(cluster, *command)
    job = wait_for_fits(1)
    set_down(cluster, "", cluster.job(job)["NodeList"])
    wait_until(lambda: cluster.job(job)["JobState"] != "RUNNING", what="attack off its node")
    cluster.run("scancel", *jobs.values())
    for each in jobs.values():
        cluster.wait_job(each)
    said = status(cluster, run)["attack rf"]
    assert (said["state"], said["job"]) == ("failed", f"{job} CANCELLED")
    cluster.repair()
    jobs = submit(cluster, *command)
    assert list(jobs) == ["attack", "reduce"]
    for number, disturb in enumerate((preempt, requeue)):
        job = wait_for_fits(journal.read_text().count("\n"))
        disturb(cluster, job, "")
        wait_until(lambda: restarts(cluster, job) > number, what=f"restart after {disturb.__name__}")  # noqa: B023
    cluster.wait_job(jobs["reduce"], ["RUNNING"])
    requeue(cluster, jobs["reduce"], "")
    finish(cluster, jobs)
    logs = "".join(log.read_text() for log in sorted((run / "logs").glob("attack-*")))
    resumed = [int(count) for count in re.findall(r"rf: goes on after (\d+) finished", logs)]
    assert len(resumed) == 3
    assert 1 <= resumed[0] < resumed[1] < resumed[2]
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("run.json", "features.h5"):
        shutil.copy(run / name, alone)
    mia_batch(cluster, "run", audit.config, "--out", alone, check=False)
    assert metrics(run) == metrics(alone)
    assert audit.read_more_than_once() == 0


def test_outputs_of_another_framework_are_imported_by_the_first_job(cluster: MiniCluster, tmp_path: Path) -> None:
    """Also where that job is warned and requeued: it begins again, and the chain gives what one machine gives."""
    file, run, config = write_csv(tmp_path / "outputs", made_up(40_000, 20)), tmp_path / "run", tmp_path / "config.yaml"
    methods = [{"method": "threshold_loss"}, {"method": "correctness"}]
    raw = {"data": {"source": "outputs", "files": str(file)}, "attack": {"max_rows": 1000, "methods": methods}}
    config.write_text(yaml.safe_dump(raw))
    jobs = submit(cluster, config, "--out", run, "--site", write_site(tmp_path / "site.yaml", nodes=1))
    assert list(jobs) == ["import", "attack", "reduce"]
    cluster.wait_job(jobs["import"], ["RUNNING"])
    log = run / "logs" / f"import-{jobs['import']}.log"
    wait_until(lambda: log.exists() and "label from label" in log.read_text(), what="the file's columns")
    warn(cluster, jobs["import"], "")
    wait_until(lambda: restarts(cluster, jobs["import"]) > 0, what="restart after the warning")
    finish(cluster, jobs)
    alone = tmp_path / "alone"
    mia_batch(cluster, "run", config, "--out", alone, check=False)
    assert metrics(run) == metrics(alone)
    assert {stage["state"] for stage in status(cluster, run).values()} == {"done"}


def test_jobs_that_slurm_has_forgotten_are_said_to_be(
    cluster: MiniCluster, tmp_path: Path, reference: Path
) -> None:
    for name in ("run.json", "features.h5"):
        shutil.copy(reference / name, tmp_path)
    record(RunPaths(tmp_path), {"attack lr": "99999_0", "reduce": "100000"})
    said = status(cluster, tmp_path)
    assert (said["extract"]["state"], said["extract"]["job"]) == ("done", "")
    assert (said["attack lr"]["state"], said["attack lr"]["job"]) == ("missing", "99999_0 forgotten by Slurm")
    jobs = submit(cluster, reference.with_name("config.yaml"), "--out", tmp_path, "--site", "cpu")
    assert list(jobs) == ["attack", "reduce"]


def test_a_launch_that_makes_worlds_of_one_is_refused(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit
) -> None:
    audit, run = new_audit(), tmp_path / "run"
    site = write_site(tmp_path / "site.yaml", launcher="srun --mpi=none")
    jobs = submit(cluster, audit.config, "--out", run, "--site", site)
    assert cluster.wait_job(jobs["extract"])["ExitCode"] == "2:0"
    said = (run / "logs" / f"extract-{jobs['extract']}.log").read_text()
    assert said.count("MPI: the world must have") == 1
    assert "srun --mpi=pmi2" in said
    assert cluster.wait_job(jobs["reduce"])["JobState"] == "CANCELLED"
    assert not (run / "features.h5").exists()
