"""What a checkpoint states of its entries, and the rules that hold in every format."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_ENTRIES = 100_000
MAX_NAME = 1024  # characters: MindSpore's own limit
MAX_RANK = 32  # NumPy's
TEXT = "str"  # of `append_dict`: one in UTF-32
WHOLE_NUMBERS = re.compile(r"(uint|int|i|u)\d+|bool", re.IGNORECASE)  # in the words of any format


class MalformedError(Exception):
    """A rule, and what is there instead."""


class IncompleteError(Exception):
    """What the file's bytes are instead of a checkpoint."""


@dataclass(frozen=True)
class Entry:
    """One tensor, or a slice of it, as the file states it."""

    name: str
    kind: str
    dims: tuple[int, ...]
    n_bytes: int

    def broken(self, rule: str, got: object) -> MalformedError:
        """The rule that this entry breaks."""
        return MalformedError(f"entry {self.name[:80]!r}: {rule}, got {str(got)[:80]}")

    def words(self) -> str:
        """Shape and type."""
        return f"{shape_words(self.dims)} {self.kind}"

    @property
    def is_one_number(self) -> bool:
        """Whether it has one value, in whatever shape."""
        return self.kind != TEXT and math.prod(self.dims) == 1

    @property
    def is_whole(self) -> bool:
        """Whether its type is one of integers or bools."""
        return WHOLE_NUMBERS.fullmatch(self.kind) is not None


@dataclass(frozen=True)
class Stated:
    """What a checkpoint says that it holds.

    Attributes:
        entries: tensors and text, by name, in the file's order.
        has_crc: it carries a checksum, which reading its header does not compare.
        ordered: that order is the one in which they were saved.
        is_part: it says itself that it lacks what other ranks' files have.
    """

    entries: dict[str, Entry]
    has_crc: bool = False
    ordered: bool = True
    is_part: bool = False


def shape_words(dims: tuple[int, ...]) -> str:
    """Such as 4x3x3."""
    return "x".join(map(str, dims)) or "scalar"


def add_entry(found: dict[str, Entry], entry: Entry, item_bytes: Mapping[str, int]) -> None:
    """Put an entry to those before it.

    Raises:
        MalformedError: its name is empty, too long or there already, its type is not one of `item_bytes`, or its
            content is not of its shape and type.
    """
    if not 0 < len(entry.name) <= MAX_NAME:
        raise entry.broken(f"its name must have 1 to {MAX_NAME} characters", len(entry.name))
    if entry.name in found:
        raise entry.broken("its name must be there once", "a second entry")
    if entry.kind not in item_bytes:
        raise entry.broken(f"its type must be one of {', '.join(item_bytes)}", repr(entry.kind))
    if len(entry.dims) > MAX_RANK:
        raise entry.broken(f"must have at most {MAX_RANK} dimensions", len(entry.dims))
    if any(dim < 0 for dim in entry.dims):
        raise entry.broken("its dimensions must be at least 0", list(entry.dims))
    needed = math.prod(entry.dims) * item_bytes[entry.kind]
    if needed != entry.n_bytes:
        raise entry.broken(f"{entry.words()} must have {needed} bytes", entry.n_bytes)
    found[entry.name] = entry
