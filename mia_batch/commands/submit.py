"""`mia-batch submit`: queue what is not done of one audit, or of many."""

from __future__ import annotations

import argparse
import logging

from mia_batch.process.exit_codes import OK
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler.arguments import add_site_arguments, show, show_nothing, site_from
from mia_batch.scheduler.arrays import submit_arrays
from mia_batch.scheduler.submission import Run, find_checkpoints, name_runs, still_to_do, submit_run
from mia_batch.settings.loading import load_config
from mia_batch.stages.arguments import add_config_arguments, named_folder
from mia_batch.stages.shadows import add_shadows_argument, read_shadows_argument
from mia_batch.stages.trial import print_tried, tried_or_not

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch submit audit.yaml --out runs/one --site gpu --dry-run",
    "mia-batch submit audit.yaml --out runs/one --site my_site.yaml",
    "mia-batch submit audit.yaml --out epochs --checkpoints 'ckpt/*.ckpt'",
    "mia-batch submit audit.yaml --out runs/one --shadows 8",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG --out DIR, and which checkpoints."""
    add_config_arguments(parser)
    out = "run directory; of --checkpoints, the parent of theirs"
    parser.add_argument("--out", metavar="DIR", required=True, help=out)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")
    which.add_argument("--checkpoints", metavar="FILE", nargs="+", help="audit each of these files or globs")
    add_shadows_argument(parser)
    tried = "first run the network of one checkpoint on 64 samples on this host's CPU"
    parser.add_argument("--try", dest="try_", action="store_true", help=tried)
    add_site_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check, then queue what is not done."""
    site, out = site_from(args), named_folder("--out", args.out)
    read_shadows_argument(args)
    named = name_runs(find_checkpoints(args.checkpoints), out) if args.checkpoints else []
    checkpoint = named[0].checkpoint if named else args.checkpoint
    config = load_config(args.config, checkpoint=checkpoint, changes=args.changes)
    runs = still_to_do(config, named or [Run(config.model.checkpoint, RunPaths(out))])
    if runs and args.try_:
        print_tried(tried_or_not(config, runs[0].checkpoint, args.changes))
    if not runs:
        log.info("nothing to do: every checkpoint has its verdict in %s", out)
        show_nothing(args)
    elif args.checkpoints:
        show(args, site, submit_arrays(config, runs, out, site, dry_run=args.dry_run), runs)
    else:
        words = [f"checkpoint={config.model.checkpoint}"] if args.checkpoint else []
        show(args, site, submit_run(config, out, site, words=words, dry_run=args.dry_run), runs)
    return OK
