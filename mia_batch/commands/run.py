"""`mia-batch run`: all stages of an audit on this machine, each only as far as it is not done."""

from __future__ import annotations

import argparse
import logging
import sys

from mia_batch.errors import InputError
from mia_batch.mpi.launcher import mpirun_command, stage_environment
from mia_batch.network.requirements import RANK_BYTES
from mia_batch.process.child import run_stage, stage_command
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.resources import available_memory
from mia_batch.process.stage_log import StageLog, kept
from mia_batch.rundir.claim import claim, in_force
from mia_batch.rundir.crashes import crash_of, note_crash
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import ON_RANKS, SHADOWS, begun_references, left_to_do, read_state
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import add_run_arguments, add_verdict_arguments, forget_verdict, load_run, talk_of
from mia_batch.stages.estimates import batch_bytes
from mia_batch.stages.plan import make_plan, planned_manifest
from mia_batch.stages.reduce import reduce
from mia_batch.stages.references import make_missing_store
from mia_batch.stages.shadows import add_shadows_argument, models_of_audit, read_shadows_argument
from mia_batch.stages.train_shadows import train_models

log = logging.getLogger(__name__)
UNDONE = (
    "ended with exit code 0 without doing its work: does the network, the data source or a function of yours end the "
    "process, as os._exit does?"
)
EXAMPLES = (
    "mia-batch run audit.yaml --out runs/one --ranks 2",
    "mia-batch run audit.yaml --out runs/two --set attack.seed=2",
    "mia-batch run audit.yaml --out runs/three --shadows 4",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --out DIR --ranks N --shadows K --junit FILE."""
    add_run_arguments(parser)
    add_shadows_argument(parser)
    add_verdict_arguments(parser)
    parser.add_argument("--ranks", metavar="N", type=int, default=1, help="MPI ranks of the extraction (default 1)")


def run(args: argparse.Namespace) -> int:
    """Run the stages; returns the reducer's exit code, or that of the first stage that failed."""
    if args.ranks < 1:
        raise InputError(f"--ranks: must be at least 1, got {args.ranks}")
    stage_environment()  # which refuses several of this process, before anything is read
    forget_verdict(args)
    read_shadows_argument(args)
    config, paths = load_run(args, need=("checkpoint", "data"))
    models_of_audit(config, dry_run=True)  # which may refuse, as may what follows; then no plan is left behind
    if not config.imports:
        check_memory(config, args.ranks)
    plan = None if config.imports else make_plan(config)
    manifest = plan.manifest if plan else planned_manifest(config)
    stages = read_state(paths, claim(paths, manifest) if plan else in_force(paths, manifest))
    models = models_of_audit(config)
    if plan:
        make_missing_store(config, manifest, plan.selection)
    for stage in left_to_do(stages).stages[:-1]:  # but reduce, which is left if anything is
        log.info("stage %s", stage)
        if stage == SHADOWS:
            assert models is not None
            code = train_models(config, models, talk=talk_of(args), log_path=paths.local_log(stage))
        else:
            code = _run_stage(stage, stage_arguments(args, config), args.ranks, paths)
        if code != OK:
            return code
        if stage != "attack" and stage in left_to_do(read_state(paths)).stages:  # reduce says which attack is missing
            print(f"mia-batch: {stage} {UNDONE}", file=sys.stderr)
            return FAILED
    log.info("stage reduce")
    # In this process: what it needs is imported here already, and a run with nothing to do should take a moment.
    return kept(paths.local_log("reduce"), "reduce", lambda: reduce(args))


def check_memory(config: Config, ranks: int) -> None:
    """Refuse ranks and batches that need more memory than this machine has, before it begins to swap or to kill.

    Raises:
        InputError: they need more.
    """
    size, what = config.data.network_size, "samples"
    if size:
        what = f"images of {size[0]}x{size[1]}"
    needed, there = ranks * (RANK_BYTES + batch_bytes(config)), available_memory()
    if needed > there:
        raise InputError(
            f"--ranks, extract.batch_size: {ranks} rank(s) with batches of {config.extract.batch_size} {what} must fit "
            f"into this machine's {there / 2**30:.1f} GiB, need {needed / 2**30:.1f}"
        )


def stage_arguments(args: argparse.Namespace, config: Config) -> list[str]:
    """Of a stage, as one word each: a name may begin with a dash."""
    arguments = [args.config, f"--out={args.out}"]
    arguments += [f"--checkpoint={args.checkpoint}"] if args.checkpoint else []
    arguments += [f"--set={change}" for change in config.changes]
    return [*arguments, *talk_of(args)]


def _run_stage(stage: str, arguments: list[str], ranks: int, paths: RunPaths) -> int:
    """Run a stage as a process, or as ranks; the exit code, after a line that says what went wrong."""
    command = stage_command({"import": "import_outputs"}.get(stage, stage), arguments)
    log_of_stage = StageLog(paths.local_log(stage), stage)
    words = mpirun_command(ranks, command) if stage in ON_RANKS else command
    with Progress(None, what=stage):  # while the stage imports what it needs
        code = run_stage(words, stage_environment(), log_of_stage)
    crash = crash_of(code) if stage in ON_RANKS else None
    if crash:
        for launched in [paths] if stage == "extract" else begun_references(paths):
            note_crash(launched, f"{stage} ended with exit code {code}")
        said = f"a rank of {stage} died of {crash.name}; the same command computes again what it has computed"
        print(f"mia-batch: {said}", file=sys.stderr)
        return FAILED
    return OK if code == OK else _explain(stage, code)


def _explain(stage: str, code: int) -> int:
    if code == RESUME:
        log.warning("%s was stopped and has saved its state; the same command goes on from there", stage)
    elif code != BAD_INPUT:
        print(f"mia-batch: {stage} failed with exit code {code}; the same command goes on from there", file=sys.stderr)
        return FAILED
    return code
