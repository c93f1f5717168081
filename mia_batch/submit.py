"""`mia-batch submit`: the three stages as Slurm jobs that wait for each other, for one checkpoint or for many."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import logging
import os
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mia_batch import scheduler
from mia_batch.chain import Request, Step, plan_chain, shell_lines
from mia_batch.config import Config, load_config
from mia_batch.entry import OK
from mia_batch.errors import InputError
from mia_batch.paths import RunPaths, write_text
from mia_batch.plan import prepare
from mia_batch.provenance import claim, sha256
from mia_batch.queued import latest_jobs, record, refuse_active
from mia_batch.site import STAGES, Site, find_site, load_site
from mia_batch.store import features_progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One audit: a checkpoint and the directory of its results."""

    checkpoint: Path
    paths: RunPaths


def queue(steps: Sequence[Step]) -> dict[str, str]:
    """Submit the jobs: all of them, or none.

    Returns:
        The job's id by stage.

    Raises:
        InputError: Slurm refused one; those queued before it are cancelled.
    """
    job_ids: dict[str, str] = {}
    try:
        for step in steps:
            job_ids[step.stage] = scheduler.sbatch(step.command(job_ids))
    except BaseException:
        if job_ids:
            subprocess.run(["scancel", *job_ids.values()], check=False, capture_output=True)
        raise
    return job_ids


# --- one run ---------------------------------------------------------------------------------------------------------


def submit_run(
    config: Config, out: Path, site: Site, *, words: Sequence[str] = (), dry_run: bool = False
) -> list[Step]:
    """What is still to be done of one run, as jobs; queued and recorded in its jobs.json unless `dry_run`.

    Raises:
        InputError: the directory holds another run, or one whose jobs are still queued.
    """
    paths = RunPaths(out)
    _refuse_unusable(paths)
    manifest = prepare(config).manifest
    stages, methods = left_to_do(paths, config)
    steps = plan_chain(Request(config.path, paths.root, site, tuple(words), stages, methods))
    if not dry_run:
        claim(paths, manifest)
        refuse_active([paths])
        paths.logs.mkdir(exist_ok=True)
        record(paths, queue(steps))
    return steps


def left_to_do(paths: RunPaths, config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages that are not done, and the attacks that are not."""
    rows = features_progress(paths.features)
    methods = tuple(m.method for m in config.attack.methods if not paths.attack(m.method).exists())
    if rows is None or rows[0] < rows[1]:
        return STAGES, methods or tuple(m.method for m in config.attack.methods)
    return (("attack", "reduce") if methods else ("reduce",)), methods


def _refuse_unusable(paths: RunPaths) -> None:
    if "\\" in str(paths.root):
        raise InputError(f"{paths.root}: --out: must have no backslash, which Slurm strips from the names of logs")


# --- many checkpoints ------------------------------------------------------------------------------------------------


def find_checkpoints(patterns: Iterable[str]) -> list[Path]:
    """Files by name or glob, sorted within each pattern, each once.

    Raises:
        InputError: with a line for each pattern that no file matches.
    """
    found: dict[Path, None] = {}
    problems = []
    for pattern in patterns:
        names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not names:
            problems.append(f"--checkpoints: must match a file, got {pattern}")
        found |= dict.fromkeys(Path(name).absolute() for name in names)
    if problems:
        raise InputError(problems)
    return list(found)


def name_runs(checkpoints: Sequence[Path], out: Path) -> list[Run]:
    """A directory in `out` for each, named after the file; files of one name get a part of their path's hash too."""
    stems = Counter(path.stem for path in checkpoints)

    def name(path: Path) -> str:
        return path.stem if stems[path.stem] == 1 else f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"

    return [Run(path, RunPaths(out / name(path))) for path in checkpoints]


def submit_runs(config_file: Path, runs: Sequence[Run], out: Path, site: Site, *, dry_run: bool = False) -> list[Step]:
    """Queue many audits as one array per stage; in each, a task that fails takes only its own successors with it.

    Raises:
        InputError: with every run that cannot be queued; then none is.
    """
    _refuse_unusable(RunPaths(out))
    manifests = _manifests(config_file, runs)
    listing = out / ".lists" / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}"
    site_words = (f"list={listing}",)
    steps = plan_chain(Request(config_file.absolute(), out, site, site_words, n_tasks=len(runs)))
    if not dry_run:
        problems: list[str] = []
        for run, manifest in zip(runs, manifests, strict=True):
            try:
                claim(run.paths, manifest)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        refuse_active([run.paths for run in runs])
        _write_list(listing, runs)
        (out / "logs").mkdir(exist_ok=True)
        job_ids = queue(steps)
        for task, run in enumerate(runs):
            record(run.paths, {stage: f"{job}_{task}" for stage, job in job_ids.items()})
    return steps


