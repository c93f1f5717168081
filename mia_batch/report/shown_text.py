"""Text of others as the page shows it: nothing in it acts on the page, or hides."""

from __future__ import annotations

import unicodedata

KEPT = "\n"
# Invisible, or turning the direction of what follows: controls, formats, surrogates, private ones, line separators.
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def shown(text: str) -> str:
    r"""`text` with every character that cannot be seen as its escape, such as \u202e; new lines stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(each) for each in text)


def _shown(character: str) -> str:
    if character in KEPT or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def short(text: str, length: int = 22) -> str:
    """At most so many characters, in one line."""
    line = " ".join(shown(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
