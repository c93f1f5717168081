"""Read the samples of a user's source and bring them to one size once, for every audit of an array."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.prepare_data import prepare_data

parser = stage_parser("prepare", __doc__)

if __name__ == "__main__":
    sys.exit(run_stoppable(prepare_data, parser.parse_args()))
