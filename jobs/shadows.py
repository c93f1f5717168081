"""Train one reference model of a plan that `mia-batch shadows` has made; a second call goes on where it stopped."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import add_config_arguments, job_parser
from mia_batch.stages.shadows import run_shadow_stage

parser = job_parser("shadows", __doc__, "audit.yaml --out shadows --only 3")
add_config_arguments(parser)
parser.add_argument("--out", metavar="DIR", required=True, help="folder of the plan")
parser.add_argument("--only", metavar="N", type=int, required=True, help="train this model, from 0")
parser.add_argument("--brief", action="store_true", help="no line for each epoch")

if __name__ == "__main__":
    args = parser.parse_args()
    sys.exit(run_stoppable(run_shadow_stage, args, prefix=f"shadow {args.only}"))
