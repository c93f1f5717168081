"""`mia-batch shadows`: plan reference models in complementary pairs, and train on this machine what is not trained."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from mia_batch.errors import InputError
from mia_batch.process.child import run_stage, stage_command
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, OK, RESUME
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.shadows import ShadowPaths
from mia_batch.settings.loading import load_config
from mia_batch.stages.arguments import add_config_arguments, named_folder
from mia_batch.stages.shadows import config_lines, models_to_train, result_line

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch shadows audit.yaml --count 4 --out shadows",
    "mia-batch shadows audit.yaml --count 8 --out shadows   # later: four more",
    "mia-batch shadows audit.yaml --count 4 --out quick --set train.epochs=5",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --count K --out DIR --seed S."""
    add_config_arguments(parser)
    parser.add_argument("--count", metavar="K", type=int, required=True, help="how many models, an even number")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the plan and the checkpoints")
    seed = "of the coins that say who is trained on what, and of the trainings (default 1, or that of the plan in DIR)"
    parser.add_argument("--seed", metavar="S", type=int, help=seed)
    parser.add_argument("--verbose", action="store_true", help="a line for each epoch")


def run(args: argparse.Namespace) -> int:
    """Plan, train what is missing, and print what to add to the config."""
    if args.seed is not None and args.seed < 0:
        raise InputError(f"--seed: must be at least 0, got {args.seed}")
    config = load_config(args.config, need=("data",), changes=args.changes)
    paths = ShadowPaths(named_folder("--out", args.out))
    plan, missing = models_to_train(config, paths, args.count, args.seed)
    if not missing:
        log.info("nothing to do: all %d models are trained", args.count)
    with StopRequest().listening() as stop:
        for number in missing:
            code = run_stage(stage_command("shadows", _arguments(args, number)))
            if code == OK:
                log.info("%d of %d: %s", number + 1, args.count, result_line(paths, plan, number))
            if stop.signal == signal.SIGINT:
                raise KeyboardInterrupt
            if code != OK or stop:
                return _explain(number, code or RESUME)
    print("\n".join(result_line(paths, plan, number) for number in range(args.count)))
    print("\n".join(["", "add to the config:", "", *config_lines(paths, args.count)]))
    return OK


def _arguments(args: argparse.Namespace, number: int) -> list[str]:
    words = [args.config, f"--out={args.out}", f"--only={number}", *(f"--set={change}" for change in args.changes)]
    return [*words, "--verbose" if args.verbose else "--quiet"]


def _explain(number: int, code: int) -> int:
    if code == RESUME:
        log.warning("stopped at model %d, state saved; the same command goes on from there", number)
    elif code != BAD_INPUT:
        said = f"training of model {number} failed with exit code {code}; the same command goes on from there"
        print(f"mia-batch: {said}", file=sys.stderr)
        return FAILED
    return code
