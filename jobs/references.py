"""Run the network with the weights of each reference over the audit's samples, on every rank that has been started."""

import sys
from functools import partial

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.extract import run_on_this_rank
from mia_batch.stages.references import references

parser = stage_parser("references", __doc__, "audit.yaml --out runs/one --only 3")
parser.add_argument("--only", metavar="N", type=int, help="this reference alone, from 0 (default: all)")
parser.add_argument("--prepared", metavar="DIR", help="take the samples from here, where prepare has put them")

if __name__ == "__main__":
    sys.exit(run_stoppable(partial(run_on_this_rank, stage=references), parser.parse_args()))
