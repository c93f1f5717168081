"""Take a model's outputs from the files that the configuration names, of whatever framework, instead of running it."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.import_outputs import run_import_stage

parser = stage_parser("import_outputs", __doc__, "audit.yaml --out runs/one")

if __name__ == "__main__":
    sys.exit(run_stoppable(run_import_stage, parser.parse_args()))
