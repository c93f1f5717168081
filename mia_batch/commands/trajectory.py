"""`mia-batch trajectory RUNS`: the audits of one training run by step, and how exposed each record was on the way."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mia_batch.process.exit_codes import BY_OUTCOME
from mia_batch.report.tables import has_colours, terminal_width
from mia_batch.stages.trajectory import read_trajectory
from mia_batch.stages.trajectory_report import as_object, as_text, exposure_of, write_records

EXAMPLES = (
    "mia-batch trajectory epochs",
    "mia-batch trajectory epochs --csv exposure.csv   # a line for each record",
    "mia-batch trajectory epochs --json > trajectory.json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUNS --json --csv."""
    parser.add_argument("runs", metavar="RUNS", help="directory that holds the run directories of one training")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write a line for each record, with its LT-IQR")


def run(args: argparse.Namespace) -> int:
    """Print the trajectory; the exit code is the verdict of the last step."""
    found = read_trajectory(Path(args.runs))
    exposure = exposure_of(found.records)
    if args.csv:
        write_records(args.csv, found.records, exposure)
    if args.json:
        print(json.dumps(as_object(found, exposure), indent=1))
    else:
        print(as_text(found, exposure, width=terminal_width(), colours=has_colours()))
    return BY_OUTCOME[found.steps[-1].outcome]
