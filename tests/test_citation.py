"""CITATION.cff has what the Citation File Format 1.2.0 requires, and says what the package says of itself."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
import yaml
from running import REPO

REQUIRED = {"cff-version", "message", "title", "authors"}
KNOWN = REQUIRED | {"abstract", "type", "version", "license", "keywords"}  # of what the format allows, what we say


def problems(said: dict[str, Any]) -> list[str]:
    """What is missing, unknown or of another type."""
    found = [f"{key}: missing" for key in sorted(REQUIRED - set(said))]
    found += [f"{key}: unknown" for key in sorted(set(said) - KNOWN)]
    texts = KNOWN - {"authors", "keywords"}
    found += [f"{key}: no text" for key in sorted(texts & set(said)) if not (isinstance(said[key], str) and said[key])]
    people = said.get("authors")
    named = isinstance(people, list) and all("name" in one or "family-names" in one for one in people)
    if not people or not named:
        found.append("authors: a list of entities with `name`, or persons with `family-names`")
    return found


def test_the_citation_is_complete() -> None:
    said = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    assert problems(said) == []
    assert said["cff-version"] == "1.2.0"
    assert said["type"] in ("software", "dataset")
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    assert (said["version"], said["license"]) == (setup["metadata"]["version"], setup["metadata"]["license"])
    assert said["title"].startswith(f"{setup['metadata']['name']}:")


@pytest.mark.parametrize(
    "wrong", [{"authors": []}, {"authors": [{"given-names": "A"}]}, {"version": 0.1}, {"titel": "x"}]
)
def test_what_is_wrong_with_a_citation_is_found(wrong: dict[str, Any]) -> None:
    right = {"cff-version": "1.2.0", "message": "m", "title": "t", "authors": [{"name": "n"}]}
    assert problems(right) == []
    assert len(problems(right | wrong)) == 1
