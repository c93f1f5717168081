"""Tasks on a real Dask scheduler, whose workers are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import REPO
from sklearn.datasets import make_classification

from mia_batch.attacks.base import AttackResult
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages import attack as stage
from mia_batch.stages.attack import make_samples

HERE = os.pathsep.join([str(Path(__file__).parent), str(REPO / "tests" / "helpers")])
GRIDS: dict[str, dict[str, Any]] = {
    "lr": {"C": [0.01, 1.0, 100.0]},
    "knn": {"n_neighbors": [1, 5, 9], "weights": ["uniform", "distance"]},
    "mlp": {"hidden_layer_sizes": [[8]], "alpha": [0.001, 0.1], "max_iter": [15]},
    "rf": {"n_estimators": [10, 30], "max_depth": [3, None], "min_samples_leaf": [1, 3]},
}


class DictJournal(dict):  # type: ignore[type-arg]
    def put(self, key: str, value: Any) -> None:
        self[key] = value


def run(*methods: str, options: dict[str, Any], **more: Any) -> dict[str, AttackResult]:
    chosen = tuple({"method": method, "params": GRIDS[method]} for method in methods or GRIDS)
    attack = AttackConfig(**{"methods": chosen, **options})
    X, y = make_classification(260, 6, n_informative=4, n_redundant=0, flip_y=0.3, random_state=0)
    return stage.run_attacks(make_samples(y, attack, features=X), attack, n_jobs=1, **more)


def same(a: AttackResult, b: AttackResult) -> bool:
    return np.array_equal(a.scores, b.scores, equal_nan=True) and a.cv_results == b.cv_results


@pytest.fixture(scope="module")
def shared() -> dict[str, AttackResult]:
    """What one process of this machine finds."""
    return run(options={})


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
        results = run(options=options, journal=journal, stop=lose_one)
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
        results = run("rf", options=options, journal=journal, stop=lose_all)
        assert len(cluster.workers) == 3
        assert same(results["rf"], shared["rf"])

    def test_candidates_one_by_one(self, cluster: Cluster, shared: dict[str, AttackResult]) -> None:
        options = {"backend": "dask", "scheduler": str(cluster.file), "search": "exact"}
        assert same(run("knn", options=options)["knn"], shared["knn"])
