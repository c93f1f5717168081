"""The grid engine: all methods' searches and final fits as one list of tasks over all cores.

A method's grid falls into families whose candidates share work (forest.py, neighbours.py, logistic.py, mlp.py; stock.py
for those that share nothing). A family is cut into tasks by fold; when the last task of a method is done its best
candidate's final fit joins the list, so that no method waits for another and no core for a method.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import joblib
import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray

from mia_batch.attacks.classifiers import candidates
from mia_batch.attacks.final import FinalFit, Scored
from mia_batch.attacks.forest import forest_families, intelex_available
from mia_batch.attacks.logistic import logistic_families
from mia_batch.attacks.mlp import mlp_families
from mia_batch.attacks.neighbours import neighbour_families
from mia_batch.attacks.pool import Data, Done, LocalPool, Pool
from mia_batch.attacks.result import AttackResult
from mia_batch.attacks.split import check_arrays, check_grids, fold_numbers, split_rows
from mia_batch.attacks.stock import stock_search
from mia_batch.attacks.table import best_index, plain_columns, score_table
from mia_batch.attacks.tasks import FINAL, Family, Task
from mia_batch.errors import InputError

if TYPE_CHECKING:
    from mia_batch.config import AttackConfig

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # how soon a request to stop is seen
WORKER_BYTES = 300 << 20  # a process with numpy and scikit-learn in it, before it has any rows


class Journal(Protocol):
    """Remembers finished tasks of a search across restarts."""

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`, or None."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Remember `value`, plain JSON; when it returns a kill cannot lose it."""


class Stopped(Exception):  # noqa: N818  (not an error: the caller asked for it)
    """The search ended early because `stop` became true; what the journal has is kept."""


def run_attacks(
    X: NDArray[np.floating],
    y: NDArray[np.integer],
    attack: AttackConfig,
    *,
    n_jobs: int,
    on_result: Callable[[AttackResult], None] | None = None,
    journal: Journal | None = None,
    stop: Callable[[], bool] = lambda: False,
    directory: str | None = None,
) -> dict[str, AttackResult]:
    """Search every method's grid, fit the best on the fit rows and score the others.

    Args:
        X: feature rows, shape (n_samples, n_features), finite.
        y: membership, shape (n_samples,), 0 or 1.
        attack: what to search and how.
        n_jobs: cores; a Dask scheduler's workers count instead with `backend: dask`.
        on_result: called with each method's result as soon as it is there.
        journal: finished tasks of an earlier run with the same X, y and attack are read from here (`search: shared`).
        stop: asked a few times a second.
        directory: where to keep a copy of X for the workers (a file without name, gone with this process).

    Returns:
        Results by method, in the order of `attack.methods`.

    Raises:
        InputError: the data cannot be searched with these settings; before the first fit.
        Stopped: `stop` became true.
    """
    rows, member = np.asarray(X, dtype=np.float64), np.asarray(y).astype(np.int8)
    check_arrays(rows, member)
    fit, evaluated = split_rows(member, attack.eval_fraction, attack.seed)
    grids = {method.method: dict(method.params) for method in attack.methods}
    check_grids(member[fit], attack.cv, grids)
    data = Data(rows[fit], member[fit], rows[evaluated], fold_numbers(member[fit], attack.cv))
    runs = [MethodRun(method, grid, data, attack) for method, grid in grids.items()]
    results: dict[str, AttackResult] = {}

    def finish(run: MethodRun, scored: Scored, n_workers: int) -> None:
        result = run.result(scored, member, evaluated, n_jobs=n_workers)
        results[run.method] = result
        log.info("%s: best %s, cross-validated accuracy %.4f, %.1f s", run.method, run.best, result.best_score,
                 result.provenance["seconds"])
        if on_result:
            on_result(result)

    search = search_shared if attack.search == "shared" else search_stock
    search(runs, data, attack, n_jobs=n_jobs, finish=finish, journal=journal, stop=stop, directory=directory)
    return {method: results[method] for method in grids}


