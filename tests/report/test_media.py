"""Text of others in each medium: it is shown, and it does nothing."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from running import words_of_bash

from mia_batch.report.media import markdown, shell, terminal, xml
from mia_batch.report.shown_text import shown

HOSTILE = (
    "<script>alert(1)</script>", "a\x1b[2J\x1b]0;t\x07", "left\u202eright\u2066", "line\nbreak\r", "| cell | cell |",
    "**bold** _it_ `code` ~~no~~", "[x](javascript:alert(1)) ![i](http://a/b.png)",
    "http://a.b www.a.b a@b.c @user #12",
    "1. one", "- item", "+ item", "# head", "> quote", "---", "===", "&lt;&#60;&amp;", ":x: :tada:", "$\\frac12$",
    "\\", "a\\|b", "<!-- c", "```", "\t tab", "12) twelve", "", "日本語 é", "\ud800", "x\u200by",
)  # fmt: skip


class Text(HTMLParser):
    """What a reader of HTML sees, and the elements that it has."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", set[str]()
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def rendered(source: str) -> Text:
    return Text(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))


any_text = st.text(st.characters(), max_size=40) | st.sampled_from(HOSTILE)


@given(any_text)
@example("\x9b31m")
def test_a_terminal_gets_one_line_of_what_can_be_seen(text: str) -> None:
    line = terminal(text)
    assert all(unicodedata.category(each)[0] != "C" and unicodedata.category(each) not in ("Zl", "Zp") for each in line)
    assert line == text or not text.isascii() or not text.isprintable()
    assert "\\n".join(shown(part) for part in text.split("\n")) == line


def test_bash_takes_the_words_for_what_they_are() -> None:
    """Also bytes that are no text, and quotes beside what is hidden; nothing of it acts on the terminal before."""
    words = [word for word in HOSTILE if word != "\ud800"]
    words += ["\udcff\x1b", "it's \x07", "\\\x1b'", "plain", "a b", "$HOME\n"]
    line = shell(*words)
    assert terminal(line) == line
    assert words_of_bash(line) == words


@given(any_text)
def test_markdown_shows_the_text_and_nothing_else_comes_of_it(text: str) -> None:
    seen = " ".join(terminal(text).split())
    for source, frame in ((f"- {markdown(text)}", {"ul", "li"}), (f"{markdown(text)}", {"p"})):
        found = rendered(source)
        assert " ".join(found.text.split()) == seen
        assert found.tags - {"span", "p"} <= frame
    table = rendered(f"| a | b |\n| --- | --- |\n| {markdown(text)} | end |")
    assert " ".join(table.text.split()) == " ".join(f"a b {seen} end".split())
    assert table.tags - {"span"} == {"table", "thead", "tbody", "tr", "th", "td"}


@given(any_text)
def test_markdown_calls_nobody_and_links_nowhere(text: str) -> None:
    html = MarkdownIt("commonmark").render(markdown(text))
    nodes = re.split(r"<[^>]*>", html)
    assert not any(re.search(r"@\w|#\d", re.sub(r"&[#\w]+;", "", node)) for node in nodes)
    assert not re.search(r"(?<!\\)(?:https?|ftp|mailto):(?!\\)|(?i:\bwww\.)", markdown(text).replace("\\:", "\\"))


@given(any_text)
def test_xml_can_be_read_again(text: str) -> None:
    element = ElementTree.Element("a", {"b": xml(text)})
    element.text = xml(text)
    back = ElementTree.fromstring(ElementTree.tostring(element, encoding="unicode"))
    assert (back.text or "").replace("\r", "\n") == xml(text).replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("text", ["threshold_loss", "run-1", "a b", "0.6 (at least 0.5)"])
def test_plain_names_stay_readable(text: str) -> None:
    assert terminal(text) == xml(text) == text
    assert markdown(text).replace("\\_", "_") == text
