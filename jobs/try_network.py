"""Run a configuration's network on a few samples on CPU, and print what goes in, what comes out and what is right."""

import sys

from mia_batch.process.exit_codes import run_main
from mia_batch.stages.arguments import add_config_arguments, job_parser
from mia_batch.stages.trial import try_here

parser = job_parser("try_network", __doc__, "audit.yaml")
add_config_arguments(parser)
parser.add_argument("--checkpoint", metavar="FILE", help="try this checkpoint instead of the config's")

if __name__ == "__main__":
    args = parser.parse_args()
    sys.exit(run_main(lambda: try_here(args), verbose=args.verbose, quiet=args.quiet))