class MethodRun:
    """One method on its way from families to a final fit."""

    def __init__(self, method: str, grid: Mapping[str, Sequence[Any]], data: Data, attack: AttackConfig) -> None:
        self.method, self.grid, self.attack = method, grid, attack
        self.shape = data.X_fit.shape
        self.candidates = candidates(grid)
        self.folds = [data.y_fit[data.fold_of == number] for number in range(attack.cv)]
        self.families: list[Family] = []
        self.table: dict[str, Any] = {}
        self.final: FinalFit | None = None
        self.started, self.seconds = time.perf_counter(), {"search": [], "final": []}  # type: ignore[var-annotated]
        self._waiting: set[str] = set()
        self._results: dict[str, Any] = {}

    @property
    def best(self) -> dict[str, Any]:
        """Parameters of the best candidate."""
        return dict(self.table["params"][best_index(self.table)])

    def search_tasks(self) -> list[Task]:
        """Every piece of every family on every fold."""
        n_fit = self.shape[0] - max(len(fold) for fold in self.folds)
        self.families = search_families(
            self.method, list(enumerate(self.candidates)), seed=self.attack.seed, n_fit=n_fit,
            n_features=self.shape[1], intelex=uses_intelex(self.attack),
        )
        rows = n_fit, self.shape[1]
        tasks = [
            Task(_key(self.method, family, fold, i), family.cost(piece, *rows), self.method, fold, family, piece)
            for family in self.families for fold in range(len(self.folds)) for i, piece in enumerate(family.pieces())
        ]
        self._waiting = {task.key for task in tasks}
        return tasks

    def final_tasks(self) -> list[Task]:
        """The pieces of the best candidate's fit."""
        final = FinalFit(self.method, self.best, self.attack.seed)
        self.final = final
        tasks = [
            Task(f"{self.method}/final/{i}", final.cost(piece, *self.shape), self.method, FINAL, final, piece)
            for i, piece in enumerate(final.pieces())
        ]
        self._waiting = {task.key for task in tasks}
        return tasks

    def take(self, key: str, result: Any) -> bool:
        """Keep a task's result; returns whether it was the last one waited for."""
        self._results[key] = result
        self._waiting.discard(key)
        return not self._waiting

    def close_search(self) -> None:
        """Make the table, now that all families have their results."""
        scores = np.full((len(self.candidates), len(self.folds)), np.nan)
        n_nonconverged = np.zeros(len(self.candidates), dtype=np.int64)
        for family in self.families:
            for fold, y_val in enumerate(self.folds):
                pieces = [self._results.pop(_key(self.method, family, fold, i)) for i in range(len(family.pieces()))]
                for index, score in zip(family.indices, family.scores(pieces, y_val), strict=True):
                    scores[index, fold] = score.accuracy
                    n_nonconverged[index] += score.nonconverged
        self.table = score_table(self.candidates, scores, n_nonconverged)

    def scored(self) -> Scored:
        """The final model's scores, now that all pieces are there."""
        assert self.final is not None
        keys = [f"{self.method}/final/{i}" for i in range(len(self.final.pieces()))]
        return self.final.combine([self._results.pop(key) for key in keys])

    def result(
        self, scored: Scored, y: NDArray[np.int8], evaluated: NDArray[np.int64], *, n_jobs: int
    ) -> AttackResult:
        """Everything about this method, over all rows."""
        scores, predicted = np.full(len(y), np.nan), np.full(len(y), -1, dtype=np.int8)
        mask = np.zeros(len(y), dtype=bool)
        mask[evaluated] = True
        scores[evaluated], predicted[evaluated] = scored.scores, scored.predicted
        best = best_index(self.table)
        return AttackResult(
            method=self.method, scores=scores, predicted=predicted, evaluated=mask, member=y,
            best_params=self.best, best_score=float(self.table["mean_test_score"][best]),
            cv_results=plain_columns(self.table), provenance=self._provenance(scored, n_jobs),
        )

    def _provenance(self, scored: Scored, n_jobs: int) -> dict[str, Any]:
        attack, engines = self.attack, sorted({family.engine for family in self.families}) or ["scikit-learn"]
        return {
            "search": attack.search, "engine": " and ".join(engines), "final_engine": "scikit-learn",
            "families": [f"{type(family).__name__} of {len(family.indices)}" for family in self.families],
            "seed": attack.seed, "eval_fraction": attack.eval_fraction, "cv": attack.cv, "features": attack.features,
            "backend": attack.backend, "n_jobs": n_jobs, "seconds": time.perf_counter() - self.started,
            "task_seconds": self.seconds,
            "n_nonconverged": {
                "search": int(np.sum(self.table["n_nonconverged"])), "final": int(scored.nonconverged),
            },
            "versions": {
                "scikit-learn": sklearn.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
                "joblib": joblib.__version__,
            },
        }


def search_families(
    method: str, grid: Sequence[tuple[int, Mapping[str, Any]]], *, seed: int, n_fit: int, n_features: int, intelex: bool
) -> list[Family]:
    """The families of a grid of numbered candidates: each is in exactly one.

    Args:
        n_fit: rows that fit in the smallest fold.
        n_features: columns of X.
        intelex: whether scikit-learn-intelex may grow forests.
    """
    if method == "rf":
        return forest_families(grid, seed, intelex=intelex)
    if method == "knn":
        return neighbour_families(grid, seed, n_fit)
    if method == "lr":
        return logistic_families(grid, seed, n_features)
    return mlp_families(grid, seed)


