"""The commands that submit would run, site files and the scripts' grammar: no daemons needed."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rundirs import finish, one_entry, write_rows
from running import words_of_bash

from mia_batch.commands import submit
from mia_batch.errors import InputError
from mia_batch.files import shipped
from mia_batch.rundir.features import features_samples
from mia_batch.rundir.jobs import latest_jobs, record, stage_jobs, submissions
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.reference_store import reference_paths
from mia_batch.rundir.shadows import ShadowPaths
from mia_batch.rundir.state import read_state
from mia_batch.scheduler import queue, slurm, submission
from mia_batch.scheduler.sbatch_commands import Request, plan_chain, shell_lines
from mia_batch.scheduler.site import Site, find_site, load_site
from mia_batch.scheduler.submission import find_checkpoints, name_runs
from mia_batch.settings.loading import load_config
from mia_batch.stages import shadows as shadows_stage
from mia_batch.stages.plan import make_manifest

SITES = sorted((shipped("configs") / "sites").glob("*.yaml"))
SLURM = shipped("slurm")


def site_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


ASCEND = """
partition: npu
account: mine
options: ["--qos=night, shift"]
modules: [cann/8.0]
source: [env/activate me]
container: apptainer exec --bind /data image.sif
launcher: srun --mpi=pmi2
extract: {nodes: 2, tasks_per_node: 8, gres: "npu:8", memory: 64G, time: "01:00:00"}
attack: {partition: cpu, cpus_per_task: 32}
"""


def test_golden_commands_of_one_run(tmp_path: Path) -> None:
    site = load_site(site_file(tmp_path, ASCEND))
    steps = plan_chain(Request(Path("/c o/nf.yaml"), Path("/runs/50% done"), site, methods=("lr", "rf")))
    ids = {"extract": "11", "attack": "12"}
    words = ["module=cann/8.0", f"source={tmp_path}/env/activate me"]
    container = ["apptainer", "exec", "--bind", "/data", "image.sif", "python3"]
    assert [step.command(ids) for step in steps] == [
        [
            *("sbatch", "--parsable", "--job-name=mia-extract", "--output=/runs/50%% done/logs/extract-%j.log"),
            *("--partition=npu", "--account=mine", "--nodes=2", "--ntasks-per-node=8", "--gres=npu:8", "--mem=64G"),
            *("--time=01:00:00", "--qos=night, shift", f"{SLURM}/extract.sbatch", "/c o/nf.yaml", "/runs/50% done"),
            *(*words, "--", "srun", "--mpi=pmi2", *container),
        ],
        [
            *("sbatch", "--parsable", "--job-name=mia-attack", "--output=/runs/50%% done/logs/attack-%A_%a.log"),
            *("--array=0-1", "--partition=cpu", "--account=mine", "--nodes=1", "--ntasks-per-node=1"),
            *("--cpus-per-task=32", "--qos=night, shift", "--dependency=afterok:11", "--kill-on-invalid-dep=yes"),
            *(f"{SLURM}/attack.sbatch", "/c o/nf.yaml", "/runs/50% done"),
            *(*words, "method=lr", "method=rf", "--", *container),
        ],
        [
            *("sbatch", "--parsable", "--job-name=mia-reduce", "--output=/runs/50%% done/logs/reduce-%j.log"),
            *("--partition=npu", "--account=mine", "--nodes=1", "--ntasks-per-node=1", "--qos=night, shift"),
            *("--dependency=afterok:12", "--kill-on-invalid-dep=yes"),
            *(f"{SLURM}/reduce.sbatch", "/c o/nf.yaml", "/runs/50% done", *words, "--", *container),
        ],
    ]


def test_many_checkpoints_are_arrays_that_go_on_task_by_task() -> None:
    request = Request(Path("/c.yaml"), Path("/runs"), Site(at_once=4), words=("list=/runs/l",), n_tasks=50)
    extract, attack, reduce = (step.command({"extract": "1", "attack": "2"}) for step in plan_chain(request))
    assert "--array=0-49%4" in extract
    assert {"--array=0-49", "--dependency=aftercorr:1"} <= set(attack)
    assert {"--array=0-49", "--dependency=aftercorr:2"} <= set(reduce)
    assert all("list=/runs/l" in command for command in (extract, attack, reduce))


def test_a_trajectory_is_one_job_that_waits_until_the_array_has_ended() -> None:
    request = Request(
        Path("/c.yaml"), Path("/runs"), Site(), words=("list=/runs/l", "set=attack.seed=2"), n_tasks=2,
        stages=("reduce", "trajectory"),
    )  # fmt: skip
    _, last = (step.command({"reduce": "7"}) for step in plan_chain(request))
    assert "--output=/runs/logs/trajectory-%j.log" in last
    assert "--dependency=afterany:7" in last
    assert not any(word.startswith(("--array", "list=")) for word in last)
    assert last[-6:] == [f"{SLURM}/trajectory.sbatch", "/c.yaml", "/runs", "set=attack.seed=2", "--", sys.executable]


def test_a_users_data_is_prepared_before_the_array() -> None:
    request = Request(
        Path("/c.yaml"), Path("/runs"), Site(), words=("list=/l",), stages=("prepare", "extract"), n_tasks=2,
        prepared=Path("/runs/.arrays/x"),
    )  # fmt: skip
    prepare, extract = (step.command({"prepare": "7"}) for step in plan_chain(request))
    assert prepare[-5:] == ["/c.yaml", "/runs/.arrays/x", "list=/l", "--", sys.executable]
    assert not any(word.startswith("--array") for word in prepare)
    assert {"--dependency=afterok:7", "--array=0-1%4", "prepared=/runs/.arrays/x", "/runs"} <= set(extract)


def test_reference_models_are_trained_a_task_for_each_and_only_references_wait_for_them() -> None:
    request = Request(
        Path("/c.yaml"), Path("/50%"), Site(at_once=3), words=("set=a=1", "checkpoint=c"),
        stages=("shadows", "extract", "references"), references=(0, 1, 2), models=(0, 1, 2, 5, 7, 8),
        shadows=Path("/50%/shadows"),
    )  # fmt: skip
    ids = {"shadows": "7", "extract": "8"}
    shadows, extract, references = (step.command(ids) for step in plan_chain(request))
    assert {"--array=0-2,5,7-8%3", "--output=/50%%/shadows/logs/shadows-%A_%a.log"} <= set(shadows)
    assert shadows[-5:] == ["/c.yaml", "/50%/shadows", "set=a=1", "--", sys.executable]
    assert shadows[-6] == f"{SLURM}/shadows.sbatch"
    assert {"set=a=1", "checkpoint=c", "/50%"} <= set(extract)
    assert not any(word.startswith("--dependency") for word in extract)
    wanted = {"--dependency=afterok:7,afterok:8", "--array=0-2%3", "--output=/50%%/logs/references-%A_%a.log"}
    assert wanted <= set(references)
    many = plan_chain(replace(request, n_tasks=2, prepared=Path("/p"), stages=("prepare", *request.stages)))
    assert many[-1].after == (("afterok", "shadows"), ("aftercorr", "extract"))
    assert "--array=0-1%3" in many[-1].options
    assert "prepared=/p" in many[-1].script


def test_tasks_above_the_largest_array_are_several_jobs_and_all_are_waited_for() -> None:
    request = Request(
        Path("/c.yaml"), Path("/r"), Site(at_once=3), stages=("extract", "shadows", "references", "attack", "reduce"),
        methods=("lr", "rf", "blind"), references=(0, 1, 2, 3, 4), models=(0, 1, 3, 6), shadows=Path("/r/shadows"),
        array_size=2,
    )  # fmt: skip
    steps = {step.name: step for step in plan_chain(request)}
    arrays = {name: option for name, step in steps.items() for option in step.options if option.startswith("--array")}
    assert arrays == {
        "shadows": "--array=0-1%1", "shadows 2": "--array=1%1", "shadows 3": "--array=0%1",
        "references": "--array=0-1%1", "references 2": "--array=0-1%1", "references 3": "--array=0%1",
        "attack": "--array=0-1", "attack 2": "--array=0-0",
    }  # fmt: skip
    words = {name: [word for word in step.script if word.startswith("first=")] for name, step in steps.items()}
    assert (words["shadows"], words["shadows 2"], words["shadows 3"]) == ([], ["first=2"], ["first=6"])
    assert (words["references 2"], words["references 3"], words["attack 2"]) == (["first=2"], ["first=4"], [])
    assert "method=blind" in steps["attack 2"].script
    assert not {"method=lr", "method=rf"} & set(steps["attack 2"].script)
    trained = [("afterok", name) for name in ("shadows", "shadows 2", "shadows 3")]
    for name in ("references", "references 2", "references 3"):
        assert list(steps[name].after) == [*trained, ("afterok", "extract")]
    parts = tuple(("afterok", name) for name in ("references", "references 2", "references 3"))
    assert (steps["attack"].after, steps["attack 2"].after) == (parts, parts)
    assert steps["reduce"].after == (("afterok", "attack"), ("afterok", "attack 2"))
    last = shell_lines(list(steps.values()))[-1]
    assert last.startswith("reduce=$(")
    assert "--dependency=afterok:$attack,afterok:$attack_2 " in last
    whole = plan_chain(replace(request, array_size=7))
    assert [step.name for step in whole] == list(request.stages)


def test_a_finished_stage_is_waited_for_by_nobody() -> None:
    request = Request(Path("/c.yaml"), Path("/r"), Site(), stages=("attack", "reduce"), methods=("lr",))
    attack, reduce = plan_chain(request)
    assert attack.after == ()
    assert reduce.after == (("afterok", "attack"),)


@given(name=st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1))
def test_a_dry_run_is_shell_that_passes_any_path_unchanged(name: str) -> None:
    request = Request(Path("/c.yaml"), Path("/runs") / name, Site())
    for line, step in zip(shell_lines(plan_chain(request)), plan_chain(request), strict=True):
        stage, _, rest = line.partition("=$(")
        ids = {other: f"id-{other}" for other in ("extract", "attack", "reduce")}
        assert (stage, words_of_bash(rest.removesuffix(")"), **ids)) == (step.name, step.command(ids))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_shipped_sites_are_valid(path: Path) -> None:
    assert load_site(path).extract.nodes >= 1
    assert find_site(path.stem) == path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("partitoin: x", "partitoin: unknown key; valid keys: partition, account"),
        ("extract: {gress: x}", "extract.gress: unknown key; valid keys: nodes, tasks_per_node"),
        ("extract: {nodes: 0}", "extract.nodes: must be greater than or equal to 1, got 0"),
        ("extract: {time: 3600}", "extract.time: must be text in quotes, got 3600"),
        ("modules: gcc", "modules: must be a list, got 'gcc'"),
        ("launcher: []", "launcher: must have at least 1 item, got []"),
        ("[1]", "must be a mapping with partition"),
        ("a: [", "line 1, column 5: YAML: "),
        ("extract: {time: 2026-13-45}", "YAML: must hold values that can be read, got ValueError"),
        ("python: a\npython: b", "key 'python' is given twice"),
        ("source: [$NOT_SET/x]", "source: uses the environment variable NOT_SET, which is not set"),
    ],
)
def test_a_bad_site_is_one_clear_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        load_site(site_file(tmp_path, text))
    (problem,) = caught.value.problems
    assert line in problem


def test_all_problems_of_a_site_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_site(site_file(tmp_path, "a: 1\nat_once: 0\nextract: {b: 1}"))
    assert len(caught.value.problems) == 3


def test_an_unknown_site_names_the_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ascend910, cpu, gpu, got nowhere"):
        find_site("nowhere")
    path = site_file(tmp_path, "python: python3")
    monkeypatch.setenv("MIA_BATCH_SITE", str(path))
    assert find_site(None) == path


def test_checkpoints_of_one_name_get_directories_of_their_own(tmp_path: Path) -> None:
    for name in ("a/net.ckpt", "b/net.ckpt", "b/other.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_checkpoints([f"{tmp_path}/*/net.ckpt", f"{tmp_path}/b/*.ckpt"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a/net.ckpt", "b/net.ckpt", "b/other.ckpt"]
    names = [run.paths.root.name for run in name_runs(found, tmp_path)]
    assert names[2] == "other"
    assert len(set(names)) == 3
    with pytest.raises(InputError, match="must match a file, got nothing"):
        find_checkpoints(["nothing*"])


def test_jobs_are_remembered_by_stage(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert submissions(paths) == []
    record(paths, {"extract": "1", "attack": "2", "reduce": "3"})
    record(paths, {"attack": "4", "reduce": "5"})
    assert latest_jobs(paths) == {"extract": "1", "attack": "4", "reduce": "5"}
    assert len(json.loads(paths.jobs.read_text())["submissions"]) == 2
    for damaged in ("[", '{"submissions": [1]}', '{"submissions": [{}]}', '{"submissions": [{"jobs": []}]}'):
        paths.jobs.write_text(damaged)
        with pytest.raises(InputError, match="must be a record"):
            submissions(paths)


def test_states_of_an_array_are_summed_up() -> None:
    rows = [("7_0", "COMPLETED"), ("7_1", "FAILED"), ("8_0", "FAILED"), ("8_1", "RUNNING"), ("9", "CANCELLED by 0")]
    states = slurm._states(rows)
    assert (states["7"], states["7_0"], states["8"], states["9"]) == ("FAILED", "COMPLETED", "RUNNING", "CANCELLED")


def test_a_job_queued_from_within_a_job_inherits_nothing_of_its_layout() -> None:
    environ = {"SLURM_NTASKS": "4", "SLURM_CONF": "/c", "PMI_RANK": "0", "SBATCH_ACCOUNT": "a", "HOME": "/h"}
    assert slurm.without_job(environ) == {"SLURM_CONF": "/c", "SBATCH_ACCOUNT": "a", "HOME": "/h"}


# --- what is queued, with an sbatch and a scancel that note what they were told ---------------------------------------

WriteConfig = Callable[..., Path]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was told to sbatch and scancel, a line for each call; the jobs' ids are 1, 2, ..."""
    programs, said = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (programs / "scontrol").write_text("#!/bin/sh\necho MaxArraySize = ${LARGEST:-0}\n")
    (programs / "scontrol").chmod(0o755)
    for name in ("sbatch", "scancel"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{said}"\nwc -l <"{said}"\n')
        (programs / name).chmod(0o755)
    (programs / "squeue").write_text("#!/bin/sh\n")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return said


def submit_all(config: Path, out: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    checkpoints = f"{config.parent}/*.ckpt"
    return submit.run(parser.parse_args([str(config), "--out", str(out), "--checkpoints", checkpoints, *words]))


def in_force(paths: RunPaths) -> Manifest:
    """What a submission has put into run.json."""
    found = read_manifest(paths)
    assert found is not None
    return found


def test_an_array_of_which_only_reduce_is_left(
    tmp_path: Path, write_config: WriteConfig, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write_config(), tmp_path / "runs"
    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    assert submit_all(config, out) == 0
    (run,) = runs_in(out)
    finish(run, in_force(run))
    run.summary_json.unlink()
    calls.unlink()
    assert submit_all(config, out) == 0
    assert len(calls.read_text().splitlines()) == 1
    assert submissions(run)[-1]["jobs"] == {"reduce": "1_0"}


def test_jobs_that_cannot_be_noted_are_cancelled(
    tmp_path: Path, write_config: WriteConfig, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(submission, "record", refuse)
    with pytest.raises(InputError, match="the disk is full"):
        submit_all(write_config(), tmp_path / "runs")
    assert calls.read_text().splitlines()[-1] == "scancel 1 2 3"


def test_a_verdict_counts_only_for_the_checkpoint_and_config_that_it_is_of(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, out = write_config(), tmp_path / "runs"
    assert submit_all(config, out) == 0
    (run,) = runs_in(out)
    finish(run, in_force(run))
    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    capsys.readouterr()
    assert submit_all(config, out, "--json") == 0
    assert capsys.readouterr().out == '{"jobs": {}, "runs": []}\n'
    for changes, stages in (
        ({"gate": {"threshold": 0.7}}, ["reduce"]),
        ({"attack.methods": [{"method": "lr", "params": {"C": [0.5]}}]}, ["attack", "reduce"]),
    ):
        assert submit_all(write_config(changes), out, "--json") == 0
        assert list(json.loads(capsys.readouterr().out)["jobs"]) == stages
        finish(run, in_force(run))
    with pytest.raises(InputError, match=r"holds another run: data\.image_size was \[32, 32\] and is now \[64, 64\];"):
        submit_all(write_config({"data.image_size": [64, 64]}), out)
    (checkpoint,) = config.parent.glob("*.ckpt")
    checkpoint.write_bytes(2 * checkpoint.read_bytes())
    for words in ([], ["--dry-run"]):
        with pytest.raises(InputError, match=r"holds another run: the content of model\.checkpoint has changed;"):
            submit_all(write_config(), out, *words)


def test_what_jobs_in_the_queue_are_of_is_not_overwritten(
    tmp_path: Path, write_config: WriteConfig, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first row a directory is nobody's, but a job may be about to make it."""
    out = tmp_path / "runs"
    assert submit_all(write_config(), out) == 0
    (run,) = runs_in(out)
    before = run.manifest.read_bytes()
    monkeypatch.setattr(slurm, "job_states", lambda jobs: dict.fromkeys(jobs, "PENDING"))
    with pytest.raises(InputError, match="--out: must have no jobs in the queue"):
        submit_all(write_config({"data.image_size": [64, 64]}), out)
    assert run.manifest.read_bytes() == before
    monkeypatch.setattr(slurm, "job_states", lambda jobs: dict.fromkeys(jobs, "FAILED"))
    assert submit_all(write_config({"data.image_size": [64, 64]}), out) == 0
    assert in_force(run).config["data"]["image_size"] == [64, 64]


def test_a_config_is_read_once_for_all_checkpoints(
    tmp_path: Path, write_config: WriteConfig, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, loaded = write_config(), []

    def load(*args: object, **options: object) -> object:
        loaded.append(args)
        return load_config(*args, **options)  # type: ignore[arg-type]

    for number in range(5):
        (tmp_path / f"net{number}.ckpt").write_bytes(b"%d" % number)
        os.utime(tmp_path / f"net{number}.ckpt", (number, number))
    monkeypatch.setattr(submit, "load_config", load)
    assert submit_all(config, tmp_path / "runs") == 0
    assert len(loaded) == 1
    found = [in_force(run) for run in runs_in(tmp_path / "runs")]
    assert [Path(each.config["model"]["checkpoint"]).name for each in found] == ["net.ckpt"] + [
        f"net{number}.ckpt" for number in range(5)
    ]
    assert len({each.digests["model.checkpoint"] for each in found}) == 6
    assert [each.checkpoint.modified[17:] for each in found[1:]] == [f"0{number}.000000+00:00" for number in range(5)]


def test_every_run_that_cannot_be_queued_is_named(tmp_path: Path, write_config: WriteConfig, calls: Path) -> None:
    config, out = write_config(), tmp_path / "runs"
    (tmp_path / "b.ckpt").write_bytes(b"b")
    assert submit_all(config, out) == 0
    for run in runs_in(out):
        write_rows(run, in_force(run), done=1)
    with pytest.raises(InputError) as caught:
        submit_all(write_config({"data.image_size": [64, 64]}), out)
    assert [line.split(": ")[0] for line in caught.value.problems] == [str(run.root) for run in runs_in(out)]


def test_a_run_with_its_verdict_is_not_queued_again(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"x"))
    argv = [str(write_config(checkpoint=tmp_path / "net.ckpt")), "--out", str(tmp_path / "run")]
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    assert submit.run(parser.parse_args(argv)) == 0
    finish(RunPaths(tmp_path / "run"), in_force(RunPaths(tmp_path / "run")))
    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    calls.unlink()
    capsys.readouterr()
    assert submit.run(parser.parse_args([*argv, "--json"])) == 0
    assert capsys.readouterr().out == '{"jobs": {}, "runs": []}\n'
    assert not calls.exists()
    RunPaths(tmp_path / "run").attack("lr").unlink()
    assert submit.run(parser.parse_args([*argv, "--json"])) == 0
    assert list(json.loads(capsys.readouterr().out)["jobs"]) == ["attack", "reduce"]


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, write_config: WriteConfig) -> None:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    with pytest.raises(InputError, match="--out: must name a directory, got ''"):
        submit.run(parser.parse_args([str(write_config()), "--out", "", "--dry-run"]))


# --- --set and estimates ----------------------------------------------------------------------------------------------


def submit_one(config: Path, out: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    return submit.run(parser.parse_args([str(config), "--out", str(out), *words]))


def trained(monkeypatch: pytest.MonkeyPatch, folder: Path, *numbers: int) -> None:
    """Let models be taken for trained by the plan, with weights of their own."""
    for number in numbers:
        ShadowPaths(folder).checkpoint(number).write_bytes(one_entry(b"w%03d" % number))
    monkeypatch.setattr(shadows_stage.Trained, "__contains__", lambda self, number: number in numbers)


def queued_words(calls: Path) -> dict[str, list[str]]:
    """The words of each sbatch command, by stage."""
    commands = [line.split() for line in calls.read_text().splitlines()]
    return {next(word for word in each if "job-name" in word).partition("mia-")[2]: each for each in commands}


def test_an_audit_and_its_reference_models_are_one_chain(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"w"))
    out, config = tmp_path / "run", write_config({"attack.methods": [{"method": "lira_fixed"}]})
    assert submit_one(config, out, "--shadows", "4", "--dry-run") == 0
    assert "references=$(sbatch" in (shown := capsys.readouterr().out)
    assert "--dependency=afterok:$shadows,afterok:$extract" in shown
    assert not out.exists()
    assert submit_one(config, out, "--shadows", "4") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:-1]] == ["extract", "shadows", "references", "attack", "reduce"]
    words = queued_words(calls)
    assert not any("--dependency" in word for stage in ("extract", "shadows") for word in words[stage])
    assert {"--array=0-3%4", "--dependency=afterok:2,afterok:1"} <= set(words["references"])
    assert {"--array=0-3%4", f"{out}/shadows"} <= set(words["shadows"])
    assert "--dependency=afterok:3" in words["attack"]
    for each in words.values():
        assert {f'set=references.shadows="{out}/shadows"', "set=references.count=4"} <= set(each)
    found = read_manifest(RunPaths(out))
    assert found is not None
    assert [field for field in found.digests if field.startswith("references.")] == ["references.shadows"]
    assert {each.stage: each.detail for each in read_state(RunPaths(out))}["shadows"] == "0 of 4 trained"

    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    trained(monkeypatch, out / "shadows", 0, 3)
    calls.unlink()
    assert submit_one(config, out, "--shadows", "6", "--json") == 0
    words = queued_words(calls)
    assert "--array=1-2,4-5%4" in words["shadows"]
    assert "--array=0-5%4" in words["references"]


def test_what_is_done_of_a_chain_is_not_queued_again_and_a_model_that_is_another_now_is(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"w"))
    out, config = tmp_path / "run", write_config()
    assert submit_one(config, out, "--shadows", "2") == 0
    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    trained(monkeypatch, out / "shadows", 0, 1)
    manifest = make_manifest(load_config(config, changes=shadows_stage.shadow_changes(out / "shadows", 2)))
    finish(RunPaths(out), manifest)
    samples = features_samples(RunPaths(out).features)
    assert samples is not None
    for paths in reference_paths(manifest, samples).values():
        paths.outputs.parent.mkdir(exist_ok=True)
        paths.outputs.touch()
    calls.unlink()
    capsys.readouterr()
    assert submit_one(config, out, "--shadows", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"jobs": {}, "runs": []}
    assert not calls.exists()
    ShadowPaths(out / "shadows").checkpoint(1).write_bytes(one_entry(b"new!"))
    assert submit_one(config, out, "--shadows", "2", "--json") == 0
    assert "references" in json.loads(capsys.readouterr().out)["jobs"]


def test_a_chain_above_the_largest_array_is_queued_whole_and_every_part_of_it_is_known(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LARGEST", "2")
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"w"))
    out, config = tmp_path / "run", write_config({"attack.methods": [{"method": "lr"}, {"method": "lira_fixed"}]})
    assert submit_one(config, out, "--shadows", "4", "--json") == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    names = ["extract", "shadows", "shadows 2", "references", "references 2", "attack", "attack 2", "reduce"]
    assert jobs == {name: number for number, name in enumerate(names, start=1)}
    commands = [line.split() for line in calls.read_text().splitlines()]
    assert [word for word in commands[4] if word in ("first=2", "--dependency=afterok:2,afterok:3,afterok:1")] == [
        "--dependency=afterok:2,afterok:3,afterok:1", "first=2",
    ]  # fmt: skip
    marks = [next(word for word in each if word.startswith("--comment=")) for each in commands]
    assert len(set(marks)) == len(names)
    assert all(slurm.MARK.fullmatch(mark.removeprefix("--comment=")) for mark in marks)
    assert latest_jobs(RunPaths(out)) == {
        "extract": "1", "shadows": "2", "shadows 2": "3", "references": "4", "references 2": "5", "attack lr": "6_0",
        "attack lira_fixed": "6_1", "attack blind": "7_0", "reduce": "8",
    }  # fmt: skip

    said = dict.fromkeys(map(str, range(1, 9)), "COMPLETED") | {"3": "PENDING"}
    monkeypatch.setattr(slurm, "job_states", lambda jobs: {job: said[job.partition("_")[0]] for job in jobs})
    (stages,) = queue.statuses([RunPaths(out)])
    shown = {stage.stage: (stage.state, stage.job) for stage in stages}
    assert shown["shadows"] == ("queued", "3 PENDING, 2 COMPLETED")
    with pytest.raises(InputError, match="must have no jobs in the queue, got 3 PENDING"):
        submit_one(config, out, "--shadows", "4")
    said["3"] = "FAILED"
    assert {stage.stage: stage for stage in queue.statuses([RunPaths(out)])[0]}["shadows"].state == "failed"
    monkeypatch.delenv("LARGEST")  # a later submission, whose parts are others
    assert submit_one(config, out, "--shadows", "4") == 0
    assert stage_jobs(RunPaths(out))["shadows"] == ["10"]


def test_models_of_several_arrays_of_checkpoints_are_trained_once(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LARGEST", "2")
    config = write_config()
    for number in range(3):
        (tmp_path / f"net{number}.ckpt").write_bytes(one_entry(b"%d" % number))
    (tmp_path / "net.ckpt").unlink()
    out = tmp_path / "runs"
    words = ("--shadows", "2")
    assert submit_all(config, out, *words, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("shadows") for line in lines) == 1
    assert sum("--dependency=afterok:$shadows,aftercorr:$extract" in line for line in lines) == 2
    assert submit_all(config, out, *words, "--json") == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [name for name in jobs if name.startswith("shadows")] == ["shadows"]
    assert {latest_jobs(run)["shadows"] for run in runs_in(out)} == {str(jobs["shadows"])}
    second = calls.read_text().splitlines()[jobs["references 2"] - 1]
    assert f"--dependency=afterok:{jobs['shadows']},aftercorr:{jobs['extract 2']}" in second


@pytest.mark.parametrize(("count", "got"), [("3", "3"), ("0", "0")])
def test_a_count_that_makes_no_pairs_queues_nothing(
    tmp_path: Path, write_config: WriteConfig, calls: Path, count: str, got: str
) -> None:
    with pytest.raises(InputError, match=f"must be an even number from 2 to 1000, as models come in pairs, got {got}"):
        submit_one(write_config(), tmp_path / "run", "--shadows", count)
    assert not calls.exists()
    assert not (tmp_path / "run").exists()


CHANGES = ("attack.seed=2", "attack.methods[0].params.C=[1, 10]", "data.members={split: train, num_samples: 80}")


@pytest.mark.parametrize("many", [False, True])
def test_what_was_set_travels_with_every_job(
    tmp_path: Path, write_config: WriteConfig, calls: Path, capsys: pytest.CaptureFixture[str], many: bool
) -> None:
    checkpoint = tmp_path / "net.ckpt"
    checkpoint.write_bytes(one_entry(b"w"))
    words = [f"--set={change}" for change in CHANGES]
    queue = submit_all if many else submit_one
    assert queue(write_config(), tmp_path / "runs", *words, "--dry-run") == 0
    for line in capsys.readouterr().out.splitlines():
        command = shlex.split(line.partition("=$(")[2].removesuffix(")"))
        assert [word for word in command if word.startswith("set=")] == [f"set={change}" for change in CHANGES]
    assert not (tmp_path / "runs").exists()
    assert queue(write_config(), tmp_path / "runs", *words) == 0
    (run,) = runs_in(tmp_path / "runs") if many else [RunPaths(tmp_path / "runs")]
    manifest = in_force(run)
    assert manifest.changes == CHANGES
    assert manifest.config["attack"]["seed"] == 2
    edited = load_config(write_config({
        "attack.seed": 2, "attack.methods": [{"method": "lr", "params": {"C": [1, 10]}}],
        "data.members": {"split": "train", "num_samples": 80},
    }, name="edited.yaml"))  # fmt: skip
    assert manifest.config == edited.resolved()


def test_another_value_is_another_run_as_if_the_file_had_it(
    tmp_path: Path, write_config: WriteConfig, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    monkeypatch.setattr(submission, "refuse_active", lambda _: None)
    assert submit_all(write_config(), out, "--set", "attack.seed=2") == 0
    (run,) = runs_in(out)
    finish(run, in_force(run))
    calls.unlink()
    assert submit_all(write_config({"attack.seed": 2}), out) == 0  # the same by its values
    assert not calls.exists()
    assert submit_all(write_config(), out, "--set", "attack.seed=3") == 0
    assert [line.partition("mia-")[2].split()[0] for line in calls.read_text().splitlines()] == ["attack", "reduce"]
    assert in_force(run).changes == ("attack.seed=3",)
    with pytest.raises(InputError, match=r"holds another run: data\.image_size was \[32, 32\] and is now \[64, 64\];"):
        submit_all(write_config(), out, "--set", "data.image_size=[64, 64]")


def test_what_jobs_will_take_is_said_and_what_the_site_does_not_give(
    tmp_path: Path, write_config: WriteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "net.ckpt").write_bytes(one_entry(b"w"))
    site = site_file(tmp_path, "extract: {memory: 100M, tasks_per_node: 2}\nattack: {time: '0:01', memory: 64G}")
    with caplog.at_level("INFO"):
        assert submit_one(write_config(), tmp_path / "run", "--site", str(site), "--dry-run") == 0
    said = [record.message for record in caplog.records]
    assert [line.split(": ")[1] for line in said if line.startswith("estimate: ")] == ["extract", "attack", "reduce"]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "site: extract.memory: 100M of a node is below the estimate, at least 0.83 GiB",
        next(line for line in said if line.startswith("site: attack.time: 0:01 is below the estimate, about ")),
    ]


# --- the interpreter and the launcher ---------------------------------------------------------------------------------


def test_jobs_use_the_interpreter_and_the_mpirun_that_queue_them(tmp_path: Path) -> None:
    beside = Path(sys.prefix) / "bin" / "mpirun"
    for path in SITES:
        site = load_site(path)
        assert site.python is None
        assert site.command("extract") == [*(site.launcher or (str(beside),)), sys.executable]
        assert site.command("attack") == [sys.executable]
    named = load_site(site_file(tmp_path, "{python: /opt/python, launcher: srun --mpi=pmi2}"))
    assert named.command("references") == ["srun", "--mpi=pmi2", "/opt/python"]
    assert load_site(site_file(tmp_path, "container: run image")).command("reduce") == ["run", "image", "python3"]
