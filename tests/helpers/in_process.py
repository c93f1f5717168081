"""An attack's tasks one after the other in this process: for many small audits."""

from __future__ import annotations

from typing import Any, cast

from mia_batch.attacks.base import Attack, AttackResult, AttackSettings
from mia_batch.samples import Samples
from mia_batch.search.tasks import Work, WorkToCome, execute


def run_here(attack: Attack, samples: Samples, settings: AttackSettings) -> AttackResult:
    """The result of an attack whose tasks follow those that they wait for."""
    results: dict[str, Any] = {}
    for task in attack.tasks(samples, settings):
        work = cast(WorkToCome, task.work).given(results) if task.after else cast(Work, task.work)
        results[task.key] = execute(samples, task.key, work).result if work else None
    return attack.result(samples, settings, results)