def uses_intelex(attack: AttackConfig) -> bool:
    """Whether scikit-learn-intelex grows the search's forests.

    Raises:
        InputError: it must, and is not installed.
    """
    if attack.engine == "intelex" and not intelex_available():
        raise InputError("attack.engine: intelex needs scikit-learn-intelex (extra `fast`), which is not installed")
    return attack.engine != "sklearn" and intelex_available()


def _key(method: str, family: Family, fold: int, piece: int) -> str:
    return f"{method}/{family.digest()}/{fold}/{piece}"


def search_shared(
    runs: Sequence[MethodRun], data: Data, attack: AttackConfig, *, n_jobs: int,
    finish: Callable[[MethodRun, Scored, int], None], journal: Journal | None, stop: Callable[[], bool],
    directory: str | None,
) -> None:
    """The engine: one list of tasks, longest first."""
    ready: list[Task] = []
    by_method = {run.method: run for run in runs}
    for run in runs:
        for task in run.search_tasks():
            found = journal.get(task.key) if journal is not None else None
            if found is None:
                ready.append(task)
            elif run.take(task.key, found):
                run.close_search()
                ready += run.final_tasks()
    heapq.heapify(ready)
    pool = open_pool(runs, data, attack, n_jobs, directory)
    try:
        while by_method:
            while ready and pool.idle() > 0:
                pool.start(heapq.heappop(ready))
            for done in pool.wait(POLL_SECONDS):
                run = by_method[done.task.method]
                if _take(run, done, journal):
                    if run.final is None:
                        run.close_search()
                        for task in run.final_tasks():
                            heapq.heappush(ready, task)
                    else:
                        finish(run, run.scored(), pool.n_workers)
                        del by_method[run.method]
            if stop():
                raise Stopped
    finally:
        pool.close()


def _take(run: MethodRun, done: Done, journal: Journal | None) -> bool:
    final = done.task.fold == FINAL
    run.seconds["final" if final else "search"].append(done.seconds)
    if journal is not None and not final:
        journal.put(done.task.key, done.result)
    return run.take(done.task.key, done.result)


def open_pool(
    runs: Sequence[MethodRun], data: Data, attack: AttackConfig, n_jobs: int, directory: str | None
) -> Pool:
    """Workers as the config says: on this machine within the memory budget, or a Dask scheduler's."""
    if attack.backend == "dask":
        from mia_batch.attacks.dask_pool import DaskPool

        return DaskPool(data, str(attack.scheduler))
    n_workers = workers_within(attack.memory_gib, n_jobs, runs, data)
    return LocalPool(data, n_workers, directory)


def workers_within(memory_gib: float, n_jobs: int, runs: Sequence[MethodRun], data: Data) -> int:
    """As many workers as cores and memory allow.

    Raises:
        InputError: the budget does not hold one.
    """
    fold = data.X_fit.nbytes
    largest = max(family.memory(*data.X_fit.shape) for run in runs for family in run.families)
    each, shared = WORKER_BYTES + fold + largest, WORKER_BYTES + 2 * data.X_fit.nbytes
    fitting = int((memory_gib * 2**30 - shared) // each)
    if fitting < 1:
        raise InputError(
            f"attack.memory_gib: must be at least {(shared + each) / 2**30:.2f} for these features and grids, "
            f"got {memory_gib}"
        )
    if fitting < n_jobs:
        log.warning("memory_gib %.2f holds %d workers, fewer than the %d cores", memory_gib, fitting, n_jobs)
    return min(n_jobs, fitting)


def search_stock(
    runs: Sequence[MethodRun], data: Data, attack: AttackConfig, *, n_jobs: int,
    finish: Callable[[MethodRun, Scored, int], None], stop: Callable[[], bool], **_: Any,
) -> None:
    """scikit-learn's own searches, method after method, for reference."""
    if attack.engine == "intelex":
        raise InputError(f"attack.engine: intelex goes with search: shared, got search: {attack.search}")
    for run in runs:
        with _joblib_backend(attack):
            run.table = stock_search(
                attack.search, run.method, run.grid, data.X_fit, data.y_fit,
                cv=attack.cv, seed=attack.seed, n_iter=attack.n_iter, n_jobs=-1 if attack.backend == "dask" else n_jobs,
            )
        if stop():
            raise Stopped
        final = FinalFit(run.method, run.best, attack.seed)
        finish(run, final.combine([final.run(data, piece) for piece in final.pieces()]), n_jobs)
        if stop():
            raise Stopped


def _joblib_backend(attack: AttackConfig) -> Any:
    """joblib's own Dask backend for a scheduler, else its processes with one thread each."""
    if attack.backend == "dask":
        from mia_batch.attacks.dask_pool import dask_backend

        return dask_backend(str(attack.scheduler))
    return joblib.parallel_config(backend="loky", inner_max_num_threads=1)
