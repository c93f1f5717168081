"""YAML: what a text may say, and what is refused before any of it is made."""

from __future__ import annotations

import datetime
from itertools import pairwise
from string import ascii_lowercase
from typing import Any

import pytest

from mia_batch.errors import InputError
from mia_batch.settings import yaml_text
from mia_batch.settings.yaml_text import DEEPEST, parse, parse_value

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in pairwise(ascii_lowercase)
)


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, "c.yaml")
    (line,) = caught.value.problems
    assert len(line) < 200
    return line.removeprefix("c.yaml: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 5, column 20: YAML: must have at most 50000 values, with what its aliases stand for"),
        (BOMB.replace("[", "{x: [").replace("]", "]}"), "must have at most 50000 values"),
        ("a: &a [*a]", "*a must not be within what it names"),
        ("a: &a {b: {c: [*a]}}", "*a must not be within what it names"),
        ("a: &a {<<: *a}", "*a must not be within what it names"),
        ("[" * 100_000, f"must have at most {DEEPEST} lists and mappings within each other"),
        ("{a: " * 100_000, f"must have at most {DEEPEST} lists and mappings within each other"),
        ('a: !!int ""', "line 1, column 4: YAML: must have no tag, or that of its value, got !!int"),
        ("a: !!int 1.5", "got !!int"), ("a: !!float x", "got !!float"), ("a: !!bool 1", "got !!bool"),
        ("a: !!null 1", "got !!null"), ("a: !!str [a]", "got !!str"), ("a: !!seq {a: 1}", "got !!seq"),
        ("a: !!map [1]", "got !!map"), ("a: !!set {a, b}", "got !!set"), ("a: !!omap [a: 1]", "got !!omap"),
        ("a: !!binary aGVsbG8=", "got !!binary"), ("a: !!timestamp 1", "got !!timestamp"),
        ("a: !!python/object/apply:os.system [ls]", "got !!python/object/apply:os.system"),
        ("a: !!python/tuple [1]", "got !!python/tuple"), ("a: !mine 1", "got !mine"), ("!x {a: 1}", "got !x"),
        ("a: 1" + "0" * 30, "must be a whole number below 2**64, got 1000"), ("a: 0x1" + "0" * 99_999, "below 2**64"),
        (f"a: -{1 << 64}", "below 2**64"), ("a: 1" + "0" * 5000, "below 2**64, got 1000"),
        ("a: " + ":".join(["59"] * 500), "without a 0 before it or a colon, or text in quotes, got 59:59"),
        ("a: 010", "a colon, or text in quotes, got 010"), ("a: -0_7", "got -0_7"), ("a: 1:30", "got 1:30"),
        ("a: 01.5", "got 01.5"), ("a: 1:30.5", "got 1:30.5"), ("12:00:00: a", "got 12:00:00"),
        ('a: "b\\0c"', "must be text without \\x00"),
        ('a: "\\ud800"', "must be text without \\ud800"), ('"\\0": 1', "must be text without \\x00"),
        ("a: 1\na: 1", "line 2, column 1: YAML: key 'a' is given twice"), ("{yes: 1, true: 2}", "key 'true' is given"),
        ("{1: a, '1': b}", "key '1' is given twice"), ("{<<: {a: 1}, <<: {b: 1}}", "key '<<' is given twice"),
        ("[a]: 1", "a key must be text"), ("a: 1\n---\nb: 1", "another document"), ("a: =", "YAML: "),
        ("a: *b", "undefined alias"), ("a: [*a]", "undefined alias"), ("a: 2024-13-01", "month must be in 1..12"),
        ("a: \x00", "YAML: "), ("\x07", "YAML: "),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("[0, -0, 0.5, 0x10, 0b11, 1_000, 00x, '010', 07:30]", [0, 0, 0.5, 16, 3, 1000, "00x", "010", "07:30"]),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("a: &x {p: 1}\nb: &y {<<: *x, q: 2}\nc: {<<: *y, p: 3}", {"a": {"p": 1}, "b": {"p": 1, "q": 2},
                                                                  "c": {"p": 3, "q": 2}}),
        ("a: !!str 010\nb: !!float 1\nc: !!int 0x10\nd: !!seq [1]\ne: !!map {f: !!null ~}", {
            "a": "010", "b": 1.0, "c": 16, "d": [1], "e": {"f": None},
        }),
        (f"a: {(1 << 64) - 1}", {"a": (1 << 64) - 1}), ("\ufeffa: 1", {"a": 1}),
        ("a: [1e-4, 1E5, 1.5, .inf]", {"a": [1e-4, 1e5, 1.5, float("inf")]}), ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("a: 2024-01-02", {"a": datetime.date(2024, 1, 2)}), ("", None), ("'\\u00e9': \u00e9", {"\\u00e9": "\u00e9"}),
        ("[" * DEEPEST + "]" * DEEPEST, None),
    ],
)  # fmt: skip
def test_what_users_write_is_read(text: str, meant: Any) -> None:
    found = parse(text, "c.yaml")
    assert found == meant or (text.startswith("[[") and found)


def test_values_are_counted_as_often_as_they_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MOST_VALUES", 600)
    n = 600 - 3  # the mapping, its key and the list are values too
    assert len(parse("a: [" + "1," * n + "]", "c.yaml")["a"]) == n
    assert "at most 600" in refusal("a: [" + "1," * (n + 1) + "]")
    assert len(parse("a: &a [1]\nb: [" + "*a," * 297 + "]", "c.yaml")["b"]) == 297
    assert "at most 600" in refusal("a: &a [1]\nb: [" + "*a," * 298 + "]")


def test_what_is_set_is_held_to_the_same() -> None:
    for text in ("&a [*a]", "!!int ''", "1" + "0" * 30, "[" * 100):
        with pytest.raises(InputError, match="--set: a: line 1"):
            parse_value(text, "--set: a")
