"""Logging, set up once by each entry point."""

from __future__ import annotations

import logging
import sys


def set_up_logging(prefix: str = "", *, verbose: bool = False) -> None:
    """Log to standard error, one line a record, `prefix` (stage, rank) first."""
    handler = logging.StreamHandler(sys.stderr)
    lead = f"{prefix} " if prefix else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s {lead}%(levelname).1s %(message)s", "%H:%M:%S"))
    package = logging.getLogger("mia_batch")
    package.handlers[:] = [handler]
    package.setLevel(logging.DEBUG if verbose else logging.INFO)
    package.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers[:] = [handler]
