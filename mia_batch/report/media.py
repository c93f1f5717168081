"""Text of others, such as names, paths and notes, in each medium: one function for each. HTML has Jinja2's escapes."""

from __future__ import annotations

import re
import shlex

from mia_batch.report.shown_text import shown

# What Markdown takes for more than text: markup, HTML, and with it the beginning of links, lists and headings.
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&]|:(?=[\w/])|^[-+=])")
NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")  # a line that it takes for the beginning of a list
ADDRESS = re.compile(r"\bwww\.", re.IGNORECASE)
# A person or an issue, where the text is shown; as an element of its own it calls nobody.
CALLS = re.compile(r"(@|\\#)(?=\w)")
# All that XML 1.0 cannot hold, not even escaped: control characters, lone surrogates and two non-characters.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def terminal(text: str) -> str:
    """One line for a terminal or a log, in which nothing moves the cursor, colours, or turns the direction."""
    return shown(text).replace("\n", "\\n")


def shell(*words: str) -> str:
    r"""Words as a command line for bash, to be copied: what would act on a terminal is bytes, as in $'\x1b'."""
    return " ".join(shlex.quote(word) if terminal(word) == word else f"$'{_in_bytes(word)}'" for word in words)


def _in_bytes(word: str) -> str:
    return "".join(each if terminal(each) == each and each not in "'\\" else _bytes_of(each) for each in word)


def _bytes_of(character: str) -> str:
    """As bash's $'...' takes them; what stands for a byte that is no text is this byte."""
    is_byte = "\udc80" <= character <= "\udcff"
    raw = character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def markdown(text: str) -> str:
    """One line of Markdown, also of a table's cell, that is shown as `text` is."""
    escaped = MARKUP.sub(r"\\\1", terminal(text).strip())
    escaped = ADDRESS.sub(lambda found: found[0].replace(".", "\\."), NUMBERED.sub(r"\1\\\2", escaped))
    return CALLS.sub(r"<span>\1</span>", escaped)


def xml(text: str) -> str:
    """`text` without what XML cannot hold; what else it would take for markup is escaped where it is written."""
    return NOT_XML.sub("", text)
