"""Launch truth: a world that is not the one asked for is refused, and one process needs no MPI."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from steps import OF_A_STEP

from mia_batch.errors import InputError
from mia_batch.mpi.launcher import check_size, launched_by_mpi, launched_first, own_mpirun, stage_environment
from mia_batch.mpi.world import World, connect


def test_without_a_launcher_the_world_is_one_and_mpi_is_not_imported() -> None:
    code = "import sys; from mia_batch.mpi.world import connect as c; w = c({}); print(w.size, 'mpi4py' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["1", "False"]


def test_a_world_of_one_takes_the_same_calls() -> None:
    world = connect({})
    assert (world.rank, world.size, world.local_rank, world.local_size, world.n_nodes) == (0, 1, 0, 1, 1)
    assert world.on_root(lambda: 7) == world.on_all(lambda: 7) == 7
    block = np.arange(3)
    np.testing.assert_array_equal(world.gather_blocks(block, np.array([3])), block)
    np.testing.assert_array_equal(world.share_headers(np.array([1, 2])), [[1, 2]])


@pytest.mark.parametrize(
    ("size", "environ"),
    [
        (1, {"PMI_SIZE": "4"}),
        (1, {"OMPI_COMM_WORLD_SIZE": "2"}),
        (1, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}),
        (2, {"PMI_SIZE": "2", "SLURM_NTASKS": "4"}),
        (1, {"SLURM_NTASKS": "2"}),
        (2, {"PMI_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "MIA_BATCH_RANKS": "4"}),
    ],
)
def test_a_world_of_another_size_is_refused(size: int, environ: dict[str, str]) -> None:
    with pytest.raises(InputError, match=rf"the world must have .* ranks, got {size}") as caught:
        check_size(size, environ, library="SomeMPI 1.0")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("size", "environ"),
    [
        (1, {}),
        (4, {"PMI_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}),  # mpirun's daemons, one a node
        (4, {"PMI_SIZE": "4", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}),
        (4, {"PMI_SIZE": "4", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "MIA_BATCH_RANKS": "4"}),
        (4, {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "0"}),
        (3, {"OMPI_COMM_WORLD_SIZE": "3"}),
    ],
)
def test_a_world_of_the_meant_size_passes(size: int, environ: dict[str, str]) -> None:
    check_size(size, environ)


@pytest.mark.parametrize(
    ("library", "cause"),
    [
        ("", "no launcher has started"),
        ("Open MPI v5.0.1, package: x", r"\(Open MPI v5.0.1\) .* srun --mpi=pmix$"),
        ("MPICH Version: 5", "--mpi=pmi2$"),
    ],
)
def test_the_cause_of_n_worlds_of_one_is_named(library: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        check_size(1, {"SLURM_STEP_NUM_TASKS": "4"}, library=library)


def test_the_launchers_rank_is_known_without_a_world() -> None:
    assert not launched_first({"PMI_RANK": "3", "SLURM_PROCID": "0"})
    assert launched_first({"SLURM_PROCID": "0"})
    assert launched_first({})


def test_marks_of_launchers() -> None:
    assert launched_by_mpi({"PMI_RANK": "0"})
    assert launched_by_mpi({"SLURM_STEP_NUM_TASKS": "2"})
    assert not launched_by_mpi({"SLURM_STEP_NUM_TASKS": "1"})
    assert not launched_by_mpi({"SLURM_JOB_ID": "7"})


def test_an_input_error_on_the_root_is_raised() -> None:
    def fail() -> None:
        raise InputError(["a", "b"])

    for call in (World().on_root, World().on_all):
        with pytest.raises(InputError) as caught:
            call(fail)
        assert caught.value.problems == ("a", "b")


def test_a_stage_is_no_rank_of_the_step_that_its_user_sits_in() -> None:
    found = stage_environment({**OF_A_STEP, "SLURM_CPUS_PER_TASK": "4", "PATH": "/bin"})
    assert {name for name in found if name.startswith(("SLURM", "PMI"))} == {"SLURM_CPUS_PER_TASK", "SLURM_JOB_ID"}
    assert found["PATH"] == "/bin"
    assert not launched_by_mpi(found)
    check_size(4, {**found, "PMI_SIZE": "4"})


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_run_that_is_started_as_several_ranks_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"mia-batch run: must be started once, .* \(--ranks\), got {name}=4$"):
        stage_environment({name: "4"})
    with pytest.raises(InputError, match="must be started once"):
        stage_environment({name: "words"})


def test_a_job_finds_mpirun_where_its_submitter_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert own_mpirun({"PATH": str(tmp_path)}) == "mpirun"
    (tmp_path / "mpirun").touch(mode=0o755)
    assert own_mpirun({"PATH": str(tmp_path)}) == str(tmp_path / "mpirun")
