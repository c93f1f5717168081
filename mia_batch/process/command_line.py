"""The parser of every command line: examples below its help, and the name that a slip of the pen was meant to be."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from mia_batch.errors import did_you_mean
from mia_batch.report.media import terminal

FREE = 2  # columns that argparse leaves so


class Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's, whose usage is a paragraph where there is no room for a column beside the command."""

    def _format_usage(self, *args: Any) -> str:
        usage: str = super()._format_usage(*args)
        if max(map(len, usage.splitlines())) <= self._width:
            return usage
        words = " ".join(usage.split())
        return textwrap.fill(words, self._width, subsequent_indent="    ", break_on_hyphens=False) + "\n\n"


class Parser(argparse.ArgumentParser):
    """argparse's, whose help keeps the lines of its examples, and whose errors say what may have been meant."""

    def __init__(self, *, description: str | None = None, examples: Sequence[str] = (), **options: Any) -> None:
        """Take `examples` as command lines; a comment may end one."""
        options.setdefault("formatter_class", Formatter)
        super().__init__(description=description and _filled(description), **options)
        self.show(examples)

    def show(self, examples: Sequence[str], *notes: str) -> None:
        """Put examples below the help, and notes below them."""
        parts = ["\n".join(["examples:", *(f"  {example}" for example in examples)])] if examples else []
        self.epilog = "\n\n".join([*parts, *map(_filled, notes)]) or None

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and argparse's message; an unknown option or choice with what is close to it."""
        super().error(terminal(message) + self._near(message))

    def _near(self, message: str) -> str:
        if choice := re.search(r"invalid choice: (?:'(.*)'|\"(.*)\") \(choose from (.*)\)$", message, re.DOTALL):
            return did_you_mean(choice[1] or choice[2], re.findall(r"[\w.-]+", choice[3]))
        if unknown := re.match(r"unrecognized arguments: (?:.*? )?(--[^\s=]+)", message):
            return did_you_mean(unknown[1], self._options())
        return ""

    def _options(self) -> Iterable[str]:
        """Of this parser and of its sub-commands, as far as they have been made."""
        for action in self._actions:
            yield from (option for option in action.option_strings if option.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                for sub in action.choices.values():
                    yield from sub._options()


def add_output_arguments(parser: argparse.ArgumentParser, **quiet: Any) -> None:
    """Add --quiet and --verbose, of which one may be given; `quiet` are other options of --quiet."""
    how = parser.add_mutually_exclusive_group()
    only = "only results, warnings and errors: no progress, nothing for information"
    how.add_argument("-q", "--quiet", **{"action": "store_true", "help": only, **quiet})
    how.add_argument("-v", "--verbose", action="store_true", help="log more")


def _filled(text: str) -> str:
    """The text with its paragraphs wrapped."""
    # Words stay whole, so that a path can be copied.
    width = max(shutil.get_terminal_size().columns - FREE, 11)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(wrapper.fill(" ".join(part.split())) for part in text.split("\n\n"))
