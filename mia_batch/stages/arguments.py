"""What the stages' command lines share."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config


def stage_parser(stage: str, description: str) -> argparse.ArgumentParser:
    """CONFIG --out DIR, as every stage takes them."""
    parser = argparse.ArgumentParser(prog=f"{stage}.py", description=description)
    add_run_arguments(parser)
    return parser


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a run."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    parser.add_argument("--out", metavar="DIR", required=True, help="run directory")
    parser.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")
    parser.add_argument("--verbose", action="store_true", help="log more")


def add_verdict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --junit."""
    parser.add_argument("--junit", metavar="FILE", help="write the verdict as JUnit XML too")


def forget_verdict(args: argparse.Namespace) -> None:
    """Remove the --junit file of an earlier audit: whatever becomes of this one, that is not its verdict.

    Raises:
        InputError: it cannot be removed.
    """
    if args.junit:
        try:
            Path(args.junit).unlink(missing_ok=True)
        except OSError as error:
            rule = "--junit: must be a file that can be written"
            raise InputError(f"{rule}, got {args.junit}: {error.strerror}") from error


def load_run(args: argparse.Namespace, *, need: Collection[str] = ()) -> tuple[Config, RunPaths]:
    """The config and the paths of the run that the arguments name."""
    out = named_folder("--out", args.out)
    return load_config(args.config, checkpoint=args.checkpoint, need=need), RunPaths(out)


def named_folder(option: str, name: str) -> Path:
    """The folder, absolute.

    Raises:
        InputError: no name, as of an unset variable in quotes; it would mean the current folder.
    """
    if not name:
        raise InputError(f"{option}: must name a directory, got ''")
    return Path(name).absolute()