def _manifests(config_file: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run's manifest; the data, which all share, is read once."""
    configs = [load_config(config_file, checkpoint=run.checkpoint) for run in runs]
    shared = prepare(configs[0]).manifest
    return [
        {
            **shared,
            "config": config.resolved(),
            "digests": {**shared["digests"], "model.checkpoint": sha256(config.model.checkpoint)},
        }
        for config in configs
    ]


def _write_list(listing: Path, runs: Sequence[Run]) -> None:
    """Checkpoint and directory of each run, all ended by NUL, which alone no path can hold."""
    listing.parent.mkdir(parents=True, exist_ok=True)
    write_text(listing, "".join(f"{run.checkpoint}\0{run.paths.root}\0" for run in runs))


def is_finished(run: Run) -> bool:
    """Whether the run has its verdict."""
    return run.paths.summary_json.exists()


# --- command line ----------------------------------------------------------------------------------------------------


def add_site_arguments(parser: argparse.ArgumentParser) -> None:
    """The site, and what of it is other this time."""
    parser.add_argument(
        "--site", metavar="SITE", help="file, or one of configs/sites (default $MIA_BATCH_SITE, or cpu)"
    )
    parser.add_argument("--nodes", metavar="N", type=int, help="nodes of the extraction, instead of the site's")
    parser.add_argument("--tasks-per-node", metavar="N", type=int, help="MPI ranks per node, instead of the site's")
    parser.add_argument("--limit", metavar="N", type=int, help="checkpoints extracted at once, instead of the site's")
    parser.add_argument("--dry-run", action="store_true", help="print the sbatch commands and queue nothing")
    parser.add_argument("--json", action="store_true", help="print the job ids as one line of JSON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --out DIR, and which checkpoints."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="run directory; of --checkpoints, the parent of theirs"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")
    which.add_argument("--checkpoints", metavar="FILE", nargs="+", help="audit each of these files or globs")
    add_site_arguments(parser)


def site_from(args: argparse.Namespace) -> Site:
    """The site that the arguments mean.

    Raises:
        InputError: there is none such, or it is wrong.
    """
    site = load_site(find_site(args.site))
    given = {"nodes": args.nodes, "tasks_per_node": args.tasks_per_node}
    changes = {name: value for name, value in given.items() if value is not None}
    too_small = {**changes, **({"limit": args.limit} if args.limit is not None else {})}
    problems = [f"--{name.replace('_', '-')}: must be at least 1, got {n}" for name, n in too_small.items() if n < 1]
    if problems:
        raise InputError(problems)
    extract = site.extract.model_copy(update=changes)
    return site.model_copy(update={"extract": extract, "at_once": args.limit or site.at_once})


def run(args: argparse.Namespace) -> int:
    """Check, then queue what is not done."""
    site, out = site_from(args), Path(args.out).absolute()
    if args.checkpoints:
        runs = [run for run in name_runs(find_checkpoints(args.checkpoints), out) if not is_finished(run)]
        if not runs:
            log.info("nothing to do: every checkpoint has its verdict in %s", out)
            return OK
        show(args, submit_runs(Path(args.config), runs, out, site, dry_run=args.dry_run), runs)
        return OK
    config = load_config(args.config, checkpoint=args.checkpoint)
    words = [f"checkpoint={config.model.checkpoint}"] if args.checkpoint else []
    steps = submit_run(config, out, site, words=words, dry_run=args.dry_run)
    show(args, steps, [Run(config.model.checkpoint, RunPaths(out))])
    return OK


def show(args: argparse.Namespace, steps: Sequence[Step], runs: Sequence[Run]) -> None:
    """Print the commands of a dry run, or the jobs."""
    if args.dry_run:
        print("\n".join(shell_lines(steps)))
        return
    jobs = {stage: job.partition("_")[0] for stage, job in latest_jobs(runs[0].paths).items()}
    queued = {step.stage: int(jobs[step.stage]) for step in steps}
    if args.json:
        print(json.dumps({"jobs": queued, "runs": [str(run.paths.root) for run in runs]}))
        return
    for stage, job in queued.items():
        print(f"{stage:<8} job {job}")
    print(f"mia-batch status {shlex.quote(str(runs[0].paths.root))}")
