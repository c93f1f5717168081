"""How long a measured run would take on more cores: the engine's own order of work on simulated cores."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mia_batch.attacks.split import split_rows
from mia_batch.search.folds import fold_numbers
from mia_batch.search.method_run import MethodRun
from mia_batch.search.schedule import Schedule
from mia_batch.settings.schema import AttackConfig
from mia_batch.workers.pool import Data

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated import SimulatedPool

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Scaling:
    """Seconds on `n_cores`."""

    n_cores: int
    bound: float  # no order of work is faster: the longest task, or all tasks spread evenly
    chain: float  # the longest search task and its method's final fit, one after the other
    engine: float
    stock: float


def simulate(
    X: np.ndarray, y: np.ndarray, attack: AttackConfig, engine: Outcome, stock: Outcome, n_cores: int
) -> Scaling:
    """From what two contestants of contestants.py have measured."""
    seconds = {task["task"]: task["seconds"] for found in engine["methods"].values() for task in found["tasks"]}
    finals = {name: _final_seconds(found["tasks"]) for name, found in engine["methods"].items()}
    chains = [_chain(found["tasks"], finals[name]) for name, found in engine["methods"].items()]
    pool = SimulatedPool(
        n_cores, lambda task: engine["journal"].get(task.key),
        # A final fit that the run has not done takes as long as the one that it has.
        lambda task: seconds.get(task.key, finals[task.method]),
    )
    run_schedule(X, y, attack, pool)
    bound = max(*seconds.values(), sum(seconds.values()) / n_cores)
    return Scaling(n_cores, bound, max(chains), pool.now, stock_makespan(stock, n_cores))


def run_schedule(X: np.ndarray, y: np.ndarray, attack: AttackConfig, pool: SimulatedPool) -> None:
    """The engine's order of work, on a pool that knows all results."""
    fit, evaluated = split_rows(y, attack.eval_fraction, attack.seed)
    rows = Data(X[fit], y[fit], X[evaluated], fold_numbers(y[fit], attack.cv))
    runs = [MethodRun(method.method, dict(method.params), rows, attack) for method in attack.methods]
    for run in runs:
        run.open_search()
    schedule = Schedule(runs, pool, finish=lambda run: None, journal=None)
    while not schedule.step():
        pass


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


def _final_seconds(tasks: Sequence[Mapping[str, Any]]) -> float:
    return max(task["seconds"] for task in tasks if "/final/" in task["task"])


def _chain(tasks: Sequence[Mapping[str, Any]], final: float) -> float:
    return max(task["seconds"] for task in tasks if "/final/" not in task["task"]) + final


def all_tasks(engine: Outcome) -> list[Mapping[str, Any]]:
    """Of all methods."""
    return [task for found in engine["methods"].values() for task in found["tasks"]]


