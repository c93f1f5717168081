"""Fit the attacks on features.h5, all of them or one, on all cores that this job was given."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.attack import run_attack_stage

parser = stage_parser("attack", __doc__, "audit.yaml --out runs/one --method lr")
parser.add_argument("--method", metavar="NAME", help="fit this attack alone (default: all of the config)")

if __name__ == "__main__":
    sys.exit(run_stoppable(run_attack_stage, parser.parse_args()))
