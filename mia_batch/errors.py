"""The one exception that entry points tell apart: what the user, or the user's files, got wrong."""

from __future__ import annotations

from collections.abc import Iterable


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


def one_line(error: BaseException) -> str:
    """The exception's type and the first line of its message that says something: MindSpore's may begin with a rule."""
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
