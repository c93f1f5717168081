"""`--set KEY=VALUE`: changes of a configuration from the command line, made before it is validated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from mia_batch.errors import InputError
from mia_batch.settings.yaml_text import parse_value

OPTION = "--set"
KEY = re.compile(r"[^\s.\[\]=]+(\[\d{1,9}\]|\.[^\s.\[\]=]+)*")
PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
BLOCKS = ("members", "nonmembers", "canaries")  # of data: one block may stand for a list of one
BLOCK_KEYS = [("data", name) for name in BLOCKS]
SHORT = {"gate": {"tutorial": {"tutorial": True}}}  # sections that a word is short for

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Change:
    """One KEY=VALUE: where it goes, and what goes there."""

    path: Where
    value: Any

    @property
    def key(self) -> str:
        """As it is written: attack.methods[0].params.C."""
        return _name(self.path)


def _name(path: Where) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read_changes(said: Sequence[str]) -> list[Change]:
    """What KEY=VALUE says, each.

    Raises:
        InputError: with a line for each that is none, has no value, or is of a key that another one gives too.
    """
    problems: list[str] = []
    changes: list[Change] = []
    for text in said:
        try:
            changes.append(_read(text))
        except InputError as error:
            problems += error.problems
    for i, change in enumerate(changes):
        for other in changes[:i]:
            shorter = min(len(change.path), len(other.path))
            if change.path[:shorter] == other.path[:shorter]:
                same = change.path == other.path
                rule = "must be given once, got it again" if same else f"must not be set beside {other.key}, got both"
                problems.append(f"{OPTION}: {change.key}: {rule}")
    if problems:
        raise InputError(problems)
    return changes


def _read(text: str) -> Change:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not KEY.fullmatch(key):
        raise InputError(f"{OPTION}: must be KEY=VALUE, such as attack.methods[0].params.C=[1,10], got {text!r}")
    path = tuple(int(number) if number else name for number, name in PART.findall(key))
    return Change(path, parse_value(value, f"{OPTION}: {key}"))


def make_changes(raw: dict[str, Any], changes: Sequence[Change]) -> None:
    """Put the changes into a configuration as YAML gives it.

    Raises:
        InputError: with a line for each that has no place there.
    """
    problems: list[str] = []
    for change in changes:
        try:
            _put(raw, change)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _put(raw: dict[str, Any], change: Change) -> None:
    *parents, last = change.path
    place: Any = raw  # read for this alone
    for depth, part in enumerate(parents):
        place = _entered(place, part, change, depth)
    if not isinstance(last, int):
        _mapping(place, change, len(parents))[last] = change.value
    else:
        _list(place, last, change, len(parents))[last] = change.value


def _entered(place: Any, part: str | int, change: Change, depth: int) -> Any:
    """What lies at `part` of `place`, as a copy of its own there: YAML's `*name` has one object in two places."""
    holder: Any = _list(place, part, change, depth) if isinstance(part, int) else _mapping(place, change, depth)
    found = holder[part] if isinstance(part, int) else holder.get(part)
    here, after = change.path[: depth + 1], change.path[depth + 1]
    if isinstance(found, str) and len(here) == 1:
        found = SHORT.get(str(part), {}).get(found, found)
    if isinstance(found, dict) and isinstance(after, int) and here in BLOCK_KEYS:
        found = [found]
    if found is None and not isinstance(after, int):
        found = {}
    holder[part] = copy(found)
    return holder[part]


def _mapping(place: Any, change: Change, depth: int) -> dict[Any, Any]:
    if not isinstance(place, dict):
        raise _refused(change, depth, "a mapping", place)
    return place


def _list(place: Any, number: int, change: Change, depth: int) -> list[Any]:
    if not isinstance(place, list):
        raise _refused(change, depth, "a list", place)
    if number >= len(place):
        there = f"from 0 to {len(place) - 1}" if place else "of a list that is not empty"
        raise InputError(f"{OPTION}: {change.key}: must be a place {there}, got {number}")
    return place


def _refused(change: Change, depth: int, kind: str, found: Any) -> InputError:
    shown = repr(found) if len(repr(found)) <= 80 else f"{repr(found)[:77]}..."
    return InputError(f"{OPTION}: {change.key}: {_name(change.path[:depth])} must be {kind}, got {shown}")
