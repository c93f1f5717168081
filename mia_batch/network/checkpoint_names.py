"""Which entry of a checkpoint is which parameter of the network: by names and shapes alone, before content is read."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_entry import TEXT, Entry, Stated, shape_words
from mia_batch.network.optimizer_state import PREFIXES, OptimizerState, Shape
from mia_batch.network.rename import Rename

log = logging.getLogger(__name__)
SHOWN = 5  # names in a message, before a count stands for the rest
RANK = re.compile(r"(?:^|[_.-])rank_?\d+(?=$|[_.-])")
MERGE = "merge the files of all ranks first (mindspore.transform_checkpoints or mindspore.unified_safetensors)"


@dataclass(frozen=True)
class Wanted:
    """A network's parameters, and how the configuration says to find them.

    Attributes:
        shapes: of each parameter, by its name.
        prefix: what the names of the entries that are meant begin with.
        rename: what those are to be called, without the prefix.
    """

    shapes: Mapping[str, Shape]
    prefix: str = ""
    rename: Rename | None = None


@dataclass(frozen=True)
class _Reading:
    """How a checkpoint is read: the network's names and the file's, and what is neither."""

    entries: Mapping[str, str] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()  # without the prefix


def find_parameters(stated: Stated, wanted: Wanted, path: Path) -> dict[str, str]:
    """The entry of each parameter of the network, by the network's names.

    Raises:
        InputError: with a line each for missing and unexpected parameters and for wrong shapes, and what to write where
            a prefix is the reason, or where the file is one rank's part of a distributed checkpoint.
    """
    where = f"{path}: model.checkpoint"
    reading = _read(stated, wanted, where)
    missing = [name for name in wanted.shapes if name not in reading.entries]
    shapes = {name: stated.entries[entry].dims for name, entry in reading.entries.items()}
    wrong = {name: dims for name, dims in shapes.items() if dims != wanted.shapes[name]}
    proposal = _proposal(stated, wanted) if missing else ""
    if proposal:
        raise InputError(f"{where}: must have the network's parameters, {proposal}")
    rules = {
        "the network's parameters, missing": missing,
        "no other parameters, unexpected": reading.unexpected,
        "the network's shapes": [
            f"{name} {shape_words(dims)} for {shape_words(wanted.shapes[name])}" for name, dims in wrong.items()
        ],
    }
    problems = [
        f"{where}: must have {rule}: {some(names)}{_how_to_leave_out(stated, names)}"
        for rule, names in rules.items() if names
    ]
    if missing or wrong:
        problems += _of_one_rank(stated, wrong, wanted.shapes, where, path)
    if problems:
        raise InputError(problems)
    if reading.beside:
        log.warning("%s: model.prefix: leaves out other parameters: %s", path, some(reading.beside))
    return dict(reading.entries)


def _how_to_leave_out(stated: Stated, names: Sequence[str]) -> str:
    """Of numbers that training may have added, and that nothing tells from a weight."""
    number = next((name for name in names if name in stated.entries and stated.entries[name].is_one_number), None)
    return f"; if {number} is no weight, write {{{number}: null}} into a model.rename file" if number else ""


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more ({len(names)} in all)" if rest > 0 else "")


def _read(stated: Stated, wanted: Wanted, where: str) -> _Reading:
    tensors = {name: entry for name, entry in stated.entries.items() if entry.kind != TEXT}
    meant = {name.removeprefix(wanted.prefix): name for name in tensors if name.startswith(wanted.prefix)}
    if not meant and tensors:
        begin = some(sorted({name.partition(".")[0] + "." for name in tensors if "." in name}))
        rule = f"model.prefix: must be what names in {where.partition(':')[0]} begin with"
        advice = _proposal(stated, wanted).partition("; ")[2]
        more = f"; {advice}" if advice.startswith("write model.prefix") else ""
        raise InputError(f"{rule}, got {wanted.prefix!r}; they begin with {begin or 'no module'}{more}")
    targets = wanted.rename.targets(meant, wanted.shapes) if wanted.rename else dict(zip(meant, meant, strict=True))
    known = {inner: target for inner, target in targets.items() if target in wanted.shapes}
    entries = {str(target): meant[inner] for inner, target in known.items()}
    state = OptimizerState(stated, _weights(tensors, wanted, entries, meant))
    strange = [
        meant[inner] for inner, target in targets.items()
        if target is not None and inner not in known and not state.has(meant[inner])
    ]
    chosen = set(meant.values())
    beside = [name for name in tensors if name not in chosen and name not in wanted.shapes and not state.has(name)]
    return _Reading({name: entries[name] for name in wanted.shapes if name in entries}, tuple(strange), tuple(beside))


def _weights(
    tensors: Mapping[str, Entry], wanted: Wanted, entries: Mapping[str, str], meant: Mapping[str, str]
) -> dict[str, Shape]:
    """Shapes of the parameters, by every name that an optimizer may know them by."""
    names = dict(wanted.shapes)
    inner = {name: key for key, name in meant.items()}
    for entry in entries.values():
        names |= {entry: tensors[entry].dims, inner[entry]: tensors[entry].dims}
    return names


def _proposal(stated: Stated, wanted: Wanted) -> str:
    """What to write where all parameters are there under one prefix, each once under two, or without one."""
    if not wanted.shapes or wanted.rename:
        return ""
    under = _prefixes(stated.entries, wanted.shapes)
    common = set.intersection(*under.values())
    chosen = sorted(common - {wanted.prefix}, key=lambda prefix: (len(prefix), prefix))
    if chosen:
        choices = " or ".join(f"model.prefix: {prefix}" for prefix in chosen)
        return f"which are all there under a prefix; write {choices}"
    if any(len(prefixes) != 1 for prefixes in under.values()):
        without = _lacking(stated.entries, wanted.shapes)
        rule = f'which are there without {without}; write {{"*": "{without}*"}} into a model.rename file'
        return rule if without else ""
    single = sorted(set.union(*under.values()))
    rules = ", ".join(f'"{prefix}*": "*"' for prefix in single)
    return f"which are there under the prefixes {', '.join(single)}; write {{{rules}}} into a model.rename file"


def _prefixes(entries: Mapping[str, Entry], shapes: Mapping[str, Shape]) -> dict[str, set[str]]:
    """For each parameter what stands before its name in the file, with its shape, where that is no optimizer's copy."""
    found: dict[str, set[str]] = {name: set() for name in shapes}
    for name, entry in entries.items():
        for dot in re.finditer(r"\.", name):
            prefix, rest = name[: dot.end()], name[dot.end() :]
            if shapes.get(rest) == entry.dims and not _is_copys(prefix):
                found[rest].add(prefix)
    return found


