"""`mia-batch schema`: the JSON schemas of what users write and of what they get."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mia_batch.process.exit_codes import OK

EXAMPLES = (
    "mia-batch schema > schema.json",
    "mia-batch schema --site > site.schema.json",
    "mia-batch schema --summary > summary.schema.json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--site or --summary."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--site", action="store_true", help="of a site file instead of a config")
    which.add_argument("--summary", action="store_true", help="of summary.json instead of a config")


def run(args: argparse.Namespace) -> int:
    """Print one schema."""
    print(text_of(_schema(args)), end="")
    return OK


def text_of(schema: dict[str, Any]) -> str:
    """A schema as its file has it."""
    return json.dumps(schema, indent=1) + "\n"


def _schema(args: argparse.Namespace) -> dict[str, Any]:
    if args.site:
        from mia_batch.scheduler.site import site_schema

        return site_schema()
    if args.summary:
        from mia_batch.report.summary import json_schema

        return json_schema()
    from mia_batch.settings.json_schema import config_schema

    return config_schema()
