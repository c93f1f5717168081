"""What the commands that queue jobs take, and what they print."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence

from mia_batch.errors import InputError
from mia_batch.report.media import shell
from mia_batch.scheduler.limits import warnings
from mia_batch.scheduler.sbatch_commands import shell_lines
from mia_batch.scheduler.site import Site, find_site, load_site
from mia_batch.scheduler.slurm import number
from mia_batch.scheduler.submission import Run, Submission
from mia_batch.stages.estimates import estimate_lines

log = logging.getLogger(__name__)


def add_site_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --site and what overrides it, --dry-run and --json."""
    site = "file, or one of configs/sites (default $MIA_BATCH_SITE, or cpu)"
    parser.add_argument("--site", metavar="SITE", help=site)
    parser.add_argument("--nodes", metavar="N", type=int, help="nodes of the extraction, instead of the site's")
    parser.add_argument("--tasks-per-node", metavar="N", type=int, help="MPI ranks per node, instead of the site's")
    parser.add_argument("--limit", metavar="N", type=int, help="checkpoints extracted at once, instead of the site's")
    parser.add_argument("--dry-run", action="store_true", help="print the sbatch commands and queue nothing")
    parser.add_argument("--json", action="store_true", help="print the job ids as one line of JSON")


def site_from(args: argparse.Namespace) -> Site:
    """The site that --site names, with what the other arguments override.

    Raises:
        InputError: there is no such site, its file is wrong, or a number is below 1.
    """
    site = load_site(find_site(args.site))
    given = {"nodes": args.nodes, "tasks_per_node": args.tasks_per_node, "limit": args.limit}
    changes = {name: n for name, n in given.items() if n is not None}
    problems = [f"--{name.replace('_', '-')}: must be at least 1, got {n}" for name, n in changes.items() if n < 1]
    if problems:
        raise InputError(problems)
    at_once = changes.pop("limit", site.at_once)
    return site.model_copy(update={"extract": site.extract.model_copy(update=changes), "at_once": at_once})


def show(args: argparse.Namespace, site: Site, submission: Submission, runs: Sequence[Run]) -> None:
    """Print the commands of a dry run, else the jobs; say on standard error what each job will take."""
    for line in estimate_lines(submission.estimates):
        log.log(logging.WARNING if line.startswith("WARNING") else logging.INFO, "%s", line.removeprefix("WARNING: "))
    for line in warnings(site, submission.estimates):
        log.warning("%s", line)
    if args.dry_run:
        print("\n".join(shell_lines(submission.steps)))
        return
    if args.json:
        jobs = {stage: int(number(job)) for stage, job in submission.job_ids.items()}
        print(json.dumps({"jobs": jobs, "runs": [str(run.paths.root) for run in runs]}))
        return
    for stage, job in submission.job_ids.items():
        print(f"{stage:<8} job {job}")
    root = runs[0].paths.root
    print(shell("mia-batch", "status", str(root if len(runs) == 1 else root.parent)))


def show_nothing(args: argparse.Namespace) -> None:
    """Print an empty object for --json where there was nothing to queue."""
    if args.json and not args.dry_run:
        print(json.dumps({"jobs": {}, "runs": []}))
