"""JSON that means one thing, and files that carry a digest of their content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mia_batch import json_text
from mia_batch.json_text import DEEPEST, SEAL, parse, read, sealed, unsealed, written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 1}', "key 'a' is given twice"), ('[{"b": {"c": 0, "c": 0}}]', "key 'c' is given twice"),
        ("[NaN]", "must have finite numbers, got NaN"), ("-Infinity", "got -Infinity"), ("1e999", "got 1e999"),
        (str(1 << 64), "must have whole numbers below 2**64, got 18446744073709551616"),
        (f"-{1 << 64}", "below 2**64"), ("9" * 5000, "below 2**64, got 9999"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} lists and mappings"),
        ("[" * 100_000, f"more than {DEEPEST} lists and mappings"), ('{"a":' * 5000 + "1" + "}" * 5000, "more than"),
        ("", "Expecting value"), ("{'a': 1}", "Expecting property name"), ("[1] x", "Extra data"),
    ],
)  # fmt: skip
def test_what_would_be_read_in_two_ways_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("*", r"\*").replace("[", r"\[")):
        parse(text)


def test_numbers_at_the_limits_are_read() -> None:
    largest = (1 << 64) - 1
    assert parse(f"[{largest}, -{largest}, 1.5e300, 0, -0, true]") == [largest, -largest, 1.5e300, 0, 0, True]
    deepest = parse("[" * DEEPEST + "]" * DEEPEST)
    for _ in range(DEEPEST - 1):
        (deepest,) = deepest
    assert deepest == []


def test_what_is_sealed_is_read_without_its_seal() -> None:
    content = {"b": [1.0, 0.1, None, "\u00e9\ud800"], "a": {"x": {}, "9": 1, "10": 2}}
    assert parse(written(content)) == content
    assert list(parse(written(content))) == ["b", "a"]
    assert parse(json.dumps(content)) == content  # of a version before, or a user's
    assert unsealed([1]) == [1]


@pytest.mark.parametrize("change", [lambda c: c | {"a": 2}, lambda c: c | {"b": 1}, lambda c: c | {SEAL: "0" * 64}])
def test_what_has_changed_since_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="must be as it was written, got other content"):
        unsealed(change(sealed({"a": 1})))


@pytest.mark.parametrize("name", ["content_sha-1", "contennt_sha256", "content_shaa256", "ntent_sha256"])
def test_a_seal_whose_name_has_changed_is_no_other_key(name: str) -> None:
    changed = {name if key == SEAL else key: value for key, value in sealed({"sha256": "a", "count": 1}).items()}
    with pytest.raises(ValueError, match=f"must be as it was written, got '{name}' for {SEAL}"):
        unsealed(changed)
    assert unsealed({"sha256": "a", "content": 1}) == {"sha256": "a", "content": 1}


def test_no_byte_of_a_sealed_file_changes_what_it_says(tmp_path: Path) -> None:
    content = {"schema": 1, "auc": 0.5125, "names": ["a", "b"], "none": None}
    path, whole = tmp_path / "x.json", written(content).encode()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                found = read(path)
            except ValueError:
                continue
            assert found == content


def test_the_digest_is_not_of_how_numbers_are_made() -> None:
    assert json_text.parse(written({"1": 1, "x": 1e22, "y": 1e-7})) == {"1": 1, "x": 1e22, "y": 1e-7}


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[" + " " * 97 + "1]")
    assert read(tmp_path / "a", 100) == [1]
    with pytest.raises(OSError, match="more than 99 bytes"):
        read(tmp_path / "a", 99)
