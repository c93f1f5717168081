"""Many audits in as many arrays as the cluster's MaxArraySize asks for; their reference models are trained once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mia_batch.rundir.jobs import forget_last
from mia_batch.scheduler import slurm as scheduler
from mia_batch.scheduler.sbatch_commands import part_name, stage_of
from mia_batch.scheduler.site import Site
from mia_batch.scheduler.submission import Run, Submission, submit_runs
from mia_batch.settings.schema import Config


def submit_arrays(
    config: Config, runs: Sequence[Run], out: Path, site: Site, *, join: bool = False, dry_run: bool = False
) -> Submission:
    """`submit_runs` for parts of `runs` that an array can hold; all are queued or none.

    What the site extracts at a time is divided among the arrays, at least one checkpoint each. The jobs of the second
    array are called "extract 2" and so on; the last array has the job that `join` asks for.
    """
    size = scheduler.largest_array() or len(runs)
    parts = [runs[first : first + size] for first in range(0, len(runs), size)]
    share = site.model_copy(update={"at_once": max(1, site.at_once // len(parts))})
    done: list[Submission] = []
    try:
        for part in parts:
            last = join and part is parts[-1]
            done.append(
                submit_runs(config, part, out, share, join=last, dry_run=dry_run, array_size=size, before=done)
            )
    except BaseException:
        for submission, part in zip(done, parts, strict=False):
            scheduler.scancel(submission.job_ids.values())
            for run in part if submission.job_ids else ():
                forget_last(run.paths)
        raise
    return _joined(done)


def _joined(done: Sequence[Submission]) -> Submission:
    job_ids: dict[str, str] = {}
    for each in done:
        for name, job in each.job_ids.items():
            stage = stage_of(name)
            job_ids[part_name(stage, 1 + sum(stage_of(other) == stage for other in job_ids))] = job
    return Submission([step for each in done for step in each.steps], job_ids, done[0].estimates)
