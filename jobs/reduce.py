"""Turn the attacks' scores into metrics, a summary and the verdict.

Exit code 0 no leak above the gate's levels, 3 leak, 4 inconclusive or not evaluable, 2 bad input.
"""

import sys

from mia_batch.process.exit_codes import run_endable, run_main
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.reduce import reduce

parser = stage_parser("reduce", __doc__, "audit.yaml --out runs/one --junit verdict.xml")
add_verdict_arguments(parser)

if __name__ == "__main__":
    args = parser.parse_args()
    sys.exit(run_endable(lambda: run_main(lambda: reduce(args), verbose=args.verbose, quiet=args.quiet)))
