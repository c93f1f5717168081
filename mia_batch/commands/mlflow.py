"""`mia-batch mlflow DIR`: log a finished audit to the MLflow run that made its checkpoint."""

from __future__ import annotations

import argparse

from mia_batch.process.exit_codes import OK
from mia_batch.report.media import terminal
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.verdicts import read_verdict
from mia_batch.stages.mlflow_log import MADE_BY, client_of, log_audit, maker_of

EXAMPLES = (
    "mia-batch mlflow runs/one   # to the run by the checkpoint's path or tag",
    "mia-batch mlflow runs/one --run-id 0123456789abcdef0123456789abcdef",
    "mia-batch mlflow runs/one --tracking-uri http://mlflow.example.org",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, and which MLflow run."""
    parser.add_argument("dir", metavar="DIR", help="run directory of a finished audit")
    run = f"the run; else by .../ID/artifacts/... in the checkpoint's path, or by the tag {MADE_BY}"
    parser.add_argument("--run-id", metavar="ID", help=run)
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store (default as MLflow has it)")


def run(args: argparse.Namespace) -> int:
    """Log metrics, tags, figures and report, and say where."""
    paths = RunPaths(args.dir)
    manifest, summary = read_verdict(paths)
    client = client_of(args.tracking_uri)
    made_by = maker_of(client, manifest, args.run_id)
    folder = log_audit(client, made_by, paths, manifest, summary)
    print(terminal(f"logged to run {made_by.info.run_id}, artifacts in {folder}"))
    return OK
