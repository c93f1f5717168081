"""How pages are made of the templates beside this file: all text in them is escaped, and nothing in it hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mia_batch.report.shown_text import shown

TEMPLATES = Path(__file__).parent / "templates"


def environment(**filters: Any) -> Environment:
    """The templates, with these filters; a name that nobody gives is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_finalize,
    )  # fmt: skip
    made.filters |= filters
    return made


def own_text(*names: str) -> Markup:
    """Style sheets or scripts of ours, one behind the other, as they are: nobody else's text is in them."""
    return Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))  # nosec B704


def _finalize(value: Any) -> Any:
    """Text that is put into a page and is not made by it shows what it holds."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
