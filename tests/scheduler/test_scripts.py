"""The batch scripts run by hand, without Slurm: what they share, their words, and when they go back to the queue."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mia_batch.files import shipped

SLURM = shipped("slurm")
STAGES = ["shadows", "prepare", "extract", "references", "import", "attack", "reduce", "trajectory"]
SCRIPTS = [*STAGES, "nightly"]
SLURM_SAYS = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "j", "SLURM_JOB_NODELIST": "n"}
TASK = {"shadows": {"SLURM_ARRAY_TASK_ID": "0"}}  # of stages that are arrays always


def run_script(folder: Path, stage: str, *argv: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a batch script in `folder` as bash would, with `printf` in the place of Python."""
    env = {**os.environ, **SLURM_SAYS, **TASK.get(stage, {}), **environ}
    command = ["bash", str(SLURM / f"{stage}.sbatch"), *map(str, argv)]
    return subprocess.run(command, text=True, capture_output=True, check=False, env=env, cwd=folder)


def log_of(run: Path, stage: str) -> Path:
    """The log of `run_script`."""
    return run / "logs" / (f"{stage}-1_0.log" if stage in TASK else f"{stage}-1.log")


SHOW = ("--", "printf", "<%s>\n")


@pytest.mark.parametrize("stage", ["extract", "attack", "reduce"])
def test_a_script_passes_its_arguments_unchanged(tmp_path: Path, stage: str) -> None:
    odd = "a \"b\" 'c' $HOME\nd*"
    (tmp_path / "setup me").write_text("export FROM_SETUP=yes\n")
    setup = f"source={tmp_path / 'setup me'}"
    show = ("sh", "-c", 'printf "<%s>" "$FROM_SETUP" "$@"')
    done = run_script(tmp_path, stage, odd, odd, setup, f"checkpoint={odd}", f"set=a.b={odd}", "set=c=", "--", *show)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / odd / "logs" / f"{stage}-1.log").read_text()
    changes = f"<--set><a.b={odd}><--set><c=>"
    assert said.endswith(f"<yes><mia_batch.jobs.{stage}><{odd}><--out><{odd}><--checkpoint><{odd}>{changes}")


def test_a_task_of_an_array_takes_its_own_run_or_method(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("one", "t\nw o"))
    (tmp_path / "list").write_bytes(b"".join(os.fsencode(f"{run}.ckpt\0{run}\0") for run in (first, second)))
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    for stage in ("extract", "attack", "reduce"):
        run_script(tmp_path, stage, "c", "unused", f"list={tmp_path / 'list'}", *SHOW, **task)
        shown = (second / "logs" / f"{stage}-7_1.log").read_text()
        assert shown.endswith(f"<--out>\n<{second}>\n<--checkpoint>\n<{second}.ckpt>\n")
    run_script(tmp_path, "attack", "c", "d", "method=lr", "method=rf", *SHOW, **task)
    assert (tmp_path / "d/logs/attack-7_1.log").read_text().endswith("<--out>\n<d>\n<--method>\n<rf>\n")
    shown = run_script(tmp_path, "prepare", "c", "d", f"list={tmp_path / 'list'}", *SHOW).stdout
    assert shown.endswith(f"<--out>\n<d>\n<--checkpoint>\n<{first}.ckpt>\n")


def test_a_task_of_shadows_trains_the_model_of_its_number(tmp_path: Path) -> None:
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "12"}
    run_script(tmp_path, "shadows", "c", "d", "set=train.epochs=2", *SHOW, **task)
    said = (tmp_path / "d/logs/shadows-7_12.log").read_text()
    assert said.endswith("<mia_batch.jobs.shadows>\n<c>\n<--out>\n<d>\n<--set>\n<train.epochs=2>\n<--only>\n<12>\n")
    alone = run_script(tmp_path, "shadows", "c", "e", *SHOW, SLURM_ARRAY_TASK_ID="")
    assert alone.returncode != 0
    assert "wants an array: sbatch --array=0-3" in alone.stderr
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("stage", ["extract", "attack", "reduce"])
def test_a_task_that_its_words_do_not_know_ends_at_once(tmp_path: Path, stage: str) -> None:
    (tmp_path / "list").write_bytes(b"a.ckpt\0a\0b.ckpt\0b\0")
    for words in (["list=list"], *([["method=lr", "method=rf"]] if stage == "attack" else [])):
        without = run_script(tmp_path, stage, "c", "d", *words, *SHOW)
        assert without.returncode != 0
        assert "wants an array: sbatch --array=0-1\n" in without.stderr
        beyond = run_script(tmp_path, stage, "c", "d", *words, *SHOW, SLURM_ARRAY_TASK_ID="2")
        assert beyond.returncode != 0
        assert "task 2" in beyond.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


