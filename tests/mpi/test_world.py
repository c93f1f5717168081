"""Launch truth: a world that is not the one asked for is refused, and one process needs no MPI."""

import subprocess
import sys

import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.mpi.launcher import check_size, launched_by_mpi, launched_first
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
