"""Sites whose Slurm is odd: nothing is queued twice, nothing is left behind, every job is found again."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from audits import BIN, Audit
from minicluster import MiniCluster
from odd_sites import odd_site

from mia_batch.commands import submit
from mia_batch.errors import InputError
from mia_batch.rundir.jobs import latest_jobs, stage_jobs
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import queue, slurm

LATER = {"options": ["--begin=now+1hour"], "extract": {"nodes": 1, "tasks_per_node": 1}}


@pytest.fixture
def at_site(
    cluster: MiniCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Sequence[str]], None]]:
    """Make this process a client of the cluster, behind such clients."""

    def enter(kinds: Sequence[str]) -> None:
        monkeypatch.setenv("PATH", odd_site(tmp_path / "site-bin", kinds))
        monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])

    yield enter
    cluster.run("/usr/bin/scancel", "--user=root")


@pytest.fixture
def queue_audit(tmp_path: Path, new_audit: Callable[..., Audit]) -> Callable[..., int]:
    """`mia-batch submit` of an audit that begins in an hour."""
    site, audit = tmp_path / "site.yaml", new_audit()
    site.write_text(yaml.safe_dump(LATER))

    def run(*words: str | Path) -> int:
        parser = argparse.ArgumentParser()
        submit.add_arguments(parser)
        return submit.run(parser.parse_args([str(audit.config), "--site", str(site), *map(str, words)]))

    return run


def in_queue(cluster: MiniCluster) -> list[str]:
    """All jobs of the cluster that wait, arrays once each."""
    said = cluster.run("/usr/bin/squeue", "--noheader", "--states=PENDING", "--format=%F").stdout
    return list(dict.fromkeys(said.split()))


@pytest.mark.parametrize("kinds", [["banner"], ["cluster"], ["banner", "cluster"], ["lost"]])
def test_a_second_submit_finds_what_the_first_has_queued(
    cluster: MiniCluster, tmp_path: Path, at_site: Callable[..., None], queue_audit: Callable[..., int],
    kinds: list[str],
) -> None:
    at_site(kinds)
    out = tmp_path / "run"
    assert queue_audit("--out", out) == 0
    jobs = latest_jobs(RunPaths(out))
    assert {slurm.number(job).partition("_")[0] for job in jobs.values()} == set(in_queue(cluster))
    assert {slurm.cluster_of(job) for job in jobs.values()} == {"far" if "cluster" in kinds else ""}
    with pytest.raises(InputError, match=r"must have no jobs in the queue, got \d+(;far)? PENDING"):
        queue_audit("--out", out)
    assert len(in_queue(cluster)) == 3
    (stages,) = queue.statuses([RunPaths(out)])
    assert {stage.state for stage in stages} == {"queued"}
    slurm.scancel(jobs.values())
    assert in_queue(cluster) == []
    assert queue_audit("--out", out) == 0
    assert len(in_queue(cluster)) == 3


def test_a_job_that_was_queued_without_an_answer_is_found(
    cluster: MiniCluster, tmp_path: Path, at_site: Callable[..., None], queue_audit: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_site(["slow"])
    monkeypatch.setattr(slurm, "TIMEOUT_S", 4)
    assert queue_audit("--out", tmp_path / "run") == 0
    jobs = {slurm.number(job).partition("_")[0] for job in latest_jobs(RunPaths(tmp_path / "run")).values()}
    assert jobs == set(in_queue(cluster))
    assert len(jobs) == 3


def test_what_is_queued_before_a_refusal_is_cancelled_and_what_a_killed_submit_left_is_found(
    cluster: MiniCluster, tmp_path: Path, at_site: Callable[..., None], queue_audit: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_site(["banner"])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mia_batch.scheduler.submission.record", killed)
        with pytest.raises(KeyboardInterrupt):
            queue_audit("--out", tmp_path / "run")
        assert in_queue(cluster) == []
        patch.setattr("mia_batch.scheduler.submission.cancel_marked", killed)  # as by SIGKILL, which nothing outlives
        with pytest.raises(KeyboardInterrupt):
            queue_audit("--out", tmp_path / "run")
        assert len(in_queue(cluster)) == 3
    with pytest.raises(InputError, match=r"must have no jobs in the queue, got (\d+ PENDING(, )?){3} \(scancel"):
        queue_audit("--out", tmp_path / "run")
    assert queue_audit("--out", tmp_path / "other") == 0


def test_arrays_are_split_where_the_site_has_small_ones(
    cluster: MiniCluster, tmp_path: Path, at_site: Callable[..., None], queue_audit: Callable[..., int],
    checkpoints: list[Path], capsys: pytest.CaptureFixture[str],
) -> None:
    at_site(["arrays"])
    runs = tmp_path / "runs"
    names = [path.stem for path in checkpoints[:3]]
    assert queue_audit("--out", runs, "--checkpoints", *checkpoints[:3], "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["jobs"]) == sorted(
        f"{stage}{more}" for stage in ("prepare", "extract", "attack", "reduce") for more in ("", " 2")
    )
    tasks = [latest_jobs(RunPaths(runs / name))["extract"] for name in names]
    first, second = said["jobs"]["extract"], said["jobs"]["extract 2"]
    assert tasks == [f"{first}_0", f"{first}_1", f"{second}_0"]
    assert len(in_queue(cluster)) == 8
    with pytest.raises(InputError) as raised:
        queue_audit("--out", runs, "--checkpoints", *checkpoints[:3])
    assert len(raised.value.problems) >= 1
    assert len(in_queue(cluster)) == 8


def test_arrays_of_models_and_of_their_outputs_are_split_too(
    cluster: MiniCluster, tmp_path: Path, at_site: Callable[..., None], queue_audit: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_site(["arrays"])
    out = tmp_path / "run"
    assert queue_audit("--out", out, "--shadows", "4", "--json") == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert {"shadows", "shadows 2", "references", "references 2"} <= set(jobs)
    assert sorted(in_queue(cluster)) == sorted(map(str, jobs.values()))
    waits = cluster.run("/usr/bin/squeue", "--noheader", f"--jobs={jobs['attack']}", "--format=%E").stdout
    assert f"afterok:{jobs['references']}" in waits
    assert f"afterok:{jobs['references 2']}" in waits
    with pytest.raises(InputError, match=r"must have no jobs in the queue"):
        queue_audit("--out", out, "--shadows", "4")
    slurm.scancel([str(jobs["shadows 2"])])  # and with it all that waits for it
    (stages,) = queue.statuses([RunPaths(out)])
    shown = {stage.stage: stage for stage in stages}
    assert shown["shadows"].state == "queued"
    assert f"{jobs['shadows 2']} CANCELLED" in shown["shadows"].job
    slurm.scancel(job for own in stage_jobs(RunPaths(out)).values() for job in own)
    assert in_queue(cluster) == []


def test_an_audit_goes_through_where_no_environment_is_passed_on(
    cluster: MiniCluster, tmp_path: Path, checkpoints: list[Path], new_audit: Callable[..., Audit]
) -> None:
    """With the interpreter and the mpirun that queue it, on the cluster that sbatch names among what it prints."""
    audit = new_audit()
    raw = yaml.safe_load(audit.config.read_text())
    raw["model"]["checkpoint"] = "$AUDITED_FOLDER/${AUDITED_NAME}.ckpt"
    audit.config.write_text(yaml.safe_dump(raw))
    site = tmp_path / "site.yaml"
    (tmp_path / "setup").write_text(f"export PYTHONPATH={os.environ.get('PYTHONPATH', '')}\n")
    layout = {"extract": {"nodes": 1, "tasks_per_node": 2}, "attack": {"cpus_per_task": 1}}
    site.write_text(yaml.safe_dump(layout | {"source": ["setup"]}))
    path = odd_site(tmp_path / "site-bin", ["bare", "banner", "cluster"])
    env = {"PATH": path, "AUDITED_FOLDER": str(checkpoints[0].parent), "AUDITED_NAME": checkpoints[0].stem}
    words = (BIN / "mia-batch", "submit", audit.config, "--out", tmp_path / "run", "--site", site, "--json")
    jobs = json.loads(cluster.run(*words, env=env).stdout)["jobs"]
    job = cluster.wait_job(str(jobs["reduce"]))
    logs = {log.name: log.read_text()[-2000:] for log in (tmp_path / "run" / "logs").iterdir()}
    assert job["ExitCode"] in ("0:0", "3:0", "4:0"), logs
    assert "2 task(s)" in next(text for name, text in logs.items() if name.startswith("extract"))
    assert "256 of 256 rows" in cluster.run(BIN / "mia-batch", "status", tmp_path / "run", env=env).stdout


def test_a_run_in_a_shell_of_srun_starts_its_own_ranks(
    cluster: MiniCluster, tmp_path: Path, new_audit: Callable[..., Audit]
) -> None:
    """As `srun --pty bash` has it: one task, of which PMI's variables stay set."""
    audit, out = new_audit(), tmp_path / "run"
    step = ("srun", "--mpi=pmi2", "--ntasks=1", "--cpus-per-task=2")
    done = cluster.run(*step, BIN / "mia-batch", "run", audit.config, "--out", out, "--ranks", "2", check=False)
    assert done.returncode in (0, 3, 4), done.stderr
    assert json.loads((out / "run.json").read_text())["launches"][0]["rank_size"] == 2
    twice = ("srun", "--mpi=pmi2", "--ntasks=2", BIN / "mia-batch", "run", audit.config, "--out", tmp_path / "other")
    refused = cluster.run(*twice, check=False)
    assert refused.returncode == 2
    assert "mia-batch run: must be started once, and starts its ranks itself (--ranks), got" in refused.stderr
