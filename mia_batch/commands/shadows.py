"""`mia-batch shadows`: plan reference models in complementary pairs, and train on this machine what is not trained."""

from __future__ import annotations

import argparse
import logging

from mia_batch.errors import InputError
from mia_batch.json_text import LARGEST
from mia_batch.process.exit_codes import OK
from mia_batch.report.media import shell, terminal
from mia_batch.rundir.shadows import ShadowPaths
from mia_batch.settings.loading import load_config
from mia_batch.stages.arguments import add_config_arguments, named_folder, talk_of
from mia_batch.stages.shadows import config_lines, models_to_train, result_line, shadow_changes
from mia_batch.stages.train_shadows import train_models

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


def run(args: argparse.Namespace) -> int:
    """Plan, train what is missing, and print by which command, or lines of a config, audits take the models."""
    if args.seed is not None and not 0 <= args.seed < LARGEST:  # else nobody could read the plan
        raise InputError(f"--seed: must be at least 0 and below 2**64, got {args.seed}")
    config = load_config(args.config, need=("data",), changes=args.changes)
    paths = ShadowPaths(named_folder("--out", args.out))
    models = models_to_train(config, paths, args.count, args.seed)
    if not models.missing:
        log.info("nothing to do: all %d models are trained", args.count)
    code = train_models(config, models, talk=talk_of(args))
    if code == OK:
        lines = [result_line(paths, models.plan, number) for number in range(args.count)]
        lines += ["", "audit with them:", "", _next_command(args, paths)]
        lines += ["", "or add to the config:", "", *config_lines(paths, args.count)]
        print("\n".join(map(terminal, lines)))
    return code


def _next_command(args: argparse.Namespace, paths: ShadowPaths) -> str:
    out = paths.root.with_name(f"{paths.root.name}-audit")
    changes = [*args.changes, *shadow_changes(paths.root, args.count)]
    words = ["mia-batch", "run", args.config, "--out", str(out)]
    return shell(*words, *(word for change in changes for word in ("--set", change)))
