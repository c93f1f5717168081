"""What the doctor says of a node: its judgements on given facts, and one real screen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mia_batch.commands import doctor


@pytest.mark.parametrize(
    ("version", "device", "state"),
    [("2.8.0", "CPU", "ok"), ("2.9.0", "CPU", "slow"), ("2.10.1", "CPU", "slow"), ("3.0.0rc1", "CPU", "slow"),
     ("2.10.1", "Ascend", "ok"), ("2.9.0", "GPU", "ok")],
)  # fmt: skip
def test_mindspore_is_slow_on_cpu_from_2_9(version: str, device: str, state: str) -> None:
    assert doctor.judge_mindspore(version, device).state == state


@pytest.mark.parametrize(
    ("library", "said", "state", "advice"),
    [
        ("MPICH Version: 5.0.2", "HYDRA build details:", "ok", "--mpi=pmi2"),
        ("Open MPI v5.0.11, package: x", "mpirun (Open MPI) 5.0.11", "ok", "--mpi=pmix"),
        ("Open MPI v5.0.11", "HYDRA build details:", "FAIL", "this mpirun is MPICH's"),
        ("MPICH Version: 5.0.2", "mpirun (PRRTE) 3.0", "FAIL", "this mpirun is Open MPI's"),
        ("Some MPI", "", "ok", ""),
    ],
)
def test_a_launcher_of_another_mpi_is_named(library: str, said: str, state: str, advice: str) -> None:
    finding = doctor.judge_mpi(library, "/bin/mpirun", said)
    assert finding.state == state
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("said", "plugins"),
    [
        (
            "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v4",
            ["pmix", "none", "pmi2", "pmix_v4"],
        ),
        ("srun: MPI types are...\nsrun: none\nsrun: pmi2", ["none", "pmi2"]),
    ],
)
def test_the_mpi_plugins_of_srun_are_all_named(said: str, plugins: list[str]) -> None:
    assert doctor.mpi_plugins(said) == plugins


def test_a_probe_that_fails_gives_its_last_line() -> None:
    assert doctor.run_probe("print(1)") == "1"
    with pytest.raises(RuntimeError, match=r"^ModuleNotFoundError: No module named 'nothing_here'$"):
        doctor.run_probe("import nothing_here")


def test_the_screen_is_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(argparse.Namespace(dir=str(tmp_path / "not yet there"), json=False))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    names = [line.split()[1] for line in lines if line[0] != " "]
    assert names == ["python", "mindspore", "mpi", "cores", "memory", "slurm", "hdf5", "/dev/shm", "directory"]
    assert not list(tmp_path.iterdir())


def test_what_will_fail_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(dir=str(tmp_path), json=True)
    for state, code in (("ok", 0), ("slow", 0), ("FAIL", 1)):
        monkeypatch.setattr(doctor, "examine", lambda _path, state=state: [doctor.Finding("x", "y", state)])
        assert doctor.run(args) == code
        assert json.loads(capsys.readouterr().out)[0]["state"] == state
