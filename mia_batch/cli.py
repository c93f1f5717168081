"""The `mia-batch` command: each sub-command is a module of commands/.

It has `add_arguments(parser)`, `run(args)`, and `EXAMPLES`: command lines that end its help.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import mia_batch
from mia_batch.files import shipped
from mia_batch.process.command_line import Parser, add_output_arguments
from mia_batch.process.exit_codes import run_endable, run_main

COMMANDS = {
    "init": "write a first config, with its code and a site file",
    "run": "extract, attack and reduce on this machine",
    "import": "take a model's outputs from files, of any framework, for an audit",
    "check": "validate a config and show what each stage will do",
    "status": "what of a run is done, running or missing",
    "verify": "read all files of a run and say which are damaged",
    "submit": "queue an audit, or one for each of many checkpoints, on Slurm",
    "nightly": "queue the audits of new checkpoints",
    "show": "the result of a finished audit again: table, one attack, Markdown, figures",
    "compare": "put finished audits side by side",
    "history": "list the audits below a folder by training, oldest first",
    "trajectory": "join the audits of one training by step: first leak, exposure of each record",
    "mlflow": "log a finished audit to the MLflow run that made its checkpoint",
    "references": "whose outputs a store of references has, and what no config names",
    "doctor": "what this node offers, and what will be slow or fail",
    "schema": "print the JSON schema of a config, a site file or summary.json",
    "shadows": "train reference models, each on a random half of the samples",
    "completion": "print what makes bash, zsh or fish complete the command line",
    "demo": "train a small network on handwritten digits and audit it",
}
EXAMPLES = (
    "mia-batch init --kind tabular --out first   # a config that runs as it is",
    "mia-batch check audit.yaml                  # what each stage will do",
    "mia-batch run audit.yaml --out runs/one     # exit code: the verdict",
    "mia-batch status runs/one",
)
CODES = (
    "exit codes: 0 no leak above the gate's levels, 3 leak found, 4 inconclusive or not evaluable, 2 bad input, "
    "75 stopped and can be resumed, 130 Ctrl-C, 1 anything else"
)
MODULES = {"import": "import_outputs"}  # whose module cannot have the command's name


def make_parser(command: str | None, *, whole: bool = False) -> argparse.ArgumentParser:
    """The parser; only the module of `command` is imported, so that every other one starts fast, or all (`whole`)."""
    parser = Parser(prog="mia-batch", description="Tells whether a trained model leaks who was in its training data.")
    parser.show(EXAMPLES, CODES, f"manual: {shipped('docs') / 'index.md'}")
    parser.add_argument("--version", action="version", version=f"mia-batch {mia_batch.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if whole or name == command:
            _module(name).add_arguments(sub)
            add_output_arguments(sub, **getattr(_module(name), "QUIET", {}))
            sub.show(_module(name).EXAMPLES)
        if name == "completion":
            sub.set_defaults(whole_parser=lambda: make_parser(None, whole=True))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `mia-batch`."""
    return run_endable(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), None)
    args = make_parser(command).parse_args(arguments)
    quiet = args.quiet is True  # else nightly's number
    return run_main(lambda: int(_module(args.command).run(args)), verbose=args.verbose, quiet=quiet)


def _module(command: str) -> Any:
    return importlib.import_module(f"mia_batch.commands.{MODULES.get(command, command)}")


if __name__ == "__main__":
    sys.exit(main())
