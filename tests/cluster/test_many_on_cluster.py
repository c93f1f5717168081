"""Many checkpoints as one array, and the nightly audit, on the mini-cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from audits import BIN, Audit, metrics, mia_batch, submit, write_site
from minicluster import MiniCluster, wait_until

from mia_batch.rundir.jobs import latest_jobs
from mia_batch.rundir.paths import RunPaths, runs_in

NewAudit = Callable[..., Audit]
METHODS = ({"method": "threshold_loss"}, {"method": "squared_difference"})
SLURM = Path(__file__).parents[2] / "slurm"


def cut(source: Path, target: Path) -> None:
    """The first two thirds of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: 2 * len(data) // 3])


def test_a_truncated_checkpoint_of_many_fails_alone(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, checkpoints: list[Path], reference: Path
) -> None:
    audit, runs = new_audit(), tmp_path / "many runs"
    folder = tmp_path / "it's here"
    folder.mkdir()
    for checkpoint in checkpoints[:2]:
        shutil.copy(checkpoint, folder)
    cut(checkpoints[3], folder / "first torn.ckpt")
    site = write_site(tmp_path / "site.yaml", nodes=1)
    jobs = submit(
        cluster, audit.config, "--out", runs, "--checkpoints", f"{folder}/*.ckpt", "--site", site, "--limit", "2"
    )
    assert cluster.job(f"{jobs['extract']}")["ArrayTaskThrottle"] == "2"
    for task, folder in enumerate(("net00", "net01"), start=1):
        assert cluster.wait_job(f"{jobs['reduce']}_{task}")["ExitCode"] in ("0:0", "3:0", "4:0"), folder
    torn = f"{jobs['extract']}_0"
    assert cluster.wait_job(torn)["ExitCode"] == "2:0"
    assert cluster.wait_job(f"{jobs['reduce']}_0")["JobState"] == "CANCELLED"
    assert audit.read_more_than_once() == 0  # prepared once for all
    assert metrics(runs / "net00") == metrics(reference)
    assert metrics(runs / "net01") != metrics(reference)
    (log,) = (runs / "first torn" / "logs").glob("extract-*.log")
    assert log.read_text().count("mia-batch: ") == 1
    entries = json.loads(mia_batch(cluster, "history", runs, "--format", "json", check=False).stdout)
    assert {entry["run"]: entry["state"] for entry in entries} == {
        "net00": "done", "net01": "done", "first torn": "failed"
    }  # fmt: skip
    assert [entry["detail"] for entry in entries if entry["run"] == "first torn"] == [
        f"extract no rows yet job {torn} FAILED"
    ]  # fmt: skip
    *lines, last, hint = mia_batch(cluster, "status", runs).stdout.splitlines()
    assert last == "3 run(s): 2 done, 1 failed"
    assert hint.startswith("next: mia-batch status ")
    assert lines[0].split() == ["first", "torn", "failed", "extract", "no", "rows", "yet", "job", torn, "FAILED"]


def nightly_command(audit: Audit, watch: Path, runs: Path, site: Path) -> list[str | Path]:
    """A nightly that takes files as they are written."""
    return ["nightly", audit.config, "--watch", watch, "--runs", runs, "--site", site, "--unchanged", "0", "--json"]


def test_two_nightlies_at_once_queue_each_checkpoint_once(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, checkpoints: list[Path]
) -> None:
    watch, runs, site = tmp_path / "watch", tmp_path / "runs", write_site(tmp_path / "site.yaml")
    watch.mkdir()
    for checkpoint in checkpoints[:4]:
        shutil.copy(checkpoint, watch)
    shutil.copy(checkpoints[0], watch / "same.ckpt")
    cut(checkpoints[4], watch / "growing.ckpt")
    argv = [str(BIN / "mia-batch"), *map(str, nightly_command(new_audit(), watch, runs, site))]
    nightlies = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=cluster.env) for _ in range(2)]
    queued = [json.loads(nightly.communicate(timeout=120)[0]) for nightly in nightlies]
    assert [nightly.returncode for nightly in nightlies] == [0, 0]
    names = [run for each in queued for run in each["runs"]]
    assert len(names) == len(set(names)) == 4
    shutil.copy(checkpoints[4], watch / "growing.ckpt")
    again = json.loads(cluster.run(*argv).stdout)
    assert len(again["runs"]) == 1
    assert json.loads(cluster.run(*argv).stdout) == {"jobs": {}, "runs": []}


def test_the_nightly_script_queues_itself_again_and_joins_what_it_audits(
    cluster: MiniCluster, tmp_path: Path, new_audit: NewAudit, checkpoints: list[Path]
) -> None:
    """Two steps of a training in one night, with references that the night trains first, for both."""
    audit, watch, runs = new_audit(methods=METHODS), tmp_path / "the watch", tmp_path / "the runs"
    watch.mkdir()
    for checkpoint, step in zip(checkpoints, (10, 9), strict=False):
        shutil.copy(checkpoint, watch / f"net-1_{step}.ckpt")
    site = write_site(tmp_path / "site.yaml", nodes=1)
    changes = (f"references.shadows='{tmp_path / 'the shadows'}'", "references.count=2", "train.epochs=1")
    options = ("--unchanged=0", *(f"--set={change}" for change in changes))
    words = ("at=now+4seconds", f"site={site}", *(f"option={option}" for option in options))
    words = (*words, f"source={BIN / 'activate'}", "--", "python")
    first = cluster.sbatch("-o", tmp_path / "log", SLURM / "nightly.sbatch", audit.config, watch, runs, *words)
    assert cluster.wait_job(first)["ExitCode"] == "0:0", (tmp_path / "log").read_text()
    audited = runs_in(runs)
    assert len(audited) == 2
    waiting = ("squeue", "--noheader", "--name=mia-nightly", "--format=%i")
    second = wait_until(lambda: cluster.run(*waiting).stdout.split(), what="second night")[0]
    assert second != first
    assert cluster.wait_job(second)["ExitCode"] == "0:0"
    wait_until(lambda: set(cluster.run(*waiting).stdout.split()) - {second}, what="third night")
    cluster.run("scancel", "--name=mia-nightly")  # as the script says
    assert [paths.root for paths in runs_in(runs)] == [paths.root for paths in audited]
    (array,) = (runs / ".arrays").iterdir()
    jobs = latest_jobs(RunPaths(array))
    assert set(jobs) == {"prepare", "shadows", "extract", "references", "attack", "reduce", "trajectory"}
    for stage, job in jobs.items():
        good = ("0:0", "3:0", "4:0") if stage in ("reduce", "trajectory") else ("0:0",)
        assert cluster.wait_job(job)["ExitCode"] in good, stage
    for paths in audited:
        summary = json.loads(paths.summary_json.read_text())
        assert summary["methods"]["squared_difference"]["reason"] is None
    (found,) = (runs / "trajectories").glob("*.json")
    told = json.loads(found.read_text())
    assert [(step["step"], step["checkpoint"]) for step in told["steps"]] == [
        ("1 9", "net-1_9.ckpt"), ("1 10", "net-1_10.ckpt")
    ]  # fmt: skip
    assert "each audit needs references of its own step" in told["lira"]["reason"]
