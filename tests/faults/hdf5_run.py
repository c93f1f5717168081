"""A campaign of faults, as long as you like: `make faults`, or this file with --help."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a process that has threads must not fork
    os.environ[_name] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]

from hdf5_campaign import Campaign, run_target, told  # noqa: E402
from hdf5_targets import TARGETS  # noqa: E402

from mia_batch.rundir import first_look  # noqa: E402


def main() -> int:
    """Print a table for each target and each fault; 1 if any case was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="of each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose names hold this")
    parser.add_argument("--keep", type=Path, help="keep the files of bad cases in this folder")
    args = parser.parse_args()
    campaign = Campaign()
    for target in (each for each in TARGETS if args.only in each.name):
        for case in run_target(target, args.cases, args.seed, kept=args.keep, between=first_look.ready):
            campaign.cases.append(case)
            if case in campaign.bad:
                print(told([case]), flush=True)
        print(f"{target.name}: {len(campaign.cases)} cases so far, {len(campaign.bad)} bad", flush=True)
    print(campaign.table(), campaign.table(lambda case: case.fault), sep="\n\n")
    return 1 if campaign.bad else 0


if __name__ == "__main__":
    sys.exit(main())
