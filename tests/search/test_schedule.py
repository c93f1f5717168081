"""The order of work, on simulated cores: the tasks and results are real, the clock is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulated import SimulatedPool
from sklearn.datasets import make_classification

from mia_batch.search.folds import fold_numbers
from mia_batch.search.method_run import MethodRun
from mia_batch.search.refit import Scored
from mia_batch.search.schedule import Schedule
from mia_batch.search.tasks import FINAL, Task
from mia_batch.settings.schema import AttackConfig
from mia_batch.workers.pool import Data, execute

GRIDS: dict[str, dict[str, Any]] = {
    "lr": {"C": [0.01, 1.0]},
    "knn": {"n_neighbors": [1, 5, 9]},
    "mlp": {"hidden_layer_sizes": [[4], [3, 3]], "alpha": [0.001, 0.1], "max_iter": [4]},
    "rf": {"n_estimators": [50, 150], "max_depth": [2, None], "min_samples_leaf": [1, 3]},
}


@pytest.fixture(scope="module")
def rows() -> Data:
    X, y = make_classification(200, 5, flip_y=0.3, random_state=0)
    y = y.astype(np.int8)
    return Data(X[:150], y[:150], X[150:], fold_numbers(y[:150], 3))


@pytest.fixture(scope="module")
def run_task(rows: Data) -> Callable[[Task], Any]:
    """Does each task once."""
    results: dict[str, Any] = {}

    def run(task: Task) -> Any:
        if task.key not in results:
            results[task.key] = execute(rows, task).result
        return results[task.key]

    return run


def cost(task: Task) -> float:
    return task.cost


class Run:
    """All four methods on `n_workers` simulated cores whose tasks take `seconds`."""

    def __init__(
        self, rows: Data, run: Callable[[Task], Any], n_workers: int, seconds: Callable[[Task], float] = cost
    ) -> None:
        methods = tuple({"method": method, "params": grid} for method, grid in GRIDS.items())
        attack = AttackConfig(methods=methods)
        runs = [MethodRun(method.method, dict(method.params), rows, attack) for method in attack.methods]
        for method in runs:
            method.open_search()
        self.pool = SimulatedPool(n_workers, run, seconds)
        self.scored: dict[str, Scored] = {}
        self.best: dict[str, int | None] = {}
        self.searched = [task for method in runs for task in method.search_tasks]
        schedule = Schedule(runs, self.pool, finish=self._finish, journal=None)
        while not schedule.step():
            pass

    def _finish(self, run: MethodRun) -> None:
        self.best[run.method], self.scored[run.method] = run.chosen, run.scored()

    def finals(self, method: str) -> list[tuple[float, Task]]:
        """Starts of the tasks of a method's final fits."""
        return [(start, task) for start, task in self.pool.started if task.fold == FINAL and task.method == method]

    def wanted(self) -> list[Task]:
        """The tasks whose results are used."""
        keys = {f"{method}/final/{index}/" for method, index in self.best.items()}
        finals = [task for _, task in self.pool.started if any(task.key.startswith(key) for key in keys)]
        return self.searched + finals


@pytest.fixture(scope="module")
def one_core(rows: Data, run_task: Callable[[Task], Any]) -> Run:
    return Run(rows, run_task, 1)


def test_one_core_does_what_is_needed_and_nothing_else(one_core: Run) -> None:
    assert sorted(task.key for _, task in one_core.pool.started) == sorted(task.key for task in one_core.wanted())
    assert one_core.pool.now == pytest.approx(sum(task.cost for task in one_core.wanted()))


@pytest.mark.parametrize("n_workers", [2, 3, 8, 64, 500])
@pytest.mark.parametrize("law", ["as estimated", "at random"])
def test_the_same_answers_whatever_is_guessed(
    one_core: Run, rows: Data, run_task: Callable[[Task], Any], n_workers: int, law: str
) -> None:
    rng = np.random.default_rng(n_workers)
    lengths: dict[str, float] = {}
    seconds = cost if law == "as estimated" else lambda task: lengths.setdefault(task.key, rng.exponential())
    run = Run(rows, run_task, n_workers, seconds)
    assert run.best == one_core.best
    for method, scored in one_core.scored.items():
        assert np.array_equal(run.scored[method].scores, scored.scores)
        assert np.array_equal(run.scored[method].predicted, scored.predicted)
    assert len({task.key for _, task in run.pool.started}) == len(run.pool.started)


