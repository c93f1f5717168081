"""The engine: one list of tasks, whole results, restarts, workers that die, clusters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from deeds import allow_no_process, echo, loads_forever, not_to_be_loaded, task
from mia_batch.search.engine import Stopped, run_attacks, workers_within
from mia_batch.search.method_run import MethodRun
from mia_batch.workers.forkserver import ForkServer
from mia_batch.workers.pool import Data, LocalPool
from running import REPO
from sklearn.datasets import make_classification

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.split import split_rows
from mia_batch.errors import InputError
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.stock import fit_recorded
from mia_batch.search.folds import fold_numbers
from mia_batch.search.tasks import Task
from mia_batch.settings.schema import AttackConfig

GRIDS: dict[str, dict[str, Any]] = {
    "lr": {"C": [0.01, 1.0, 100.0]},
    "knn": {"n_neighbors": [1, 5, 9], "weights": ["uniform", "distance"]},
    "mlp": {"hidden_layer_sizes": [[8]], "alpha": [0.001, 0.1], "max_iter": [15]},
    "rf": {"n_estimators": [10, 30], "max_depth": [3, None], "min_samples_leaf": [1, 3]},
}


def data(n: int = 260, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(n, d, n_informative=4, n_redundant=0, flip_y=0.3, random_state=0)
    return X, y


def settings(*methods: str, **options: Any) -> AttackConfig:
    chosen = tuple({"method": method, "params": GRIDS[method]} for method in methods or GRIDS)
    return AttackConfig(**{"methods": chosen, **options})


def same(a: AttackResult, b: AttackResult) -> bool:
    return (
        np.array_equal(a.scores, b.scores, equal_nan=True) and np.array_equal(a.predicted, b.predicted)
        and a.cv_results == b.cv_results and a.best_params == b.best_params
    )


def searched(result: AttackResult) -> list[str]:
    """Tasks of the search that this run has done."""
    return [entry["task"] for entry in result.provenance["tasks"] if "/final/" not in entry["task"]]


class DictJournal(dict):  # type: ignore[type-arg]
    def put(self, key: str, value: dict[str, Any]) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def journal() -> DictJournal:
    """What the run of `shared` has put down."""
    return DictJournal()


@pytest.fixture(scope="module")
def shared(journal: DictJournal) -> dict[str, AttackResult]:
    """All four methods by the engine, on two workers."""
    return run_attacks(*data(), settings(), n_jobs=2, journal=journal)


class TestShared:
    def test_whole_results_in_the_order_of_the_config(self, shared: dict[str, AttackResult]) -> None:
        assert list(shared) == list(GRIDS)
        _, y = data()
        for method, result in shared.items():
            assert np.array_equal(result.member, y)
            assert result.evaluated.sum() == 52
            assert np.array_equal(np.isnan(result.scores), ~result.evaluated)
            assert len(result.cv_results["params"]) == len(result.cv_results["split2_test_score"])
            assert result.provenance["engine"] == ("compiled" if method in ("mlp", "rf") else "scikit-learn")
            assert result.provenance["final_engine"] == ("compiled" if method == "rf" else "scikit-learn")
            json.dumps([result.provenance, result.cv_results, result.best_params], allow_nan=False)
            best = result.cv_results["rank_test_score"].index(1)
            assert json.loads(result.cv_results["params"][best]) == json.loads(json.dumps(result.best_params)), method

    def test_the_final_model_is_stock(self, shared: dict[str, AttackResult]) -> None:
        X, y = data()
        fit, evaluated = split_rows(y.astype(np.int8), 0.2, seed=1)
        for method, result in shared.items():
            stock = METHODS[method].build(result.best_params, seed=1)
            nonconverged = fit_recorded(stock, X[fit], y[fit])
            np.testing.assert_allclose(result.scores[evaluated], stock.predict_proba(X[evaluated])[:, 1], rtol=1e-12)
            assert np.array_equal(result.predicted[evaluated], stock.predict(X[evaluated]))
            assert result.provenance["n_nonconverged"]["final"] == nonconverged

    def test_nonconvergence_is_counted(self, shared: dict[str, AttackResult]) -> None:
        assert shared["mlp"].provenance["n_nonconverged"] == {"search": 6, "final": 1}
        assert shared["mlp"].cv_results["n_nonconverged"] == [3, 3]
        assert shared["rf"].provenance["n_nonconverged"] == {"search": 0, "final": 0}

    def test_the_same_numbers_on_any_number_of_workers_as_they_are_ready(self, shared: dict[str, AttackResult]) -> None:
        seen: list[AttackResult] = []
        again = run_attacks(*data(), settings(), n_jobs=1, on_result=seen.append)
        assert [method for method in GRIDS if not same(shared[method], again[method])] == []
        assert {result.method: result for result in seen} == again
        assert [result.method for result in seen] != list(GRIDS)  # in the order in which they end

    def test_another_seed_is_another_run(self, shared: dict[str, AttackResult]) -> None:
        other = run_attacks(*data(), settings("knn", seed=2), n_jobs=1)
        assert not np.array_equal(other["knn"].evaluated, shared["knn"].evaluated)


class TestOtherSearches:
    def test_exact_agrees_with_shared(self, shared: dict[str, AttackResult]) -> None:
        exact = run_attacks(*data(), settings("lr", "knn", "mlp", search="exact"), n_jobs=2)
        for method in ("knn", "mlp"):
            assert same(exact[method], shared[method])
        difference = np.subtract(exact["lr"].cv_results["mean_test_score"], shared["lr"].cv_results["mean_test_score"])
        assert np.abs(difference).max() < 0.01

    def test_random_tries_n_iter(self) -> None:
        result = run_attacks(*data(), settings("rf", "lr", search="random", n_iter=4), n_jobs=2)
        assert len(result["rf"].cv_results["params"]) == 4
        assert len(result["lr"].cv_results["params"]) == 3

    def test_halving_ends_with_a_candidate_of_its_last_round(self) -> None:
        result = run_attacks(*data(), settings("knn", search="halving"), n_jobs=2)["knn"]
        table = result.cv_results
        last = [i for i, r in enumerate(table["iter"]) if r == max(table["iter"])]
        assert json.loads(json.dumps(result.best_params)) in [json.loads(table["params"][i]) for i in last]
        assert len(set(table["n_resources"])) > 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "line"),
        [
            ({"cv": 120}, "attack.cv: must be at most"),
            ({"eval_fraction": 0.999}, "attack.eval_fraction: must leave members"),
            ({"memory_gib": 0.01}, "attack.memory_gib: must be at least"),
        ],
    )
    def test_before_the_first_fit(self, options: dict[str, Any], line: str) -> None:
        with pytest.raises(InputError, match=line):
            run_attacks(*data(), settings("lr", **options), n_jobs=1)

    def test_the_memory_budget_bounds_the_workers(self, caplog: pytest.LogCaptureFixture) -> None:
        X, y = data()
        rows = Data(X, y.astype(np.int8), X[:5], fold_numbers(y, 3))
        runs = [MethodRun("lr", GRIDS["lr"], rows, settings("lr"))]
        runs[0].open_search()
        assert workers_within(4.0, 2, runs, rows) == 2
        assert caplog.text == ""
        assert 1 <= workers_within(1.0, 64, runs, rows) < 4
        assert "fewer than the 64 cores" in caplog.text


class TestRestart:
    def test_the_journal_saves_the_search(self, shared: dict[str, AttackResult], journal: DictJournal) -> None:
        again = run_attacks(*data(), settings("rf", "mlp"), n_jobs=2, journal=journal)
        for method in ("rf", "mlp"):
            assert searched(again[method]) == []
            assert same(again[method], shared[method])

    def test_a_stopped_search_goes_on(self, shared: dict[str, AttackResult]) -> None:
        journal = DictJournal()
        with pytest.raises(Stopped):
            run_attacks(*data(), settings("rf"), n_jobs=1, journal=journal, stop=lambda: len(journal) >= 3)
        done = len(journal)
        result = run_attacks(*data(), settings("rf"), n_jobs=1, journal=journal)["rf"]
        assert len(searched(result)) == len(journal) - done
        assert same(result, shared["rf"])

    def test_another_grid_takes_nothing_from_the_journal(
        self, shared: dict[str, AttackResult], journal: DictJournal
    ) -> None:
        grid = {"method": "rf", "params": {**GRIDS["rf"], "min_samples_leaf": [2]}}
        other = run_attacks(*data(), settings(methods=(grid,)), n_jobs=1, journal=journal)["rf"]
        assert len(searched(other)) == 6  # two ranges of trees on three folds


def some_rows() -> Data:
    X, y = data()
    return Data(X, y.astype(np.int8), X[:5], fold_numbers(y, 3))


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    pool = LocalPool(some_rows(), 2)
    yield pool
    pool.close()


def run_all(pool: LocalPool, *tasks: Task) -> list[Any]:
    for item in tasks:
        pool.start(item)
    results: list[Any] = []
    while len(results) < len(tasks):
        results += [done.result for done in pool.wait(60)]
    return results


class TestLocalPool:
    def test_features_are_mapped(self, pool: LocalPool) -> None:
        assert run_all(pool, task("sum")) == [(pytest.approx(data()[0].sum()), "memmap")]

    def test_a_lost_worker_costs_its_task_alone(self, pool: LocalPool, tmp_path: Path) -> None:
        assert len(run_all(pool, task("die once", str(tmp_path / "died")), task("sum"))) == 2

    def test_a_task_that_kills_every_worker_is_an_error(self, pool: LocalPool) -> None:
        with pytest.raises(RuntimeError, match="test/die: 3 workers ended at it, the last with code 7"):
            run_all(pool, task("die"))

    def test_an_error_comes_back_with_its_traceback(self, pool: LocalPool) -> None:
        with pytest.raises(KeyError, match="of no use") as error:
            run_all(pool, task("raise"))
        assert "in run" in str(error.value.__cause__)

    def test_workers_leave_the_schedulers_signals_to_the_parent(self, pool: LocalPool) -> None:
        run_all(pool, task("sum"))
        for worker in pool._workers:
            for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                os.kill(worker.server.pid(worker.number), signum)
        time.sleep(0.2)
        assert len(run_all(pool, task("sum"), task("other"))) == 2

    def test_workers_outlive_their_server_and_new_ones_come_from_another(self, pool: LocalPool, tmp_path: Path) -> None:
        run_all(pool, task("sum"))
        (server,) = pool._servers
        server._process.kill()
        assert len(run_all(pool, task("sum"), task("die once", str(tmp_path / "died")))) == 2
        assert [worker.server is server for worker in pool._workers].count(True) == 1

    def test_what_is_given_up_ends_and_its_core_is_free(self, pool: LocalPool) -> None:
        run_all(pool, task("sum"))
        endless = task("sleep")
        pool.start(endless)
        (worker,) = (worker for worker in pool._workers if worker.task is endless)
        process = psutil.Process(worker.server.pid(worker.number))
        pool.give_up(endless)
        assert pool.idle() == 2
        assert len(run_all(pool, task("sum"), task("other"))) == 2
        process.wait(10)

    def test_no_process_is_left(self) -> None:
        pool = LocalPool(some_rows(), 2)
        run_all(pool, task("sum"))
        pids = [pool._servers[0]._process.pid, *(pool._servers[0].pid(number) for number in (0, 1))]
        pool.close()
        assert not [pid for pid in pids if psutil.pid_exists(pid)]

    def test_what_cannot_be_loaded_ends_the_search(self, capfd: pytest.CaptureFixture[str]) -> None:
        pool = LocalPool(some_rows(), 2, preload=[not_to_be_loaded])
        try:
            with pytest.raises(RuntimeError, match="3 processes that workers are forked from have ended"):
                run_all(pool, task("sum"))
        finally:
            pool.close()
        assert "OSError: of no use" in capfd.readouterr().err

    def test_as_many_workers_as_a_large_node_has_cores_begin_while_the_server_loads(self) -> None:
        """Requests that nobody reads yet must not fill the pipe: whoever waits there sees no signal to stop."""
        pool = LocalPool(some_rows(), 300, preload=[loads_forever])
        assert pool.idle() == 300
        pool.close()
        pool.close()

    def test_a_limit_on_processes_is_one_line(self) -> None:
        pool = LocalPool(some_rows(), 2, preload=[allow_no_process])
        try:
            with pytest.raises(InputError, match="system: must allow a process for each core, got: Resource temp"):
                run_all(pool, task("sum"))
        finally:
            pool.close()

    def test_modules_of_the_working_directory_are_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("ctypes", "mia_batch"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')")
        monkeypatch.chdir(tmp_path)
        pool = LocalPool(some_rows(), 1)
        assert len(run_all(pool, task("sum"))) == 1
        pool.close()

    def test_descriptors_are_given_back(self) -> None:
        pool = LocalPool(some_rows(), 2)
        run_all(pool, task("sum"))
        processes = psutil.Process(), psutil.Process(pool._servers[0]._process.pid)
        before = [process.num_fds() for process in processes]
        for _ in range(20):
            endless = task("sleep")
            pool.start(endless)
            pool.give_up(endless)
        run_all(pool, task("sum"), task("other"))
        assert [process.num_fds() for process in processes] == before
        assert len(processes[1].children()) == 2
        pool.close()


def test_a_worker_that_fails_takes_no_other_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer(echo, None, [], keep=())
    first, second = server.fork(2)
    first.send("fail")
    assert server.exit_code(0) == 1
    second.send("still here")
    assert second.recv() == "still here"
    server.close()
    assert "OSError: fail" in capfd.readouterr().err


HERE = os.pathsep.join([str(Path(__file__).parent), str(REPO / "tests" / "helpers")])

LONG = """
import sys
from test_search import data, settings
from mia_batch.search.engine import run_attacks
grid = {"method": "mlp", "params": {"max_iter": [10**7], "n_iter_no_change": [10**7]}}  # one task takes hours
print("started", flush=True)
run_attacks(*data(), settings(methods=(grid,)), n_jobs=2, directory=sys.argv[1])
"""


def busy_children(parent: psutil.Process) -> int:
    """Workers that compute: not the fork server, which only loads."""
    return sum(child.cpu_times().user > 2 for worker in parent.children() for child in worker.children())


@pytest.mark.parametrize("whole_group", [False, True])
def test_kill_leaves_nothing(tmp_path: Path, whole_group: bool) -> None:
    """Neither files in the run directory, /tmp or /dev/shm nor workers outlive kill -9."""
    home, temporary = tmp_path / "run", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    shm = set(os.listdir("/dev/shm"))
    environment = {**os.environ, "PYTHONPATH": HERE, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, str(home)], env=environment, start_new_session=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while busy_children(parent) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    children = parent.children(recursive=True)
    assert len(children) == 3  # the fork server and two workers
    os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(home.iterdir())
    assert not list(temporary.iterdir())
    mine = (str(process.pid), *(str(child.pid) for child in children))
    assert not [name for name in set(os.listdir("/dev/shm")) - shm if any(pid in name for pid in mine)]


LOADING = """
from deeds import loads_forever
from test_search import some_rows
from mia_batch.workers.pool import LocalPool
pool = LocalPool(some_rows(), 2, preload=[loads_forever])
print(pool._servers[0]._process.pid, flush=True)
input()
"""


def test_kill_leaves_no_process_that_still_loads() -> None:
    environment = {**os.environ, "PYTHONPATH": HERE}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LOADING], env=environment, **pipes) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        time.sleep(1)
        process.kill()
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running()


def test_features_that_arrive_at_odd_bytes_are_aligned() -> None:
    """As out of a network message: on such arrays numpy computes other last bits."""
    X, y = data()
    odd = np.frombuffer(b"." + X.tobytes(), dtype=X.dtype, offset=1).reshape(X.shape)
    assert not odd.flags.aligned
    rows = Data(odd, y.astype(np.int8), odd[:5], fold_numbers(y, 3))
    assert rows.X_fit.flags.aligned
    assert rows.X_eval.flags.aligned
    assert np.array_equal(rows.X_fit, X)


class Cluster:
    """`dask scheduler` and `dask worker` processes."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "scheduler.json", folder
        options = ("--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        self._run("scheduler", "--scheduler-file", str(self.file), *options)
        self.workers = [self.add_worker() for _ in range(2)]

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(Path.cwd())])}
        log = open(self.folder / "dask.log", "ab")  # noqa: SIM115
        arguments = [sys.executable, "-m", "dask", *command]
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        self.processes = [*getattr(self, "processes", []), process]
        return process

    def add_worker(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        return self._run("worker", "--scheduler-file", str(self.file), *options)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="extra dask")
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.mark.slow
class TestDask:
    def test_same_results_though_a_worker_is_lost(self, cluster: Cluster, shared: dict[str, AttackResult]) -> None:
        journal = DictJournal()

        def lose_one() -> bool:
            if len(journal) > 2 and cluster.workers[0].poll() is None:
                cluster.workers[0].kill()
                cluster.workers[0].wait()
            return False

        options = {"backend": "dask", "scheduler": str(cluster.file)}
        results = run_attacks(*data(), settings(**options), n_jobs=1, journal=journal, stop=lose_one)
        assert cluster.workers[0].poll() is not None
        assert [method for method in GRIDS if not same(results[method], shared[method])] == []

    def test_all_workers_lost_and_a_new_one(self, cluster: Cluster, shared: dict[str, AttackResult]) -> None:
        """The features go with the workers, and travel again."""
        journal = DictJournal()

        def lose_all() -> bool:
            if len(journal) > 2 and len(cluster.workers) == 2:
                for worker in cluster.workers:
                    worker.kill()
                    worker.wait()
                cluster.workers.append(cluster.add_worker())
            return False

        options = {"backend": "dask", "scheduler": str(cluster.file)}
        results = run_attacks(*data(), settings("rf", **options), n_jobs=1, journal=journal, stop=lose_all)
        assert len(cluster.workers) == 3
        assert same(results["rf"], shared["rf"])

    def test_scikit_learns_searches_by_joblibs_backend(
        self, cluster: Cluster, shared: dict[str, AttackResult]
    ) -> None:
        options = {"backend": "dask", "scheduler": str(cluster.file), "search": "exact"}
        assert same(run_attacks(*data(), settings("knn", **options), n_jobs=1)["knn"], shared["knn"])
