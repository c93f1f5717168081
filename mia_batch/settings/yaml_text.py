"""YAML as users of this product write it: 1e-4 is a number, and no key is given twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from mia_batch.errors import InputError, one_line


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses a key given twice."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be text", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse(text: str, where: str) -> Any:
    """What a text of YAML says.

    Args:
        text: one document.
        where: it comes from, for messages.

    Raises:
        InputError: it is no YAML, or holds values that cannot be read.
    """
    with _explained(where):
        return yaml.load(text, Loader)


def parse_value(text: str, where: str) -> Any:
    """What a text says that is one value and nothing else: not empty, and no comment behind it.

    Raises:
        InputError: as `parse`, or it is more or less than that.
    """
    with _explained(where):
        node = yaml.compose(text, Loader)
    if node is None:
        raise InputError(f"{where}: must have a value, such as null or '', got {text!r}")
    if text[: node.end_mark.index].rstrip() != text.rstrip():
        raise InputError(f"{where}: must be one value of YAML, in quotes if it has a #, got {text!r}")
    return parse(text, where)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{where}: {place}YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:  # a date or a number that is none, or nesting without end
        raise InputError(f"{where}: YAML: must hold values that can be read, got {one_line(error)}") from error
