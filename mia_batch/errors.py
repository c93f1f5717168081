"""The one exception that entry points tell apart: what the user, or the user's files, got wrong."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable

CLOSE = 0.7  # of difflib's ratio, where 1 is equal: `statsu` has 0.83 to `status`, `TPU` 0.67 to `GPU`
Problem = tuple[str, str]  # a key of a section, and its rule: "params.C", "must be at least 0, got -1"
SAID_LENGTH = 300  # characters of what a library says
LONG_BYTES = re.compile(r"""\bb(['"])(?:\\.|(?!\1).){40,}(?:\1|$)""")  # a literal of a file's bytes in a message
ABBREVIATED = 3  # characters that a name's beginning must have to stand for it


class InputError(ValueError):
    """Bad input, as one clear line per problem: file, field, rule, value.

    Entry points print every line and exit with code 2.

    Attributes:
        problems: the lines, in the order found.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class InUseError(InputError):
    """Another process writes a file."""


def one_line(error: BaseException) -> str:
    """The exception's type and the first line of its message that says something: MindSpore's may begin with a rule.

    A file's bytes are no part of it: zipfile quotes a damaged member, and what it says of samples.
    """
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
    if not lines:
        return type(error).__name__
    said = LONG_BYTES.sub("bytes", lines[0])
    return f"{type(error).__name__}: {said[:SAID_LENGTH]}{'...' * (len(said) > SAID_LENGTH)}"


def repeated(names: Iterable[str]) -> str:
    """The first of these names that is there again; "" where each is there once."""
    return next((name for name, count in Counter(names).items() if count > 1), "")


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """What ends a line about an unknown name: `; did you mean seed?`, or nothing where no choice is close."""
    names = list(dict.fromkeys(choices))
    if not isinstance(value, str) or not value or value in names:
        return ""
    folded = {_folded(name): name for name in reversed(names)}
    found = [name for name in folded if sorted(name) == sorted(_folded(value))]  # letters change places in short names
    found = found or difflib.get_close_matches(_folded(value), folded, n=1, cutoff=CLOSE)
    if not found and len(value) >= ABBREVIATED:
        begun = [name for name in folded if name.startswith(_folded(value))]
        found = begun if len(begun) == 1 else []
    return f"; did you mean {folded[found[0]]}?" if found else ""


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
