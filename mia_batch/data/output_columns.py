"""Which columns of a file are the outputs, the labels and so on: as the configuration names them, or by usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mia_batch.data.tables import NUMBERS, TEXT, StoredColumn, Table, check_kind, listed_names, printable
from mia_batch.errors import InputError, did_you_mean
from mia_batch.settings.outputs import KINDS, OutputColumns

USUAL = {
    "logits": ("logits", "logit"), "probabilities": ("probabilities", "probability"), "loss": ("loss", "losses"),
    "label": ("label", "labels"), "member": ("member",), "group": ("group",), "sample_id": ("sample_id",),
}  # fmt: skip
SINGLE = ("label", "member", "group", "sample_id")  # a column each
NAMES = "iub" + TEXT, "integers or text"
# Kinds of numpy's types that a column may have, and what a message calls them; reading finds which values are none.
OF_ROLE = {
    "label": (NUMBERS, "integers"), "member": (NUMBERS + TEXT, "0 or 1, or false or true"), "group": NAMES,
    "sample_id": NAMES, "slices": NAMES,
}  # fmt: skip
ONLY = ""  # the name of a .npy's one array


@dataclass(frozen=True)
class Chosen:
    """Which columns of one table are taken for what.

    Attributes:
        kind: what the outputs are, "logits", "probabilities" or "loss".
        outputs: the columns whose values, side by side, make a matrix of outputs, (n_rows, width).
        width: how many values of outputs each row has.
        single: for each role of `SINGLE` that the table fills, the name of its column.
        slices: the columns whose values name subsets of the samples.
    """

    kind: str
    outputs: tuple[str, ...]
    width: int
    single: Mapping[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int | None:
        """Columns of the logits: one column is of two classes. None for losses."""
        return None if self.kind == "loss" else max(2, self.width)

    @property
    def others(self) -> tuple[str, ...]:
        """All names but those of the outputs."""
        return tuple(dict.fromkeys((*self.single.values(), *self.slices)))


def choose(table: Table, wanted: OutputColumns) -> Chosen:
    """Find the columns.

    Raises:
        InputError: a column that is not there, no outputs, numbered columns with a gap, or columns of no use.
    """
    kind, outputs = _outputs(table, wanted)
    single = {role: name for role in SINGLE if (name := _single(table, role, getattr(wanted, role)))}
    missing = [name for name in wanted.slices if name not in table.columns]
    if missing:
        raise _not_there(table, "slices", missing[0])
    widths = [1 if (width := table.columns[name].width) is None else width for name in outputs]
    found = Chosen(kind, outputs, sum(widths), single, wanted.slices)
    _refuse_two_roles(table, found)
    _check(table, found)
    return found


def _outputs(table: Table, wanted: OutputColumns) -> tuple[str, tuple[str, ...]]:
    """The kind, and the columns."""
    for kind in KINDS:
        named = getattr(wanted, kind)
        if named is not None and tuple(table.columns) == (ONLY,):
            return kind, (ONLY,)
        if isinstance(named, str):
            if not (outputs := _named_or_numbered(table, named)):
                raise _not_there(table, kind, named)
            return kind, outputs
        if named is not None:
            if missing := [name for name in named if name not in table.columns]:
                raise _not_there(table, kind, missing[0])
            return kind, named
    for kind in KINDS:
        for name in USUAL[kind]:
            if outputs := _named_or_numbered(table, name):
                return kind, outputs
    if tuple(table.columns) == (ONLY,):
        raise InputError(f"{table.name}: data.columns: must say whether a .npy holds {' or '.join(KINDS)}")
    raise InputError(f"{table.name}: must have {', '.join(KINDS)}, or data.columns must name them; it has "
                     f"{listed_names(table.columns)}")  # fmt: skip


def _named_or_numbered(table: Table, name: str) -> tuple[str, ...]:
    """The column of this name, else those whose names are this and a number from 0 on; none if there are none."""
    if name in table.columns:
        return (name,)
    pattern = re.compile(rf"{re.escape(name)}_?(\d{{1,9}})")
    numbered: dict[int, str] = {}
    for column in table.columns:
        if not (found := pattern.fullmatch(column)):
            continue
        if (number := int(found[1])) in numbered:
            both = f"{printable(numbered[number])} and {printable(column)}"
            raise InputError(f"{table.name}: must have one column for each class, got {both} for number {number}")
        numbered[number] = column
    if not numbered:
        return ()
    missing = next((number for number in range(len(numbered)) if number not in numbered), None)
    if missing is not None:
        last = printable(numbered[max(numbered)])
        raise InputError(f"{table.name}: must have a column for each class up to {last}, number {missing} is missing")
    return tuple(numbered[number] for number in range(len(numbered)))


def _single(table: Table, role: str, name: str | None) -> str | None:
    if name is not None and name not in table.columns:
        raise _not_there(table, role, name)
    if name is None:
        usual = [usual for usual in USUAL[role] if usual in table.columns]
        if len(usual) > 1:
            raise InputError(f"{table.name}: data.columns.{role}: must say which is meant, got {' and '.join(usual)}")
        return usual[0] if usual else None
    return name


def _not_there(table: Table, role: str, name: str) -> InputError:
    return InputError(
        f"{table.name}: data.columns.{role}: must be there, got {printable(name)}; it has {listed_names(table.columns)}"
    )


def _refuse_two_roles(table: Table, chosen: Chosen) -> None:
    """A column that is taken twice. Subsets may be of labels or groups."""
    taken: dict[str, str] = {}
    for role, name in (*((chosen.kind, name) for name in chosen.outputs), *chosen.single.items()):
        if name in taken:
            rule = f"must be another column than that of {taken[name]}"
            rule = "must name each column once" if taken[name] == role else rule
            raise InputError(f"{table.name}: data.columns.{role}: {rule}, got {printable(name)} twice")
        taken[name] = role
    for name in chosen.slices:
        if name in chosen.outputs:
            rule = f"must be another column than that of {chosen.kind}"
            raise InputError(f"{table.name}: data.columns.slices: {rule}, got {printable(name)} twice")


def refuse_unused(table: Table, chosen: Chosen, fields: Mapping[str, str], wanted: OutputColumns) -> None:
    """A file was given for each column: what is not taken is a wrong name, or too much.

    Args:
        table: of these files.
        chosen: what is taken of them.
        fields: what the configuration calls each column's file.
        wanted: names of columns.

    Raises:
        InputError: with a line for each file that is of no use.
    """
    known = [name for names in USUAL.values() for name in names]
    used = (*chosen.outputs, *chosen.others)
    problems = []
    for name in table.columns:
        if name in used:
            continue
        if any(name in USUAL[kind] or getattr(wanted, kind) == name for kind in KINDS):
            problems.append(f"{fields[name]}: must be of use, got {printable(name)} beside {chosen.kind}, which count")
        else:
            guess = did_you_mean(name, known)
            rule = f"must be one of {', '.join(known)}, or named in data.columns"
            problems.append(f"{fields[name]}: {rule}, got {printable(name)}{guess}")
    if problems:
        raise InputError(problems)


def _check(table: Table, chosen: Chosen) -> None:
    """Refuse types, dimensions and lengths that cannot be."""
    first = table.columns[chosen.outputs[0]]
    for name in (*chosen.outputs, *chosen.others):
        column, where = table.columns[name], f"{table.name}: {printable(name)}".removesuffix(": ")
        if column.problem:
            raise column.problem
        if column.dtype is not None and column.dtype.kind != "U":
            check_kind(where, column.dtype, 1)
        if column.n_rows != first.n_rows:
            raise InputError(f"{where}: must have a row for each of {first.n_rows} samples, got {column.n_rows}")
        if column.n_rows == 0:
            raise InputError(f"{where}: must have rows, got none")
        if name in chosen.outputs:
            _check_type(where, column, "iuf", "numbers")
    for role, name in (*chosen.single.items(), *(("slices", name) for name in chosen.slices)):
        _check_role(f"{table.name}: {printable(name)}", table.columns[name], role)
    if chosen.kind == "loss" and chosen.width != 1:
        raise InputError(f"{table.name}: loss: must be one number of each sample, got {chosen.width}")
    if not chosen.width:
        raise InputError(f"{table.name}: {chosen.kind}: must have columns, got none")


def _check_role(where: str, column: StoredColumn, role: str) -> None:
    _check_type(where, column, *OF_ROLE[role])
    if column.width is not None:
        raise InputError(f"{where}: must be one value of each sample, got {column.width}")


def _check_type(where: str, column: StoredColumn, kinds: str, rule: str) -> None:
    if column.dtype is not None and column.dtype.kind not in kinds:
        got = "text" if column.dtype.kind in TEXT else column.dtype
        raise InputError(f"{where}: must hold {rule}, got {got}")
