"""Join the audits in a directory by training and step; `mia-batch nightly` queues it behind its audits.

For each training it prints, and writes to DIR/trajectories, what `mia-batch trajectory` says. CONFIG is that of the
audits; nothing of it is needed. Exit code: the worst verdict of a last step.
"""

import sys

from mia_batch.process.exit_codes import run_endable, run_main
from mia_batch.stages.arguments import add_config_arguments, job_parser
from mia_batch.stages.trajectory_report import join_all

parser = job_parser("trajectory", __doc__, "audit.yaml --out nights")
add_config_arguments(parser)
parser.add_argument("--out", metavar="DIR", required=True, help="directory that holds the run directories")

if __name__ == "__main__":
    args = parser.parse_args()
    sys.exit(run_endable(lambda: run_main(lambda: join_all(args), verbose=args.verbose, quiet=args.quiet)))
