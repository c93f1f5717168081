"""What of a run is done, running or missing, as its files say."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mia_batch.errors import InputError
from mia_batch.files import in_use
from mia_batch.rundir.features import features_progress
from mia_batch.rundir.manifest import read_manifest, what_is_damaged
from mia_batch.rundir.paths import RunPaths


@dataclass(frozen=True)
class StageStatus:
    """One stage, or one attack.

    Attributes:
        stage: "extract", "attack lr", "reduce".
        state: done; running (a process writes, or the job runs); queued; failed (the job has ended without a result);
            partial (some of it is done, and no job is known to go on); missing; damaged.
        detail: how much is done.
        job: the last job, its state and why it waits, such as "12_3 PENDING (Resources)"; empty without one.
    """

    stage: str
    state: str
    detail: str
    job: str = ""


def _by_files(paths: RunPaths) -> list[StageStatus]:
    try:
        manifest = read_manifest(paths) or {}
        methods = [method["method"] for method in manifest["config"]["attack"]["methods"]]
        return [_extract(paths), *(_attack(paths, name) for name in methods), _reduce(paths)]
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [StageStatus("run", "damaged", what_is_damaged(error))]


def _extract(paths: RunPaths) -> StageStatus:
    rows = features_progress(paths.features)
    if rows is None:
        return StageStatus("extract", "missing", "no rows yet")
    done, total = rows
    state = "done" if done == total else "running" if in_use(paths.features) else "partial"
    return StageStatus("extract", state, f"{done} of {total} rows")


def _attack(paths: RunPaths, name: str) -> StageStatus:
    stage, journal = f"attack {name}", paths.journal(name)
    if paths.attack(name).exists():
        return StageStatus(stage, "done", paths.attack(name).name)
    try:
        tasks = max(0, journal.read_bytes().count(b"\n") - 1)  # the first line says whose they are
        return StageStatus(stage, "running" if in_use(journal) else "partial", f"{tasks} fits done")
    except FileNotFoundError:  # not begun, or just finished
        done = paths.attack(name).exists()
        return StageStatus(stage, "done" if done else "missing", paths.attack(name).name if done else "")


def _reduce(paths: RunPaths) -> StageStatus:
    if not paths.summary_json.exists():
        return StageStatus("reduce", "missing", "")
    verdict = json.loads(paths.summary_json.read_text(encoding="utf-8"))["verdict"]
    return StageStatus("reduce", "done", "leak" if verdict["leak"] else "no leak found")
