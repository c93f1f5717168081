"""Queue the audits of new checkpoints; what slurm/nightly.sbatch runs every night."""

import argparse
import sys

from mia_batch.process.exit_codes import run_main
from mia_batch.scheduler import nightly

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="nightly.py", description=__doc__)
    nightly.add_arguments(parser)
    args = parser.parse_args()
    sys.exit(run_main(lambda: nightly.run(args)))
