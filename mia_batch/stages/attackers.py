"""Attackers for rows that come later: fitted on all rows that there are now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from mia_batch.errors import InputError
from mia_batch.samples import Part, Samples
from mia_batch.search.fitted import Attacker, attacker, tasks
from mia_batch.search.folds import check_grids
from mia_batch.search.grid_search import GridSearch
from mia_batch.search.order_of_work import OrderOfWork, do_all
from mia_batch.search.tasks import CannotEvaluate, Done
from mia_batch.settings.schema import AttackConfig
from mia_batch.workers.open_executor import open_executor

log = logging.getLogger(__name__)


def fit_attackers(samples: Samples, sections: Sequence[AttackConfig], *, n_jobs: int) -> list[Attacker]:
    """Search every grid, and fit what each search chooses, all in one list of tasks.

    Args:
        samples: with `features`; the rows of their one split fit.
        sections: of one classifier each, in the order of the attackers.
        n_jobs: cores.

    Raises:
        InputError: an attacker cannot be fitted, or the memory budget does not hold one worker.
    """
    methods = [section.methods[0] for section in sections]
    for method in methods:
        check_grids(samples.splits[0], {method.method: dict(method.params)})
    searches = {
        str(i): GridSearch(
            method.method, method.params, samples, seed=section.seed, search=section.search, n_iter=section.n_iter,
            part=Part(str(i)),
        )
        for i, (method, section) in enumerate(zip(methods, sections, strict=True))
    }  # fmt: skip
    found: dict[str, Attacker] = {}
    problems: list[str] = []

    def finish(name: str, results: Mapping[str, Any], trace: Sequence[Done], failure: str) -> None:
        try:
            if failure:
                raise CannotEvaluate(failure)
            found[name] = made = attacker(searches[name], results)
        except CannotEvaluate as error:
            problems.append(f"attack_config[{name}]: {searches[name].method} must be fitted, got {error}")
            return
        log.info("%s: best %s, cross-validated accuracy %.4f", made.method, made.params, made.cv_score)
        if made.nonconverged:
            log.warning("%s: the fit of %s did not converge", made.method, made.params)

    work = {name: tasks(search) for name, search in searches.items()}
    executor = open_executor(sections[0], samples, chain.from_iterable(work.values()), n_jobs=n_jobs)
    try:
        do_all(OrderOfWork(work, executor, finish=finish), lambda: False)
    finally:
        executor.close()
    if problems:
        raise InputError(problems)
    return [found[name] for name in searches]
