"""How long a measured run would take on more cores: the engine's own order of work on simulated cores."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from simulated_executor import SimulatedExecutor

from mia_batch.attacks.base import AttackSettings
from mia_batch.attacks.registry import ATTACKS
from mia_batch.search.order_of_work import OrderOfWork, do_all
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Scaling:
    """Seconds on `n_cores`."""

    n_cores: int
    bound: float  # no order is faster: a method's longest search task and its refit, or all tasks spread evenly
    engine: float
    stock: float


def simulate(
    X: np.ndarray, y: np.ndarray, attack: AttackConfig, engine: Outcome, stock: Outcome, n_cores: int
) -> Scaling:
    """From what two contestants of contestants.py have measured."""
    seconds = {task["task"]: task["seconds"] for found in engine["methods"].values() for task in found["tasks"]}
    chains = [_chain(found["tasks"]) for found in engine["methods"].values()]
    executor = SimulatedExecutor(n_cores, lambda key, work: engine["journal"].get(key), seconds.__getitem__)
    do_in_order(X, y, attack, executor)
    bound = max(*chains, sum(seconds.values()) / n_cores)
    return Scaling(n_cores, bound, executor.now, stock_makespan(stock, n_cores))


def do_in_order(X: np.ndarray, y: np.ndarray, attack: AttackConfig, executor: SimulatedExecutor) -> None:
    """The engine's order of work, by an executor that knows all results."""
    samples = make_samples(y, attack, features=X)
    tasks = {
        method.method: ATTACKS[method.method].tasks(
            samples, AttackSettings(method.params, attack.seed, attack.search, attack.n_iter)
        )
        for method in attack.methods
    }
    do_all(OrderOfWork(tasks, executor, finish=lambda *_: None), stop=lambda: False)


def stock_makespan(stock: Outcome, n_cores: int) -> float:
    """Method after method: candidates and folds in the grid's order over all cores, then the refit on one."""
    return sum(
        list_makespan(found["task_seconds"], n_cores) + found["refit_seconds"] for found in stock["methods"].values()
    )


def list_makespan(seconds: Sequence[float], n_cores: int) -> float:
    """When the last task ends if each core takes the next of the list as soon as it is free."""
    free = [0.0] * n_cores
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def core_use(tasks: Sequence[Mapping[str, Any]], n_cores: int) -> float:
    """Share of the cores' time that tasks computed, from the start of the first to the end of the last but one."""
    ends = sorted(task["started"] + task["seconds"] for task in tasks)
    begin, end = min(task["started"] for task in tasks), ends[-2]
    inside = sum(task["cpu_seconds"] * _share_before(end, task) for task in tasks)
    return inside / (n_cores * (end - begin))


def _share_before(end: float, task: Mapping[str, Any]) -> float:
    return min(1.0, max(0.0, end - task["started"]) / task["seconds"])


def _chain(tasks: Sequence[Mapping[str, Any]]) -> float:
    """The longest task of a search and the longest of the refit, one after the other."""
    refit = [task["seconds"] for task in tasks if "/refit/" in task["task"]]
    return max(task["seconds"] for task in tasks if "/refit/" not in task["task"]) + max(refit)


def all_tasks(engine: Outcome) -> list[Mapping[str, Any]]:
    """Of all methods."""
    return [task for found in engine["methods"].values() for task in found["tasks"]]


