"""Outputs of any framework, from files: who is a member, labels and the like as arrays, the outputs block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.data.formats import open_table
from mia_batch.data.output_columns import SINGLE, USUAL, Chosen, choose, refuse_unused
from mia_batch.data.repeated import first_repeated
from mia_batch.data.tables import MOST_TEXT_BYTES, TEXT, Table, printable
from mia_batch.errors import InputError
from mia_batch.files import Between
from mia_batch.inputs import NO_GROUP
from mia_batch.settings.outputs import SIDES, OutputsConfig

MOST_LABELS = 2**31 - 1
MOST_SLICES = 1000  # values of one column
WORDS = {"0": 0, "1": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class ImportedSamples:
    """What is known of the samples beside their outputs, in the order of the files: (n_samples,) each.

    Attributes:
        member: 1 member, 0 non-member.
        label: true classes; None where they are not known.
        group: number of each sample's group, NO_GROUP without one; None where none is declared.
        group_name: its name, in UTF-8; None likewise.
        sample_id: a name each, in UTF-8; None where there are none.
        slices: by name of the column the number of each sample's value, and the values.
    """

    member: NDArray[np.int8]
    label: NDArray[np.int32] | None = None
    group: NDArray[np.int64] | None = None
    group_name: NDArray[np.bytes_] | None = None
    sample_id: NDArray[np.bytes_] | None = None
    slices: Mapping[str, tuple[NDArray[np.int32], tuple[str, ...]]] = field(default_factory=dict)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Where each sample goes in features.h5, which has members first: shape (n_samples,)."""
        rows = np.empty(len(self.member), dtype=np.int64)
        first = 0
        for side in (1, 0):
            own = np.flatnonzero(self.member == side)
            rows[own] = np.arange(first, first + len(own))
            first += len(own)
        return rows


def refuse_one_file(data: OutputsConfig, marks: Mapping[str, Any], *, content: bool = False) -> None:
    """Refuse one file in two places: two sides of it would have nothing to tell apart. Labels may be the same.

    Args:
        data: the section.
        marks: what two fields of one file share, by field; None of a file without any.
        content: the marks are of what is in the files. Different things of a side may be equal.

    Raises:
        InputError: with a line for each file that is there again.
    """
    columns = data.columns
    beside = {name for role in SINGLE for name in (*USUAL[role], getattr(columns, role))} | set(columns.slices)
    files = [(side, part, file) for side, parts in data.by_side().items() for part, file in parts.items()]
    problems = []
    for place, (side, part, file) in enumerate(files):
        field = data.field(side, part)
        for other_side, other_part, _ in files[:place]:
            other = data.field(other_side, other_part)
            if marks[field] is None or marks[field] != marks[other]:
                continue
            if (other_side == side and content) or (other_side != side and {part, other_part} <= beside):
                continue
            got = "one with the same content" if content else "the same"
            problems.append(f"{field}: must be another file than {other}, got {got}: {file}")
            break
    if problems:
        raise InputError(problems)


