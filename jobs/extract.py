"""Run the network over members and non-members, on every rank that mpirun or srun has started."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.extract import run_on_this_rank

parser = stage_parser("extract", __doc__, "audit.yaml --out d --set extract.device=CPU")
parser.add_argument("--prepared", metavar="DIR", help="take the samples from here, where prepare has put them")

if __name__ == "__main__":
    sys.exit(run_stoppable(run_on_this_rank, parser.parse_args()))
