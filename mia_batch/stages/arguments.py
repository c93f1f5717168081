"""What the stages' command lines share."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError
from mia_batch.files import no_folder, open_bytes
from mia_batch.process.command_line import Parser, add_output_arguments
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config

JUNIT_BYTES, JUNIT_MARK = 1 << 12, b"<testsuite"  # one of any program may be replaced, as test reports are


def job_parser(job: str, description: str, *examples: str, **quiet: Any) -> Parser:
    """The parser of jobs/<job>.py; each example is what follows its name, `quiet` as of `add_output_arguments`."""
    command = f"python -m mia_batch.jobs.{job}"
    parser = Parser(prog=f"{job}.py", description=description, examples=[f"{command} {words}" for words in examples])
    add_output_arguments(parser, **quiet)
    return parser


def stage_parser(stage: str, description: str, *examples: str) -> Parser:
    """CONFIG --out DIR, as every stage takes them."""
    parser = job_parser(stage, description, "audit.yaml --out runs/one", *examples)
    add_run_arguments(parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add CONFIG, with a note on it, and --set."""
    parser.add_argument("config", metavar="CONFIG", help=f"configuration file (YAML){note}")
    change = "change a key of the config, such as attack.seed=2; VALUE is YAML; may be given again"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes", help=change)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a run."""
    add_config_arguments(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="run directory")
    parser.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")


def add_verdict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --junit."""
    parser.add_argument("--junit", metavar="FILE", help="write the verdict as JUnit XML too")


def forget_verdict(args: argparse.Namespace) -> None:
    """Remove the --junit file of an earlier audit: whatever becomes of this one, that is not its verdict.

    Raises:
        InputError: it cannot be removed, is something else, or has no name, as of an unset variable in quotes.
    """
    if args.junit == "":
        raise InputError("--junit: must name a file, got ''")
    if args.junit:
        _remove_verdict(Path(args.junit))


def _remove_verdict(file: Path) -> None:
    try:
        with open_bytes(file) as found:
            begins = found.read(JUNIT_BYTES)
        if begins and JUNIT_MARK not in begins:  # an empty one may be there to have its name
            raise InputError(f"--junit: must be a new file or a JUnit file, got {file}, which is neither")
        file.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        rule = "--junit: must be a file that can be written"
        raise InputError(f"{rule}, got {ascii(str(file))[1:-1]}: {error.strerror}") from error


def talk_of(args: argparse.Namespace) -> list[str]:
    """The words by which a stage of a command talks as much as that does."""
    return ["--verbose"] if args.verbose else ["--quiet"] if args.quiet else []


def load_run(args: argparse.Namespace, *, need: Collection[str] = ()) -> tuple[Config, RunPaths]:
    """The config and the paths of the run that the arguments name."""
    out = named_folder("--out", args.out)
    config = load_config(args.config, checkpoint=args.checkpoint, need=need, changes=args.changes)
    return config, RunPaths(out)


def named_folder(option: str, name: str) -> Path:
    """The folder, absolute, which may not be there yet.

    Raises:
        InputError: no name, as of an unset variable in quotes; it would mean the current folder. Or of what is none.
    """
    if not name:
        raise InputError(f"{option}: must name a directory, got ''")
    refuse_no_folder(option, folder := Path(name).absolute())
    return folder


def refuse_no_folder(option: str, path: Path) -> None:
    """Refuse a path that is a file, or goes through one, before anything is read.

    Raises:
        InputError: it can be no directory.
    """
    if got := no_folder(path):
        raise InputError(f"{option}: must be a directory, got {got}")