def test_the_next_night_is_queued_once_slurm_answers(tmp_path: Path) -> None:
    programs = {
        "squeue": "[ -e asked ] || { touch asked; exit 1; }",
        "sleep": 'echo "$1" >slept',
        "sbatch": 'echo "$*" >queued; exit 1',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_USER": "u", "SLURM_JOB_PARTITION": "p", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run_script(tmp_path, "nightly", "c", "w", "r s", "at=02:00", *SHOW, **slurm)
    assert (tmp_path / "slept").read_text() == "60\n"
    queued = f"--begin=02:00 --job-name=j --partition=p {SLURM}/nightly.sbatch c w r s at=02:00 -- printf <%s>\n"
    assert (tmp_path / "queued").read_text().startswith(queued)
    assert "this one is the last" in done.stderr
    assert done.stdout.endswith("<c>\n<--watch>\n<w>\n<--runs>\n<r s>\n")  # tonight's audits are made all the same


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_script_refuses_what_it_does_not_know(tmp_path: Path, stage: str) -> None:
    assert "usage: sbatch" in run_script(tmp_path, stage).stderr
    done = run_script(tmp_path, stage, "c", "d", "e=1", "f=2")
    assert done.returncode == 2
    assert "no such word" in done.stderr


def test_a_word_needs_its_sign_and_its_stage(tmp_path: Path) -> None:
    for stage, word in (
        ("extract", "module"), ("extract", "method=lr"), ("attack", "prepared=p"), ("reduce", "=x"),
        ("attack", "first=1"), ("shadows", "first=-1"), ("references", "first=x[1]"),
    ):  # fmt: skip
        done = run_script(tmp_path, stage, "c", "d", word, *SHOW)
        assert (done.returncode, done.stderr) == (2, f"{stage}.sbatch: no such word: {word}\n")
    assert not list(tmp_path.iterdir())


def test_a_task_of_an_array_does_its_own_reference(tmp_path: Path) -> None:
    log = tmp_path / "d/logs/references-1_4.log"
    assert run_script(tmp_path, "references", "c", "d", *SHOW, SLURM_ARRAY_TASK_ID="4").returncode == 0
    assert "<--only>\n<4>" in log.read_text()
    assert run_script(tmp_path, "references", "c", "p", "first=8", *SHOW, SLURM_ARRAY_TASK_ID="4").returncode == 0
    assert "<--only>\n<12>" in (tmp_path / "p/logs/references-1_4.log").read_text()
    run_script(tmp_path, "shadows", "c", "q", "first=8", *SHOW, SLURM_ARRAY_TASK_ID="1")
    assert "<--only>\n<9>" in (tmp_path / "q/logs/shadows-1_1.log").read_text()
    (tmp_path / "list").write_text("w\0d\0" * 5)
    assert run_script(tmp_path, "references", "c", "o", "list=list", *SHOW, SLURM_ARRAY_TASK_ID="4").returncode == 0
    assert "--only" not in log.read_text().split("<--checkpoint>")[1]


@pytest.mark.parametrize(("task", "name"), [("", ".references.launch"), ("4", ".references-4.launch")])
def test_the_crash_of_a_rank_is_noted_where_the_reference_is(tmp_path: Path, task: str, name: str) -> None:
    launch, run = tmp_path / "the store" / ".k.launch", tmp_path / "d"
    for folder in (launch.parent, run):
        folder.mkdir()
    launch.write_text("0110\n")
    (run / name).write_text(f"{launch}\n")
    for code in (139, 6, 137, 1):
        end = ("--", "sh", "-c", f"exit {code}")
        assert run_script(tmp_path, "references", "c", str(run), *end, SLURM_ARRAY_TASK_ID=task).returncode == code
    noted = [f"references ended with exit code {code}" for code in (139, 6)]
    assert launch.read_text().splitlines() == ["0110", *noted]
    launch.unlink()  # complete by now
    run_script(tmp_path, "references", "c", str(run), "--", "sh", "-c", "exit 139", SLURM_ARRAY_TASK_ID=task)
    assert not launch.exists()


# --- one source ------------------------------------------------------------------------------------------------------

BODY = SLURM / "body.bash"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_script_is_a_head_and_the_common_body(stage: str) -> None:
    body = BODY.read_text()
    head, mark, rest = (SLURM / f"{stage}.sbatch").read_text().partition(body.partition("\n")[0])
    assert mark + rest == body, "change slurm/body.bash, then `make scripts`"
    words = [line for line in head.splitlines() if line and not line.startswith("#")]
    assert len(words) == 2, "a head only says what is different"


def test_the_nightly_begins_like_the_stages() -> None:
    common = BODY.read_text().split("\n\n")[1]
    assert "umask 077\n" in common
    assert "export PYTHONSAFEPATH=1" in common
    before, found, _ = (SLURM / "nightly.sbatch").read_text().partition(common)
    assert found
    assert all(line.startswith("#") for line in before.split("\n") if line)


# --- private, and deaf to the working directory ----------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("stage", SCRIPTS)
def test_what_a_script_writes_is_its_owners_alone(tmp_path: Path, stage: str) -> None:
    (tmp_path / "setup").write_text("umask 022\n")
    out, run = tmp_path / "slurm-1.out", tmp_path / "a" / "run"
    out.touch(mode=0o644)
    user = {"SLURM_JOB_USER": "u", "PATH": f"{stubs(tmp_path)}:{os.environ['PATH']}"}
    env = {**os.environ, **SLURM_SAYS, **TASK.get(stage, {}), **user}
    arguments = ["c", str(run), *(["r"] if stage == "nightly" else []), f"source={tmp_path / 'setup'}"]
    python = ["--", "sh", "-c", 'umask; echo "safe=$PYTHONSAFEPATH"; touch written']
    with out.open("a") as log:
        command = ["bash", str(SLURM / f"{stage}.sbatch"), *arguments, *python]
        subprocess.run(command, stdout=log, stderr=log, env=env, cwd=tmp_path, check=True, umask=0o022)
    own = log_of(run, stage)
    said = own.read_text() if own.exists() else out.read_text()
    assert said.endswith("0077\nsafe=1\n")
    assert own.exists() == (stage not in ("prepare", "nightly"))
    assert mode(out) == mode(tmp_path / "written") == 0o600
    assert {mode(path) for path in (tmp_path / "a").rglob("*") if path.is_file()} <= {0o600}
    assert {mode(path) for path in (tmp_path / "a", run, run / "logs") if path.exists()} <= {0o700}


@pytest.mark.parametrize("pythonpath", ["", "/nowhere:"])  # an empty entry is the working directory
@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_script_imports_nothing_from_the_working_directory(tmp_path: Path, stage: str, pythonpath: str) -> None:
    names = ["yaml", "numpy", "h5py", "joblib", "argparse"]
    if sys.version_info >= (3, 11) and not pythonpath:  # what is imported before any line of ours
        names += ["runpy", "pkgutil", "mia_batch"]
    for name in names:
        (tmp_path / f"{name}.py").write_text("open('imported', 'a').write(__name__)\n")
    words = ["r"] if stage == "nightly" else []
    env = {"SLURM_JOB_USER": "u", "PATH": f"{stubs(tmp_path)}:{os.environ['PATH']}", "PYTHONPATH": pythonpath}
    done = run_script(tmp_path, stage, "no config", "run", *words, "--", sys.executable, **env)
    assert done.returncode == 2
    log = log_of(tmp_path / "run", stage)
    assert "mia-batch: " in (log.read_text() if log.exists() else done.stderr)
    assert not (tmp_path / "imported").exists()


# --- back to the queue -----------------------------------------------------------------------------------------------

WARNED = 'trap "" USR1; kill -USR1 $PPID; sleep 0.2; '


def stubs(folder: Path) -> Path:
    """Programs of Slurm: scontrol and sbatch note what they are told; a node is lost if there is a file `lost`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    note = f'echo "${{0##*/}} $*" >>"{folder}/calls"\n'
    for name, text in {"scontrol": note, "sbatch": note, "squeue": "", "srun": f'[ ! -e "{folder}/lost" ]\n'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    return programs


def queues_again(folder: Path, stage: str, python: str, **environ: str) -> bool:
    """Whether a script whose Python is this line of shell asks for its requeue; it has Python's exit code."""
    (folder / "calls").unlink(missing_ok=True)
    env = {"PATH": f"{stubs(folder)}:{os.environ['PATH']}", "SLURM_JOB_NUM_NODES": "1", **environ}
    done = run_script(folder, stage, "c", "d", "--", "sh", "-c", python, **env)
    assert done.returncode == int(python.split()[-1])
    calls = (folder / "calls").read_text() if (folder / "calls").exists() else ""
    assert calls in ("", "scontrol requeue 1\n")
    return bool(calls)


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_was_stopped_goes_back_to_the_queue(tmp_path: Path, stage: str) -> None:
    for final in (0, 1, 2, 3, 4):  # verdicts, and what would fail again
        assert not queues_again(tmp_path, stage, f"exit {final}")
        assert not queues_again(tmp_path, stage, f"{WARNED} exit {final}")
    assert queues_again(tmp_path, stage, "exit 75")
    assert queues_again(tmp_path, stage, f"{WARNED} exit 75")
    assert queues_again(tmp_path, stage, f"{WARNED} exit 138")
    assert not queues_again(tmp_path, stage, "exit 138")
    assert not queues_again(tmp_path, stage, 'trap "" USR1; kill -TERM $PPID; sleep 0.2; exit 75')  # Slurm's business
    assert not queues_again(tmp_path, stage, "exit 75", SLURM_RESTART_COUNT="100")


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_has_ranks_asks_for_a_lost_node_and_not_after_a_verdict(tmp_path: Path, stage: str) -> None:
    (tmp_path / "lost").touch()
    assert queues_again(tmp_path, stage, "exit 5") == (stage in ("extract", "references"))
    for final in (0, 1, 2, 3, 4):
        assert not queues_again(tmp_path, stage, f"exit {final}")


def test_srun_starts_tasks_with_the_jobs_cores_and_mpirun_does_not(tmp_path: Path) -> None:
    def told(launcher: str, **environ: str) -> str:
        (tmp_path / launcher).write_text('#!/bin/sh\necho "cores=${SRUN_CPUS_PER_TASK-unset}"\n')
        (tmp_path / launcher).chmod(0o755)
        run_script(tmp_path, "extract", "c", "d", "--", str(tmp_path / launcher), **environ)
        return (tmp_path / "d/logs/extract-1.log").read_text().splitlines()[-1]

    assert told("srun", SLURM_CPUS_PER_TASK="4") == "cores=4"
    assert told("srun", SLURM_CPUS_PER_TASK="4", SRUN_CPUS_PER_TASK="2") == "cores=2"
    assert told("srun") == "cores=unset"
    assert told("mpirun", SLURM_CPUS_PER_TASK="4") == "cores=unset"


@pytest.mark.parametrize("stage", STAGES)
def test_variables_are_set_before_the_sites_files_which_may_overrule_them(tmp_path: Path, stage: str) -> None:
    """And ranks get them too: in a job of --export=NONE srun would pass nothing on."""
    (tmp_path / "setup").write_text('export SECOND="$FIRST and more"\n')
    words = ("export=FIRST=a  b=$c", "export=SECOND=x", "source=setup")
    show = ("sh", "-c", 'printf "<%s>" "$FIRST" "$SECOND" "$SLURM_EXPORT_ENV"')
    done = run_script(tmp_path, stage, "c", "d", *words, "--", *show, SLURM_EXPORT_ENV="NONE")
    assert done.returncode == 0, done.stderr
    said = done.stdout if stage == "prepare" else log_of(tmp_path / "d", stage).read_text()
    assert said.endswith("<a  b=$c><a  b=$c and more><ALL>")
