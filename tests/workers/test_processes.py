"""joblib's process executor as the attack stage uses it: mapped features, deaths, signals, kills."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from deeds import Deed, not_to_be_loaded, refuse_processes
from joblib.externals.loky.process_executor import ProcessPoolExecutor
from running import REPO
from samples import fitting

from mia_batch.errors import InputError
from mia_batch.samples import Samples
from mia_batch.search.tasks import Done, Failed, Lost
from mia_batch.workers.open_executor import workers_within
from mia_batch.workers.processes import ProcessExecutor


def some_samples() -> Samples:
    rng = np.random.default_rng(0)
    return fitting(rng.normal(size=(60, 4)), np.arange(60) % 2, n_eval=10)


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(some_samples(), 2)
    yield executor
    executor.close()


def end(executor: ProcessExecutor, n: int = 1) -> list[Done | Lost]:
    """The next `n` tasks that end."""
    found: list[Done | Lost] = []
    while len(found) < n:
        found += executor.wait(60)
    return found


def run(executor: ProcessExecutor, *deeds: Deed) -> list[Any]:
    """Outcomes in the order of the deeds."""
    for number, deed in enumerate(deeds):
        executor.submit(str(number), deed)
    ended = {found.key: found for found in end(executor, len(deeds))}
    return [ended[str(number)] for number in range(len(deeds))]


def test_features_are_mapped_from_a_file_without_name(executor: ProcessExecutor) -> None:
    (done,) = run(executor, Deed("sum"))
    total, kind, _ = done.result
    assert total == pytest.approx(some_samples().columns["features"].sum())
    assert kind == "mmap"


def test_arrays_arrive_as_they_are_and_aligned() -> None:
    """As out of a network message at odd bytes: on such arrays numpy computes other last bits."""
    samples = some_samples()
    X = samples.columns["features"]
    odd = np.frombuffer(b"." + X.tobytes(), dtype=X.dtype, offset=1).reshape(X.shape)
    assert not odd.flags.aligned
    again = Samples.of_arrays(Samples(samples.member, samples.splits, features=odd).arrays())
    assert again.columns["features"].flags.aligned
    assert np.array_equal(again.columns["features"], X)
    assert np.array_equal(again.splits[0].fold_of, samples.splits[0].fold_of)


def test_a_worker_that_dies_loses_what_runs_beside_it_and_new_ones_come(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    run(executor, Deed("sum"))
    found = run(executor, Deed("die once", str(tmp_path / "died")), Deed("sleep"))
    assert [type(each) for each in found] == [Lost, Lost]
    assert executor.n_free() == 2
    assert isinstance(run(executor, Deed("die once", str(tmp_path / "died")))[0], Done)


def test_an_error_comes_back_with_its_traceback(executor: ProcessExecutor) -> None:
    with pytest.raises(KeyError, match="of no use") as error:
        run(executor, Deed("raise"))
    assert "in run" in str(error.value.__cause__)


def test_numbers_of_no_use_are_a_finding(executor: ProcessExecutor) -> None:
    (done,) = run(executor, Deed("fail"))
    assert done.result == Failed("ValueError: numbers of no use")


def test_workers_leave_the_schedulers_signals_to_the_parent(executor: ProcessExecutor) -> None:
    before = run(executor, Deed("sum"), Deed("sum"))
    for worker in {done.result[2] for done in before}:
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(worker, signum)
    time.sleep(0.2)
    assert all(isinstance(found, Done) for found in run(executor, Deed("sum"), Deed("sum")))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()  # ours is as it was


def test_no_process_is_left() -> None:
    executor = ProcessExecutor(some_samples(), 2)
    workers = [done.result[2] for done in run(executor, Deed("sum"), Deed("sum"))]
    executor.submit("endless", Deed("sleep"))
    executor.close()
    assert not [pid for pid in workers if psutil.pid_exists(pid)]


def test_what_cannot_be_loaded_ends_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    executor = ProcessExecutor(some_samples(), 1, preload=[not_to_be_loaded])
    try:
        with pytest.raises(OSError, match="of no use"):
            run(executor, Deed("sum"))
    finally:
        executor.close()


def test_a_limit_on_processes_is_one_line(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse_processes)
    with pytest.raises(InputError, match="system: must allow a process for each core, got: Resource temp"):
        executor.submit("x", Deed("sum"))


def test_joblib_itself_still_works_beside_it(executor: ProcessExecutor) -> None:
    run(executor, Deed("sum"))
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
    assert isinstance(run(executor, Deed("sum"))[0], Done)


def test_the_memory_budget_bounds_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    assert workers_within(4.0, 2, some_samples(), []) == 2
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert 1 <= workers_within(1.0, 64, some_samples(), []) < 4
    assert "fewer than the 64 cores" in caplog.text


LONG = """
import sys
from deeds import Deed
from test_processes import some_samples
from mia_batch.workers.processes import ProcessExecutor
executor = ProcessExecutor(some_samples(), 2, directory=sys.argv[1])
executor.submit("a", Deed("sum"))
executor.submit("b", Deed("sum"))
pids = [done.result[2] for _ in range(2) for done in executor.wait(60)]
while len(pids) < 2:
    pids += [done.result[2] for done in executor.wait(60)]
for n in range(2):
    executor.submit(str(n), Deed("sleep"))
print("started", flush=True)
while True:
    executor.wait(60)
"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_kill_leaves_nothing(tmp_path: Path, whole_group: bool) -> None:
    """Neither files in the run directory, /tmp or /dev/shm nor workers outlive kill -9 by five seconds."""
    home, temporary = tmp_path / "run", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    shm = set(os.listdir("/dev/shm"))
    path = os.pathsep.join([str(Path(__file__).parent), str(REPO / "tests" / "helpers")])
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, str(home)], env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
        start_new_session=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not list(home.iterdir())
    assert not list(temporary.iterdir())
    # Of a whole group the few bytes of loky's semaphores stay: whoever would remove them is killed too.
    pids = [str(process.pid), *(str(child.pid) for child in children)]
    mine = [name for name in set(os.listdir("/dev/shm")) - shm if any(pid in name for pid in pids)]
    assert not [name for name in mine if not name.startswith("sem.")]
    for name in mine:
        os.unlink(f"/dev/shm/{name}")