def _lacking(entries: Mapping[str, Entry], shapes: Mapping[str, Shape]) -> str:
    """The prefix of all the network's names that the file's lack; "" if that is not it."""
    first = next(iter(shapes))
    for dot in re.finditer(r"\.", first):
        prefix = first[: dot.end()]
        inner = {name.removeprefix(prefix): dims for name, dims in shapes.items() if name.startswith(prefix)}
        if len(inner) == len(shapes) and all(name in entries and entries[name].dims == inner[name] for name in inner):
            return prefix
    return ""


def _is_copys(prefix: str) -> bool:
    parts = {f"{part}." for part in prefix.split(".")}
    return bool((parts - {"ema."}) & PREFIXES)


def _of_one_rank(
    stated: Stated, wrong: Mapping[str, Shape], shapes: Mapping[str, Shape], where: str, path: Path
) -> list[str]:
    """The line for a file that is one rank's part of a distributed checkpoint, or may be."""
    parts = {_part(dims, shapes[name]) for name, dims in wrong.items()}
    named = next((found[0] for name in (path.stem, path.parent.name) if (found := RANK.search(name))), None)
    if stated.is_part:
        return [f"{where}: must be whole, got a file that was saved with remove_redundancy; {MERGE}"]
    if named:
        return [f"{where}: must be whole, got the part of one rank, by its path ({named.strip('_.-')}); {MERGE}"]
    if len(parts) == 1 and None not in parts:
        got = f"1/{parts.pop()} of each of these"
        return [f"{where}: must be whole, got {got}: if it is the part of one rank, {MERGE}"]
    return []


def _part(dims: Shape, shape: Shape) -> int | None:
    """How many such parts make the whole, if they do."""
    fits = len(dims) == len(shape) and all(own and whole % own == 0 for own, whole in zip(dims, shape, strict=True))
    return math.prod(shape) // math.prod(dims) if fits else None
