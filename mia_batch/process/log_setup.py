"""Logging, set up once by each entry point."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from mia_batch.process.bars import BARS
from mia_batch.report.media import terminal

LOGGERS = ("mia_batch", "py.warnings")


class Lines(logging.Formatter):
    """A record as lines in which the names of others move no cursor and colour nothing."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, a traceback below it."""
        return "\n".join(map(terminal, super().format(record).split("\n")))


class AboveBars(logging.StreamHandler[TextIO]):
    """Writes to a stream on whose terminal bars may be."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        with BARS.above():
            super().emit(record)


def set_up_logging(prefix: str = "", *, verbose: bool = False, quiet: bool = False) -> None:
    """Log to standard error, one line a record, `prefix` (stage, rank) first; with `quiet` warnings and errors alone.
    """
    handler = AboveBars(sys.stderr)
    lead = f"{prefix} ".replace("%", "%%") if prefix else ""
    handler.setFormatter(Lines(f"%(asctime)s {lead}%(levelname).1s %(message)s", "%H:%M:%S"))
    package, warned = map(logging.getLogger, LOGGERS)
    package.handlers[:] = [handler]
    package.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    package.propagate = False
    logging.captureWarnings(True)
    warned.handlers[:] = [handler]
