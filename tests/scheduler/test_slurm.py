"""What clients of Slurm answer, in the forms that sites give it: with scripts in the place of the clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mia_batch.errors import InputError
from mia_batch.scheduler import slurm

MARK = f"{slurm.new_mark(Path('/runs/one'))}extract"
Clients = Callable[..., Path]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Put scripts on PATH by name; returns what each call is noted in."""
    monkeypatch.setattr(slurm, "LOOKS_S", (0.0, 0.1))

    def make(**scripts: str) -> Path:
        for name, text in scripts.items():
            (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >>{tmp_path}/calls\n{text}\n')
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "calls"

    return make


NONE = "true"


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("12", "12"), ("12;far", "12;far"), ("Welcome!\nCost: 17 hours\n12", "12"), ("\n 12 \nBye\n", "12"),
        ("12;far_2.x\nyou have 3 jobs", "12;far_2.x"),
    ],
)
def test_the_job_is_found_among_what_a_site_prints(clients: Clients, said: str, job: str) -> None:
    clients(sbatch=f"printf '%s' '{said}'", squeue="exit 1")
    assert slurm.sbatch(["sbatch", "--parsable", "x"], MARK) == job


def test_of_several_numbers_the_mark_decides(clients: Clients) -> None:
    far = f"[[ $* != *--clusters=far* ]] || echo '12|PENDING n {MARK}'"
    calls = clients(sbatch="echo 17; echo '12;far'", squeue=far)
    assert slurm.sbatch(["sbatch", "--parsable", "x"], MARK) == "12;far"
    assert f"sbatch --comment={MARK} --parsable x" in calls.read_text()


def test_a_job_without_an_answer_is_found_by_its_mark_and_its_sbatch_ends(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 1)
    other = MARK.replace("extract", "reduce")
    clients(
        sbatch=f"(sleep 3; touch {tmp_path}/late) & sleep 100",
        squeue=f"echo '11|RUNNING n {other}'; echo '12|PENDING n {MARK}'",
    )
    assert slurm.sbatch(["sbatch", "--parsable", "x"], MARK) == "12"
    time.sleep(3)
    assert not (tmp_path / "late").exists()  # what the wrapper had started queues nothing any more


def test_where_no_job_is_found_the_cause_is_told(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 1)
    clients(sbatch="sleep 100", squeue=NONE)
    with pytest.raises(InputError, match=r"must answer within 1 s.*No job of the mark audit-"):
        slurm.sbatch(["sbatch", "x"], MARK)
    clients(sbatch="echo 'sbatch: error: Socket timed out' >&2; exit 1", squeue="exit 1")
    with pytest.raises(InputError, match=r"No job of the mark audit-"):
        slurm.sbatch(["sbatch", "x"], MARK)
    clients(sbatch="echo 'invalid partition' >&2; exit 1", squeue=NONE)
    with pytest.raises(InputError, match=r"sbatch: must accept the job, got: invalid partition"):
        slurm.sbatch(["sbatch", "x"], MARK)
    clients(sbatch="echo no number", squeue=NONE)
    with pytest.raises(InputError, match=r"must accept the job and name it, got: no number"):
        slurm.sbatch(["sbatch", "x"], MARK)


def test_a_comment_of_the_sites_own_stays_and_the_name_carries_the_mark() -> None:
    command = ["sbatch", "--parsable", "--job-name=mia-extract", "--comment=96:00", "x"]
    assert slurm.marked(command, "m") == ["sbatch", "--parsable", "--job-name=mia-extract-m", "--comment=96:00", "x"]
    assert slurm.marked(["sbatch", "--job-name=a"], "m", {"SBATCH_COMMENT": "c"}) == ["sbatch", "--job-name=a-m"]
    assert slurm.marked(["sbatch", "x"], "m", {}) == ["sbatch", "--comment=m", "x"]


def test_marks_are_of_a_directory_and_unique() -> None:
    one, two = (slurm.new_mark(Path("/runs/one")) for _ in range(2))
    assert one != two
    assert one.startswith(slurm.mark_of(Path("/runs/one")))
    assert not one.startswith(slurm.mark_of(Path("/runs/two")))
    assert slurm.MARK.fullmatch(f"{one}extract")


def test_jobs_of_several_clusters_are_each_asked_for_on_their_own(clients: Clients) -> None:
    say = "case $* in *--clusters=far*) echo 'CLUSTER: far'; echo '12_0|RUNNING';; *) echo '12_0|FAILED';; esac"
    calls = clients(squeue=say, sacct="echo '13|CANCELLED by 5'", scancel=NONE)
    jobs = ["12_0", "12_0;far", "13;far"]
    assert slurm.job_states(jobs) == {"12_0": "FAILED", "12_0;far": "RUNNING", "13;far": "CANCELLED"}
    assert "sacct --noheader --clusters=far" in calls.read_text()
    slurm.scancel(jobs)
    assert [line for line in calls.read_text().splitlines() if "scancel" in line] == [
        "scancel 12_0", "scancel --clusters=far 12_0 13"
    ]  # fmt: skip
    assert [slurm.task(job, 3) for job in ("12", "12;far")] == ["12_3", "12_3;far"]


@pytest.mark.parametrize(
    ("said", "size"),
    [("MaxArraySize            = 1001", 1001), ("MaxArraySize            = 0", None), ("", None)],
)
def test_the_largest_array_is_what_the_controller_says(clients: Clients, said: str, size: int | None) -> None:
    clients(scontrol=f"echo 'X = 1'; echo '{said}'")
    assert slurm.largest_array() == size
