"""Turn the attacks' scores into metrics, a summary and the verdict.

Exit code 0 no leak, 3 leak, 4 inconclusive (no leak found, but an attack could not be evaluated), 2 bad input.
"""

import sys

from mia_batch.process.exit_codes import run_main
from mia_batch.stages.arguments import stage_parser
from mia_batch.stages.reduce import reduce

if __name__ == "__main__":
    args = stage_parser("reduce", __doc__).parse_args()
    sys.exit(run_main(lambda: reduce(args), verbose=args.verbose))
