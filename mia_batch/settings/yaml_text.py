"""YAML as users of this product write it: 1e-4 is a number, no key is given twice, and it says no more than it shows.

An alias stands for what it names as often as it is written, so that a few lines of aliases of aliases can mean more
than fits in memory: what a text says is counted with them, before any of it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from mia_batch.errors import InputError, one_line

MOST_BYTES = 1 << 20  # of a file; to read that many takes seconds
MOST_VALUES = 50_000  # names, values, lists and mappings, those of an alias each time
DEEPEST = 32  # lists and mappings within each other
LARGEST = 1 << 64  # of whole numbers, on either side of 0
MOST_DIGITS = 100  # of one, in any base and with underscores
OTHER_BASE = re.compile(r"[-+]?(0[\d_]|[\d_]+:)")  # numbers to base 8 and 60
NAMES = "tag:yaml.org,2002:"
TEXT, KEY_OF_MERGE = f"{NAMES}str", f"{NAMES}merge"
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # no path can have the one, no file in UTF-8 the other
TAGGED = {f"{NAMES}float": (f"{NAMES}int", f"{NAMES}float")}  # what may stand behind a tag beside its own


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, refuses a key given twice, and counts before it makes anything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.n_values = self.depth = 0
        self.counts: dict[int, int] = {}  # of what a node says, by its id; of one that is not whole yet none

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, if it and what it names are within the limits."""
        event, alias = self.peek_event(), self.check_event(yaml.AliasEvent)
        before = self.n_values + 1
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refused(f"must have at most {DEEPEST} lists and mappings within each other", event)
        self.n_values += 1
        node = super().compose_node(parent, index)
        if alias:
            if id(node) not in self.counts:
                raise _refused(f"*{event.anchor} must not be within what it names", event)
            self.n_values += self.counts[id(node)]
        if self.n_values > MOST_VALUES:
            raise _refused(f"must have at most {MOST_VALUES} values, with what its aliases stand for", event)
        self.counts[id(node)] = self.n_values - before
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Text that can be written to a file, and is of the type that its tag names."""
        event = self.peek_event()
        if found := NO_TEXT.search(event.value):
            raise _refused(f"must be text without {ascii(found[0])[1:-1]}", event)
        node = super().compose_scalar_node(anchor)
        self._check_tag(event, self.resolve(yaml.ScalarNode, event.value, (True, False)))
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        """A list."""
        self._check_tag(self.peek_event(), self.DEFAULT_SEQUENCE_TAG)
        return super().compose_sequence_node(anchor)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, whose names are text and each there once."""
        event = self.peek_event()
        self._check_tag(event, self.DEFAULT_MAPPING_TAG)
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be text", key)
            name = key.value if key.tag in (TEXT, KEY_OF_MERGE) else str(self.construct_object(key))
            if name in seen:  # yes and true are one
                raise _refused(f"key {key.value[:80]!r} is given twice", key)
            seen.add(name)
        return node

    def _check_tag(self, event: Any, meant: str) -> None:
        """A tag may say what its value is anyhow, or of a single value that it is text."""
        tag = event.tag
        is_text = tag == TEXT and isinstance(event, yaml.ScalarEvent)
        if tag in (None, "!") or is_text or meant in TAGGED.get(tag, (tag,)):
            return
        raise _refused(f"must have no tag, or that of its value, got {tag.replace(NAMES, '!!')[:80]}", event)


def _refused(rule: str, place: Any) -> ConstructorError:
    return ConstructorError(None, None, rule, place.start_mark)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    _refuse_other_base(node)
    number = LARGEST if len(node.value) > MOST_DIGITS else yaml.SafeLoader.construct_yaml_int(loader, node)
    if abs(number) >= LARGEST:
        raise _refused(f"must be a whole number below 2**64, got {node.value[:40]}", node)
    return int(number)


def _fraction(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    _refuse_other_base(node)
    return float(yaml.SafeLoader.construct_yaml_float(loader, node))


def _refuse_other_base(node: yaml.ScalarNode) -> None:
    """YAML 1.1 reads 010 as 8 and 1:30 as 90, its version 1.2 and people do not."""
    if OTHER_BASE.match(node.value):
        rule = "must be a number without a 0 before it or a colon, or text in quotes"
        raise _refused(f"{rule}, got {node.value[:40]}", node)


Loader.add_implicit_resolver(
    f"{NAMES}float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
Loader.add_constructor(f"{NAMES}int", _whole)
Loader.add_constructor(f"{NAMES}float", _fraction)


def parse(text: str, where: str) -> Any:
    """What a text of YAML says.

    Args:
        text: one document.
        where: it comes from, for messages.

    Raises:
        InputError: it is no YAML, or holds values that cannot be read.
    """
    with _explained(where):
        return yaml.load(text, Loader)  # nosec B506


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
