"""The grid engine: all methods' searches and final fits as one list of tasks over all cores.

A method's grid falls into families whose candidates share work (forest.py, neighbours.py, logistic.py, mlp.py; stock.py
for those that share nothing). A family is cut into tasks by fold; when the last task of a method is done its best
candidate's final fit joins the list (schedule.py), so that no method waits for another and no core for a method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.split import check_arrays, split_rows
from mia_batch.errors import InputError
from mia_batch.search.families.stock import stock_search
from mia_batch.search.folds import check_grids, fold_numbers
from mia_batch.search.method_run import MethodRun
from mia_batch.search.refit import FinalFit, Scored
from mia_batch.search.schedule import Journal, Schedule
from mia_batch.workers.pool import Data, LocalPool, Pool

if TYPE_CHECKING:
    from mia_batch.settings.schema import AttackConfig

log = logging.getLogger(__name__)
WORKER_BYTES = 300 << 20  # a process that has loaded everything, or compiles it, before it has any rows


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


def search_shared(
    runs: Sequence[MethodRun], data: Data, attack: AttackConfig, *, n_jobs: int,
    finish: Callable[[MethodRun, Scored, int], None], journal: Journal | None, stop: Callable[[], bool],
    directory: str | None,
) -> None:
    """The engine: one list of tasks over all cores."""
    for run in runs:
        run.open_search()
    pool = open_pool(runs, data, attack, n_jobs, directory)
    try:
        schedule = Schedule(runs, pool, finish=lambda run: finish(run, run.scored(), pool.n_workers), journal=journal)
        while not schedule.step():
            if stop():
                raise Stopped
    finally:
        pool.close()


def open_pool(
    runs: Sequence[MethodRun], data: Data, attack: AttackConfig, n_jobs: int, directory: str | None
) -> Pool:
    """Workers as the config says: on this machine within the memory budget, or a Dask scheduler's."""
    if attack.backend == "dask":
        from mia_batch.workers.dask_pool import DaskPool

        return DaskPool(data, str(attack.scheduler))
    n_workers = workers_within(attack.memory_gib, n_jobs, runs, data)
    kinds = dict.fromkeys(type(family) for run in runs for family in run.families)
    return LocalPool(data, n_workers, directory, [kind.preload for kind in kinds])


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
        from mia_batch.workers.dask_pool import dask_backend

        return dask_backend(str(attack.scheduler))
    return joblib.parallel_config(backend="loky", inner_max_num_threads=1)
