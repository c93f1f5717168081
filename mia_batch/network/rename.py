"""`model.rename`: a file that says which of a network's parameters each entry of a checkpoint is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_batch import json_text
from mia_batch.errors import InputError, one_line
from mia_batch.settings.loading import read_yaml
from mia_batch.settings.yaml_text import MOST_BYTES

STAR = "*"
MAX_PATTERNS = 100
MAX_READINGS = 1000  # names that the patterns together make of one


@dataclass(frozen=True)
class Rename:
    """Names of the file's entries, and what they are to be called.

    Attributes:
        path: of the file that says it.
        exact: an entry's name to the network's; None leaves the entry out.
        patterns: the same with one `*` on both sides, each with the names that it may become.
    """

    path: Path
    exact: Mapping[str, str | None]
    patterns: tuple[tuple[str, tuple[str | None, ...]], ...] = ()

    def targets(self, names: Collection[str], wanted: Collection[str]) -> dict[str, str | None]:
        """What each entry is to be called; an entry that no rule fits keeps its name.

        Of the names that patterns make of one, also one after the other, the one that the network has is taken.

        Raises:
            InputError: a line for each name that is not used, not the network's, given twice, or not certain.
        """
        have, known = set(names), set(wanted)
        problems = [f"{name}: must be an entry of the checkpoint" for name in self.exact if name not in have]
        problems += [
            f"{name}: must become a parameter of the network, got {target}"
            for name, target in self.exact.items() if target is not None and target not in known
        ]
        found: dict[str, str | None] = {}
        for name in names:
            fits = [self.exact[name]] if name in self.exact else self._fitting(name, known)
            if len(fits) > 1:
                choices = " or ".join(str(fit) for fit in fits)
                problems.append(f"{name}: must become one parameter, could be {choices}; name it without {STAR}")
            found[name] = fits[0]
        problems += _twice(found)
        if problems:
            raise InputError(f"{self.path}: model.rename: {line}" for line in problems)
        return found

    def _fitting(self, name: str, known: set[str]) -> list[str | None]:
        readings = {name: None}  # ordered, each once
        for pattern, targets in self.patterns:
            for reading in list(readings):
                part = _part(reading, pattern)
                if part is not None and None in targets:
                    return [None]
                if part is not None:
                    readings |= {str(target).replace(STAR, part): None for target in targets}
            if len(readings) > MAX_READINGS:
                raise InputError(f"{self.path}: model.rename: {name}: must become one parameter, could be thousands")
        return [reading for reading in readings if reading in known] or [name]


def _part(name: str, pattern: str) -> str | None:
    """What the star of a pattern stands for in a name; None where it does not fit."""
    before, after = pattern.split(STAR)
    fits = len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def _twice(found: Mapping[str, str | None]) -> list[str]:
    sources: dict[str, list[str]] = {}
    for name, target in found.items():
        if target is not None:
            sources.setdefault(target, []).append(name)
    return [
        f"{target}: must come from one entry, got {' and '.join(names[:5])}"
        for target, names in sources.items() if len(names) > 1
    ]


def read_rename(path: Path) -> Rename:
    """Read a mapping from YAML, or from JSON if the name ends in .json.

    Raises:
        InputError: with a line for each entry that is no name, or no rule.
    """
    raw = _read(path)
    problems = [line for name, target in raw.items() if (line := _problem(name, target))]
    patterns = tuple((name, _listed(target)) for name, target in raw.items() if STAR in str(name))
    exact = {name: target for name, target in raw.items() if STAR not in str(name)}
    if len(patterns) > MAX_PATTERNS:
        problems.append(f"must have at most {MAX_PATTERNS} names with {STAR}, got {len(patterns)}")
    if problems:
        raise InputError(f"{path}: model.rename: {line}" for line in problems)
    return Rename(path, exact, patterns)


def _listed(target: Any) -> tuple[Any, ...]:
    return tuple(target) if isinstance(target, list) else (target,)


def _problem(name: Any, target: Any) -> str | None:
    """What is wrong with one rule; values are not shown, as aliases can make them endless."""
    if not isinstance(name, str) or not name:
        return f"{name!s:.80}: must be text, the name of an entry"
    stars, several = name.count(STAR), isinstance(target, list)
    if stars > 1:
        return f"{name:.80}: must have one {STAR} at most, got {stars}"
    if several and not (stars and target):
        return f"{name:.80}: must become one parameter; a list of names goes with {STAR}"
    for each in _listed(target):
        if not (isinstance(each, str) and each) and (each is not None or several):
            return f"{name:.80}: must become a parameter's name, or null to leave it out, got a {type(each).__name__}"
        if isinstance(each, str) and each.count(STAR) != stars:
            return f"{name:.80}: must have as many {STAR} as what it becomes, got {each:.80}"
    return None


def _read(path: Path) -> dict[Any, Any]:
    try:
        if path.suffix != ".json":
            return read_yaml(path, "model.rename", ("names of entries",))
        raw = json_text.read(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: model.rename: must be a file that can be read, got: {error.strerror}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: model.rename: must be JSON, got {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: model.rename: must be a mapping of names, got {type(raw).__name__}")
    return raw