def _place(file: Path) -> tuple[int, int] | None:
    """What a file is by all its names; None where there is none, which is said where it is opened."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class Outputs:
    """The files of a configuration, opened: nothing but what they say of themselves has been read."""

    def __init__(self, data: OutputsConfig) -> None:
        """Open the files and find the columns.

        Raises:
            InputError: with a line for each file, or that the files disagree.
        """
        self.data = data
        refuse_one_file(data, {field: _place(file) for field, file in data.output_files().items()})
        problems: list[str] = []
        self._tables: dict[str, tuple[Table, Chosen]] = {}
        for side, parts in data.by_side().items():
            try:
                table = open_table(parts)
                chosen = choose(table, data.columns)
                if "" not in parts:
                    refuse_unused(table, chosen, {part: data.field(side, part) for part in parts}, data.columns)
                self._tables[side] = table, chosen
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        self._check_alike()

    def _check_alike(self) -> None:
        (first, chosen), *others = self._tables.values()
        if not others and "member" not in chosen.single:
            rule = "must say who is a member, in a column member or the one that data.columns.member names"
            raise InputError(f"{first.name}: {rule}; or give members and non-members as two files")
        for table, other in others:
            for what in ("kind", "width"):
                ours, theirs = getattr(chosen, what), getattr(other, what)
                if ours != theirs:
                    name = "outputs" if what == "kind" else f"columns of {chosen.kind}"
                    raise InputError(f"{table.name}: {name}: must be as in {first.name}, {ours}, got {theirs}")
            for role in sorted((chosen.single.keys() ^ other.single.keys()) - {"member"}):
                where = table if role in other.single else first
                raise InputError(f"{where.name}: has {role}, which the other file has not: both or none must have it")
        if chosen.kind != "loss" and "label" not in chosen.single:
            rule = "must have true classes, in a column label or the one that data.columns.label names"
            raise InputError(f"{first.name}: {rule}; only losses can do without")

    @property
    def kind(self) -> str:
        """logits, probabilities or loss."""
        return next(iter(self._tables.values()))[1].kind

    @property
    def n_classes(self) -> int | None:
        """Columns of the logits; None for losses."""
        return next(iter(self._tables.values()))[1].n_classes

    def describe(self) -> str:
        """Which columns are taken for what, for a log."""
        chosen = next(iter(self._tables.values()))[1]
        names = ", ".join(f"{role} from {printable(name)}" for role, name in chosen.single.items())
        return f"{chosen.kind} ({chosen.width} a sample)" + (f", {names}" if names else "")

    def read_samples(self, between: Between = None) -> ImportedSamples:
        """Everything but the outputs.

        Args:
            between: called after each block.

        Raises:
            InputError: with the file, the column and the row of the first value that cannot be.
        """
        groups, slices = _NameCodes(), {name: _NameCodes(MOST_SLICES) for name in self.data.columns.slices}
        parts = []
        for side, (table, chosen) in self._tables.items():
            for block in _SampleReader(table, chosen, side, groups, slices).blocks():
                parts.append(block)
                if between:
                    between()
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        member = columns["member"]
        for value, word in ((1, "members"), (0, "non-members")):
            if not (member == value).any():
                names = ", ".join(table.name for table, _ in self._tables.values())
                raise InputError(f"{names}: must have members and non-members, got no {word}")
        self._check_ids(columns.get("sample_id"))
        return ImportedSamples(
            **{name: columns.get(name) for name in ("label", "group", "group_name", "sample_id")}, member=member,
            slices={name: (columns[f"slices/{name}"], numbers.names) for name, numbers in slices.items()},
        )  # fmt: skip

    def _check_ids(self, found: NDArray[np.bytes_] | None) -> None:
        repeated = None if found is None else first_repeated(found)
        if found is not None and repeated is not None:
            name = printable(found[repeated].decode("utf-8", "replace"))
            names = ", ".join(table.name for table, _ in self._tables.values())
            raise InputError(f"{names}: sample_id: must be another for each sample, got {name!r} twice")

    def read_outputs(self, scratch: Path | None = None) -> Iterator[NDArray[Any]]:
        """Logits (rows, n_classes) float32, or losses (rows,) float64, block by block in the order of the files.

        Args:
            scratch: the folder for a copy of what cannot be read row by row; None for the system's.

        Raises:
            InputError: with the file, the kind and the row of the first value that cannot be.
        """
        for table, chosen in self._tables.values():
            first = 0
            for block in table.numbers(chosen.outputs, scratch):
                yield _BlockChecker(table, chosen, first).outputs(block)
                first += len(block)


@dataclass(frozen=True)
class _BlockChecker:
    """What is asked of a block of outputs whose first row has this number."""

    table: Table
    chosen: Chosen
    first: int

    def outputs(self, block: NDArray[Any]) -> NDArray[Any]:
        finite = np.isfinite(block)
        self._refuse(~finite.all(axis=1), block, "must be finite", lambda values: values[~np.isfinite(values)][0])
        make: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
            "loss": self._losses, "probabilities": self._of_probabilities, "logits": self._logits,
        }  # fmt: skip
        return make[self.chosen.kind](block)

    def _losses(self, block: NDArray[Any]) -> NDArray[np.float64]:
        self._refuse(block[:, 0] < 0, block, "must be at least 0", np.min)
        return block[:, 0].astype(np.float64)

    def _logits(self, block: NDArray[Any]) -> NDArray[np.float32]:
        high = abs(block).max(axis=1) > np.finfo(np.float32).max
        self._refuse(high, block, "must be in the range of float32", lambda values: values[np.argmax(abs(values))])
        logits = block.astype(np.float32)
        return signals.two_classes(logits, probabilities=False) if self.chosen.width == 1 else logits

    def _of_probabilities(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """In float64 whatever their type, so that the same numbers give the same logits from every kind of file."""
        p = block.astype(np.float64)
        self._refuse((p < 0).any(axis=1), block, "must be at least 0", np.min)
        if self.chosen.width == 1:
            self._refuse(p[:, 0] > 1, block, "must be at most 1", np.max)
            p = signals.two_classes(p, probabilities=True)
        self._refuse(abs(p.sum(axis=1) - 1) > signals.SUM_TOLERANCE, p, "must sum to 1", np.sum)
        return signals.float32_logits(p)

    def _refuse(
        self, wrong: NDArray[np.bool_], block: NDArray[Any], rule: str, got: Callable[[NDArray[Any]], float]
    ) -> None:
        """Refuse the first wrong row; `got` says what of its values is to be shown."""
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        value = got(block[row])
        where = f"{self.table.name}: {self.chosen.kind}: {self.table.where(self.first + row)}"
        raise InputError(f"{where}: {rule}, got {float(value):.6g}")


@dataclass(frozen=True)
class _SampleReader:
    """Reads everything but the outputs of one table."""

    table: Table
    chosen: Chosen
    side: str
    groups: _NameCodes
    slices: Mapping[str, _NameCodes]

    def blocks(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Checked columns, block by block."""
        first, names = 0, self.chosen.others or self.chosen.outputs[:1]  # which says at least how many rows there are
        for found in self.table.read(names):
            block = dict(zip(names, found, strict=True))
            yield self._block(block, first, len(found[0]))
            first += len(found[0])
        if not first:
            raise InputError(f"{self.table.name}: must have rows, got none")

    def _block(self, block: Mapping[str, NDArray[Any]], first: int, n: int) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {"member": np.full(n, self.side == SIDES[0], dtype=np.int8)}
        single = self.chosen.single
        if name := single.get("member"):
            columns["member"] = self._members(block[name], name, first)
        if name := single.get("label"):
            columns["label"] = self._labels(block[name], name, first)
        if name := single.get("group"):
            texts = self._texts(block[name], name, first)
            columns["group"] = numbers = self.groups.of(texts).astype(np.int64)
            columns["group_name"] = _encoded(np.where(numbers == NO_GROUP, "", texts))
        if name := single.get("sample_id"):
            columns["sample_id"] = self._ids(block[name], name, first)
        for name, values in self.slices.items():
            texts = self._texts(block[name], name, first)
            columns[f"slices/{name}"] = values.of(texts).astype(np.int32)
            if values.full:
                raise InputError(f"{self._at(name)}: must have at most {MOST_SLICES} different values, got more")
        return columns

    def _at(self, name: str) -> str:
        return f"{self.table.name}: {printable(name)}".removesuffix(": ")

    def _refuse(self, wrong: NDArray[np.bool_], found: NDArray[Any], name: str, first: int, rule: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            value = found[row].item()
            raise InputError(f"{self._at(name)}: {self.table.where(first + row)}: {rule}, got {repr(value)[:60]}")

    def _members(self, found: NDArray[Any], name: str, first: int) -> NDArray[np.int8]:
        rule = "must be 0 or 1, or false or true"
        if found.dtype.kind in TEXT:
            words = np.char.lower(_decoded(found))
            known = np.isin(words, list(WORDS))
            self._refuse(~known, found, name, first, rule)
            member = np.isin(words, [word for word, value in WORDS.items() if value]).astype(np.int8)
        else:
            self._refuse(~np.isin(found, (0, 1)), found, name, first, rule)
            member = found.astype(np.int8)
        if self.side:
            meant = int(self.side == SIDES[0])
            self._refuse(member != meant, found, name, first, f"must be {meant} in the file of {self.side}")
        return member

    def _labels(self, found: NDArray[Any], name: str, first: int) -> NDArray[np.int32]:
        most = (self.chosen.n_classes or MOST_LABELS + 1) - 1
        if found.dtype.kind in TEXT:
            texts = _decoded(found)
            digits = np.char.isdigit(texts) & (np.char.str_len(texts) < 19) & _ascii(texts)
            self._refuse(~digits, found, name, first, f"must be an integer in 0..{most}")
            numbers = texts.astype(np.int64)
        else:
            if found.dtype.kind not in "iu":
                raise InputError(f"{self._at(name)}: must be integers, got {found.dtype}")
            numbers = found
        self._refuse((numbers < 0) | (numbers > most), found, name, first, f"must be in 0..{most}")
        return numbers.astype(np.int32)

    def _texts(self, found: NDArray[Any], name: str, first: int) -> NDArray[np.str_]:
        """Whatever names something, as text: 5 and "5" are one name."""
        if found.dtype.kind == "f":
            raise InputError(f"{self._at(name)}: must be integers or text, got {found.dtype}")
        texts = _decoded(found) if found.dtype.kind in TEXT else found.astype(np.str_)
        self._refuse(texts == "", found, name, first, "must be there")
        if texts.dtype.itemsize > MOST_TEXT_BYTES:
            wrong = np.char.str_len(_encoded(texts)) > MOST_TEXT_BYTES
            self._refuse(wrong, found, name, first, f"must have at most {MOST_TEXT_BYTES} bytes")
        return texts

    def _ids(self, found: NDArray[Any], name: str, first: int) -> NDArray[np.bytes_]:
        return _encoded(self._texts(found, name, first))


def _decoded(found: NDArray[Any]) -> NDArray[np.str_]:
    return np.char.decode(found, "utf-8", "replace") if found.dtype.kind == "S" else found


def _encoded(texts: NDArray[np.str_]) -> NDArray[np.bytes_]:
    return np.char.encode(texts, "utf-8", "surrogateescape")


def _ascii(texts: NDArray[np.str_]) -> NDArray[np.bool_]:
    return np.array([text.isascii() for text in texts], dtype=bool)


class _NameCodes:
    """A number for each name, from 0 in order of first appearance; that of "-1" is NO_GROUP.

    It holds about 130 bytes for each different name: 10,000,000 groups take 1.3 GB.
    """

    def __init__(self, most: int | None = None) -> None:
        self._codes: dict[str, int] = {} if most else {str(NO_GROUP): NO_GROUP}
        self._start, self._most = len(self._codes), most

    @property
    def full(self) -> bool:
        """Whether there are more than `most`."""
        return self._most is not None and len(self._codes) > self._most

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return tuple(self._codes)[self._start :]

    def of(self, texts: NDArray[np.str_]) -> NDArray[np.int64]:
        """The number of each, (n,)."""
        known, first, which = np.unique(texts, return_index=True, return_inverse=True)
        for name in known[np.argsort(first, kind="stable")].tolist():
            self._codes.setdefault(name, len(self._codes) - self._start)
        return np.array([self._codes[name] for name in known.tolist()], dtype=np.int64)[which]

