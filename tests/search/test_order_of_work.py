"""The order of work, on simulated cores: the tasks and results are real, the clock is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from samples import fitting
from simulated_executor import SimulatedExecutor
from sklearn.datasets import make_classification

from mia_batch.samples import Samples
from mia_batch.search.grid_search import GridSearch
from mia_batch.search.order_of_work import OrderOfWork, Stopped, do_all
from mia_batch.search.tasks import CannotEvaluate, Done, Failed, Lost, Task, Work, execute

GRIDS: dict[str, dict[str, Any]] = {
    "lr": {"C": (0.01, 1.0)},
    "knn": {"n_neighbors": (1, 5, 9)},
    "mlp": {"hidden_layer_sizes": ((4,), (3, 3)), "alpha": (0.001, 0.1), "max_iter": (4,)},
    "rf": {"n_estimators": (50, 150), "max_depth": (2, None), "min_samples_leaf": (1, 3)},
}


@pytest.fixture(scope="module")
def samples() -> Samples:
    X, y = make_classification(200, 5, flip_y=0.3, random_state=0)
    return fitting(X, y, n_eval=50)


@pytest.fixture(scope="module")
def run_task(samples: Samples) -> Callable[[str, Work], Any]:
    """Does each task once."""
    results: dict[str, Any] = {}

    def run(key: str, work: Work) -> Any:
        if key not in results:
            results[key] = execute(samples, key, work).result
        return results[key]

    return run


class Run:
    """All four methods on `n_workers` simulated cores whose tasks take `seconds`, or as long as estimated."""

    def __init__(
        self, samples: Samples, run: Callable[[str, Work], Any], n_workers: int,
        seconds: Callable[[str], float] | None = None,
    ) -> None:
        self.searches = {method: GridSearch(method, grid, samples, seed=1) for method, grid in GRIDS.items()}
        tasks = {method: search.tasks() for method, search in self.searches.items()}
        self.cost = {task.key: task.cost for its in tasks.values() for task in its}
        self.executor = SimulatedExecutor(n_workers, run, seconds or self.cost.__getitem__)
        self.scores: dict[str, np.ndarray] = {}
        do_all(OrderOfWork(tasks, self.executor, finish=self._finish), stop=lambda: False)

    def _finish(self, method: str, results: Mapping[str, Any], trace: Sequence[Done], failure: str) -> None:
        search = self.searches[method]
        assert failure == ""
        self.scores[method] = search.scored(search.choice(results), results).scores

    def bound(self) -> float:
        """No order is faster: a search and the refit after it, or everything spread evenly."""
        done, n_workers = [key for _, key in self.executor.started], self.executor.n_workers
        chains = []
        for method in GRIDS:
            costs = [self.cost[key] for key in done if key.startswith(f"{method}/") and "/refit/" not in key]
            refit = max(self.cost[key] for key in done if key.startswith(f"{method}/refit/"))
            chains.append(max(*costs, sum(costs) / n_workers) + refit)
        return max(*chains, sum(self.cost[key] for key in done) / n_workers)


@pytest.fixture(scope="module")
def one_core(samples: Samples, run_task: Callable[[str, Work], Any]) -> Run:
    return Run(samples, run_task, 1)


def test_one_core_does_each_task_once(one_core: Run) -> None:
    done = [key for _, key in one_core.executor.started]
    assert len(set(done)) == len(done)
    assert one_core.executor.now == pytest.approx(sum(one_core.cost[key] for key in done))
    # Of the forest's refit only as many ranges of trees as the chosen candidate has.
    assert len([key for key in one_core.cost if key.startswith("rf/refit/")]) == 3
    assert len([key for key in done if key.startswith("rf/refit/")]) in (1, 3)


@pytest.mark.parametrize("n_workers", [2, 3, 8, 64])
@pytest.mark.parametrize("law", ["as estimated", "at random"])
def test_the_same_answers_in_any_order(
    one_core: Run, samples: Samples, run_task: Callable[[str, Work], Any], n_workers: int, law: str
) -> None:
    rng = np.random.default_rng(n_workers)
    lengths: dict[str, float] = {}
    seconds = None if law == "as estimated" else lambda key: lengths.setdefault(key, rng.exponential())
    run = Run(samples, run_task, n_workers, seconds)
    for method, scores in one_core.scores.items():
        assert np.array_equal(run.scores[method], scores)
    assert sorted(key for _, key in run.executor.started) == sorted(key for _, key in one_core.executor.started)


@pytest.mark.parametrize("n_workers", [1, 2, 3, 4, 6, 8, 12, 16, 128])
def test_the_end_is_near_the_bound(
    samples: Samples, run_task: Callable[[str, Work], Any], n_workers: int
) -> None:
    run = Run(samples, run_task, n_workers)
    assert run.bound() * 0.999 <= run.executor.now <= 1.2 * run.bound()


def test_the_longest_chain_goes_first(one_core: Run) -> None:
    """A search whose refit is long precedes longer tasks that nothing waits for."""
    assert one_core.executor.started[0][1].startswith("mlp/")
    work = Sum()
    tasks = [Task("m/a", 3.0, work), Task("m/b", 1.0, work, then=5.0)]
    assert [task.key for task in sorted(tasks)] == ["m/b", "m/a"]
    assert [task.key for task in sorted([Task("m/b", 1.0, work), Task("m/a", 1.0, work)])] == ["m/a", "m/b"]


# --- attacks of tests ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """Adds up what it was given."""

    total: float = 0.0

    def run(self, samples: Samples) -> float:
        return self.total

    def given(self, results: Mapping[str, Any]) -> Work | None:
        if sum(results.values()) < 0:
            raise CannotEvaluate("less than nothing")
        return Sum(sum(results.values())) if sum(results.values()) else None


@dataclass
class Scripted:
    """Two workers that end what the script says of a task each time it is done: a result, Lost or Failed."""

    script: Mapping[str, list[Any]]
    n_workers: int = 2
    running: list[str] = field(default_factory=list)
    works: dict[str, Work] = field(default_factory=dict)
    together: list[set[str]] = field(default_factory=list)

    def n_free(self) -> int:
        return self.n_workers - len(self.running)

    def submit(self, key: str, work: Work) -> None:
        self.running.append(key)
        self.works[key] = work

    def wait(self, timeout: float) -> list[Done | Lost]:
        keys, self.running = self.running, []
        self.together.append(set(keys))
        outcomes = {key: self.script.get(key, ["run"]) for key in keys}
        if any(outcome and outcome[0] == "die" for outcome in outcomes.values()):
            for outcome in outcomes.values():
                if outcome[0] == "die":
                    outcome.pop(0)
            return [Lost(key, "killed") for key in keys]
        return [Done(key, self._result(key, outcomes[key]), 0.0, 1.0, 1.0) for key in keys]

    def _result(self, key: str, outcome: list[Any]) -> Any:
        first = outcome[0] if outcome else "run"
        return self.works[key].run(None) if first == "run" else first  # type: ignore[arg-type]

    def close(self) -> None:
        return None


class Ended(dict):  # type: ignore[type-arg]
    """What has been finished."""

    def __call__(self, attack: str, results: Mapping[str, Any], trace: Sequence[Done], failure: str) -> None:
        assert attack not in self
        self[attack] = failure or dict(results)


class DictJournal(dict):  # type: ignore[type-arg]
    def put(self, key: str, value: Any) -> None:
        assert key not in self, "a finished task was done again"
        self[key] = value


def work_through(tasks: dict[str, list[Task]], executor: Scripted, **options: Any) -> Ended:
    ended = Ended()
    do_all(OrderOfWork(tasks, executor, finish=ended, **options), stop=lambda: False)
    return ended


def chain(name: str, *values: float) -> list[Task]:
    """Tasks with these results, and one that adds them up."""
    first = [Task(f"{name}/{i}", 1.0, Sum(value)) for i, value in enumerate(values)]
    return [*first, Task(f"{name}/sum", 1.0, Sum(), after=tuple(task.key for task in first), kept=False)]


class TestTasksThatWait:
    def test_are_given_results(self) -> None:
        assert work_through({"a": chain("a", 1.0, 2.0)}, Scripted({})) == {"a": {"a/0": 1.0, "a/1": 2.0, "a/sum": 3.0}}

    def test_may_come_to_nothing(self) -> None:
        assert work_through({"a": chain("a", 1.0, -1.0)}, Scripted({}))["a"]["a/sum"] is None

    def test_may_find_that_the_attack_cannot_be_evaluated(self) -> None:
        ended = work_through({"a": chain("a", -1.0), "b": chain("b", 1.0)}, Scripted({}))
        assert ended == {"a": "less than nothing", "b": {"b/0": 1.0, "b/sum": 1.0}}


class TestWorkersThatDie:
    def test_cost_the_tasks_in_flight_which_are_done_again_one_at_a_time(self) -> None:
        executor, journal = Scripted({"a/1": ["die", "run"]}), DictJournal()
        ended = work_through({"a": chain("a", 1.0, 2.0, 4.0)}, executor, journal=journal)
        assert ended["a"]["a/sum"] == 7.0
        assert executor.together[:3] == [{"a/0", "a/1"}, {"a/0"}, {"a/1"}]
        assert journal == {"a/0": 1.0, "a/1": 2.0, "a/2": 4.0}

    def test_the_guilty_task_is_named_after_three_deaths_and_the_others_go_on(self) -> None:
        executor = Scripted({"a/0": ["die"] * 9})
        ended = work_through({"a": chain("a", 1.0), "b": chain("b", 1.0)}, executor)
        assert ended["a"] == "a/0: 3 workers ended at it (killed)"
        assert ended["b"]["b/sum"] == 1.0
        assert [tasks for tasks in executor.together if "a/0" in tasks] == [{"a/0", "b/0"}, {"a/0"}, {"a/0"}]

    def test_a_task_that_fails_ends_its_attack_alone(self) -> None:
        executor = Scripted({"a/1": [Failed("no memory")]})
        ended = work_through({"a": chain("a", 1.0, 1.0), "b": chain("b", 1.0)}, executor)
        assert ended == {"a": "a/1: no memory", "b": {"b/0": 1.0, "b/sum": 1.0}}


class TestCounts:
    def test_who_watches_is_told_of_every_step_and_of_the_end(self) -> None:
        told: list[dict[str, tuple[int, int]]] = []
        tasks = {"a": chain("a", 1.0, 2.0), "b": chain("b", 3.0)}
        work = OrderOfWork(tasks, Scripted({}), finish=Ended(), journal=DictJournal({"a/0": 5.0}))
        assert work.counts() == {"a": (1, 3), "b": (0, 2)}
        do_all(work, lambda: False, lambda counts: told.append(dict(counts)))
        assert [sum(done for done, _ in counts.values()) for counts in told] == [3, 5]
        assert told[-1] == {"a": (3, 3), "b": (2, 2)}

    def test_an_attack_that_cannot_be_evaluated_counts_as_ended(self) -> None:
        executor = Scripted({"a/0": [Failed("no numbers")]})
        work = OrderOfWork({"a": chain("a", 1.0, 2.0)}, executor, finish=Ended())
        do_all(work, lambda: False)
        assert work.counts() == {"a": (3, 3)}


class TestJournal:
    def test_what_it_has_is_not_done_again(self) -> None:
        executor = Scripted({})
        ended = work_through({"a": chain("a", 1.0, 2.0)}, executor, journal=DictJournal({"a/0": 5.0, "a/1": 2.0}))
        assert ended["a"]["a/sum"] == 7.0
        assert executor.together == [{"a/sum"}]

    def test_a_stop_keeps_what_is_done(self) -> None:
        journal = DictJournal()
        work = OrderOfWork({"a": chain("a", 1.0, 2.0, 3.0)}, Scripted({}), finish=Ended(), journal=journal)
        with pytest.raises(Stopped):
            do_all(work, stop=lambda: bool(journal))
        assert journal == {"a/0": 1.0, "a/1": 2.0}


class TestGridSearch:
    def test_candidates_that_fail_score_nan_are_named_and_never_chosen(self, samples: Samples) -> None:
        search = GridSearch("knn", {"n_neighbors": (3, 5), "weights": ("uniform", "nonsense")}, samples, seed=1)
        results = {task.key: task.work.run(samples) for task in search.tasks() if not task.after}
        choice = search.choice(results)
        assert choice.params["weights"] == "uniform"
        assert np.isnan(choice.table["mean_test_score"]).sum() == 2
        assert sorted(choice.table["rank_test_score"])[2:] == [3, 3]
        assert len(choice.failures) == 6
        assert choice.failures[0].startswith("{'n_neighbors': 3, 'weights': 'nonsense'} on fold 0: ")

    def test_none_that_can_be_fitted_is_not_evaluable(self, samples: Samples) -> None:
        search = GridSearch("knn", {"weights": ("nonsense",)}, samples, seed=1)
        results = {task.key: task.work.run(samples) for task in search.tasks() if not task.after}
        with pytest.raises(CannotEvaluate, match=r"knn: no candidate could be fitted: .* on fold 0"):
            search.choice(results)

    def test_halving_names_what_failed(self, samples: Samples) -> None:
        grid = {"n_neighbors": (3, 5), "weights": ("uniform", "nonsense")}
        search = GridSearch("knn", grid, samples, seed=1, search="halving")
        results = {task.key: task.work.run(samples) for task in search.tasks() if not task.after}
        choice = search.choice(results)
        assert choice.params["weights"] == "uniform"
        assert len(choice.failures) >= 2
        assert all("'weights': 'nonsense'} in round " in failure for failure in choice.failures)

    def test_estimates_are_finite(self, samples: Samples) -> None:
        for method, grid in GRIDS.items():
            tasks = GridSearch(method, grid, samples, seed=1).tasks()
            assert all(0 < task.cost < math.inf and task.memory >= 0 for task in tasks)
            assert all(task.attack == method for task in tasks)
