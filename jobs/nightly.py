"""Queue the audits of new checkpoints; what slurm/nightly.sbatch runs every night."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mia_batch import nightly
from mia_batch.entry import run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python jobs/nightly.py CONFIG --watch DIR --runs DIR`."""
    parser = argparse.ArgumentParser(prog="nightly.py", description=__doc__)
    nightly.add_arguments(parser)
    args = parser.parse_args(argv)
    return run_main(lambda: nightly.run(args))


if __name__ == "__main__":
    sys.exit(main())
