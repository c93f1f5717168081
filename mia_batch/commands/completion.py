"""`mia-batch completion SHELL`: what makes a shell complete commands, options, choices and file names."""

from __future__ import annotations

import argparse

from mia_batch.process.exit_codes import OK

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = (
    "mia-batch completion bash > ~/.mia-batch.bash   # which ~/.bashrc sources",
    "mia-batch completion zsh > ~/.zfunc/_mia-batch  # a folder of $fpath",
    "mia-batch completion fish > ~/.config/fish/completions/mia-batch.fish",
)
# What an argument is, by the name that its help has for it.
FILES = ("FILE", "CONFIG", "SITE")
FOLDERS = ("DIR", "FOLDER", "RUN", "RUNS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SHELL."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the script, which knows every command; when it completes it starts no Python."""
    import shtab

    parser = args.whole_parser()
    name_files(parser)
    print(shtab.complete(parser, args.shell))
    return OK


def name_files(parser: argparse.ArgumentParser) -> None:
    """Say of each argument of a parser, and of its commands, whether it is a file or a folder."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                name_files(sub)
        elif action.choices:
            continue
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