@pytest.mark.parametrize("n_workers", [1, 2, 12, 16, 128])
def test_the_end_is_near_the_bound(rows: Data, run_task: Callable[[Task], Any], n_workers: int) -> None:
    """1.2 times max(longest task, total / cores): few cores are all busy, on many all fits begin at once."""
    run = Run(rows, run_task, n_workers)
    lengths = [task.cost for task in run.wanted()]
    assert run.pool.now <= 1.2 * max(*lengths, sum(lengths) / n_workers)


@pytest.mark.parametrize("n_workers", [3, 4, 6, 8])
def test_between_few_and_many_a_final_fit_waits_for_its_search_at_most(
    rows: Data, run_task: Callable[[Task], Any], n_workers: int
) -> None:
    """There the longest final fit takes about as long as all work spread evenly: only a good guess is in time."""
    run = Run(rows, run_task, n_workers)
    search = sum(task.cost for task in run.searched if task.method == "mlp")
    final = max(task.cost for _, task in run.finals("mlp"))
    assert run.pool.now <= 1.2 * max(search / n_workers + final, sum(task.cost for task in run.wanted()) / n_workers)


def test_wrong_guesses_are_given_up(rows: Data, run_task: Callable[[Task], Any]) -> None:
    """All candidates' final fits begin at once and take long: when the search has chosen, only one goes on."""
    run = Run(rows, run_task, 16, lambda task: 100.0 if task.fold == FINAL and task.method == "mlp" else task.cost)
    begun = {task.key for _, task in run.finals("mlp")}
    assert len(begun) == 4
    given_up = {task.key for task in run.pool.given_up if task.method == "mlp"}
    assert given_up == begun - {f"mlp/final/{run.best['mlp']}/0"}


@pytest.mark.parametrize("n_workers", [16, 128])  # fewer cores than search tasks, and more
def test_many_cores_fit_all_candidates_of_the_longest_method_from_the_start(
    rows: Data, run_task: Callable[[Task], Any], n_workers: int
) -> None:
    run = Run(rows, run_task, n_workers)
    assert len(run.searched) == 36
    assert [start for start, _ in run.finals("mlp")] == [0.0] * 4


def test_who_is_ahead_for_certain(rows: Data) -> None:
    """Of four candidates, as their first folds come in."""
    run = MethodRun("mlp", GRIDS["mlp"], rows, AttackConfig(methods=({"method": "mlp", "params": GRIDS["mlp"]},)))
    run.open_search()
    first = {task.work.indices[0]: task.key for task in run.search_tasks if task.fold == 0}

    def found(candidate: int, accuracy: float) -> None:
        run.take(first[candidate], {"accuracy": [accuracy], "nonconverged": [False]})

    assert max(run.tasks_of_final(0)) < min(run.search_tasks)  # one that begins early waits for no search task
    assert [run.promising(at_once=n) for n in (0, 3, 4)] == [None, None, 0]  # nothing is known: all or none
    found(1, 0.6)
    found(2, 0.7)
    assert [run.promising(at_once=n) for n in (2, 3)] == [None, 2]  # two others may come out ahead of it
    run.begin_final(2)
    assert [run.promising(at_once=n) for n in (2, 3)] == [None, 1]
    found(0, 0.5)
    found(3, 0.65)
    assert [run.promising(at_once=n) for n in (0, 1)] == [None, 3]
    for candidate in (3, 1, 0):
        run.begin_final(candidate)
    assert [run.promising(at_once=9), run.promising()] == [None, None]


def test_idle_cores_guess_who_is_ahead(rows: Data, run_task: Callable[[Task], Any]) -> None:
    """Two cores, the last fold of one network very long: meanwhile the other core fits the candidate that leads."""
    lengths: dict[str, float] = {}

    def seconds(task: Task) -> float:
        is_long = task.method == "mlp" and task.fold == 2 and task.work.indices == (3,)
        return lengths.setdefault(task.key, 100.0 if is_long else task.cost)

    run = Run(rows, run_task, 2, seconds)
    assert min(start for start, _ in run.finals("mlp")) < 100.0
    assert run.pool.now < 110.0


def test_the_longest_chain_goes_first(one_core: Run) -> None:
    """A search whose final fit is long precedes longer tasks that nothing waits for."""
    order = [task.method for _, task in one_core.pool.started]
    assert order[0] == "mlp"
    tasks = [Task("a", 3.0, "m", 0, None, None), Task("b", 1.0, "m", 0, None, None, then=5.0)]
    assert [task.key for task in sorted(tasks)] == ["b", "a"]
    equal = [Task("a", 1.0, "m", 1, None, None), Task("b", 1.0, "m", 0, None, None)]
    assert [task.key for task in sorted(equal)] == ["b", "a"]  # each candidate's first fold, then the second ones
