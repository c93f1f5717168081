"""Queue the audits of new checkpoints; what slurm/nightly.sbatch runs every night."""

import sys

from mia_batch.process.exit_codes import run_endable, run_main
from mia_batch.scheduler import nightly
from mia_batch.stages.arguments import job_parser

parser = job_parser("nightly", __doc__, "audit.yaml --watch checkpoints --runs nights", **nightly.QUIET)
nightly.add_arguments(parser)

if __name__ == "__main__":
    args = parser.parse_args()
    sys.exit(run_endable(lambda: run_main(lambda: nightly.run(args), verbose=args.verbose, quiet=args.quiet is True)))
