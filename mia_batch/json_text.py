"""JSON that means one thing: no key twice, no NaN, no number that others would read as another one.

What a run writes for itself carries a digest of its content, so that a byte that has changed since is no other run. A
file without one is of a version before, or its user's.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mia_batch.files import MOST_BYTES, read_text

SEAL = "content_sha256"
LIKE_SEAL = 0.7  # of difflib's ratio: such a name was the seal's, and says that the file has changed
DEEPEST = 64  # lists and mappings within each other: ours have ten
LARGEST = 1 << 64  # of whole numbers, on either side of 0


def parse(text: str) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is no JSON, too deep, has a key twice or a number that is none, or is not what was sealed.
    """
    try:
        found = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite
        )
    except RecursionError:
        raise ValueError(_too_deep()) from None
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = [item for value in level for item in _items(value)]
        if not level:
            return unsealed(found)
    raise ValueError(_too_deep())


def read(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """What a file of JSON says.

    Raises:
        OSError: it cannot be read, is no file, or has more bytes than that.
        ValueError: as `parse`; or it is no text in UTF-8.
    """
    return parse(read_text(path, most_bytes))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with its digest at the end."""
    return {**content, SEAL: _digest(content)}


def unsealed(found: Any) -> Any:
    """What was sealed, or what never was.

    Raises:
        ValueError: it has changed since; so has what has a key that was the seal's, but for some characters.
    """
    if not isinstance(found, dict):
        return found
    if SEAL not in found:
        if near := difflib.get_close_matches(SEAL, found, n=1, cutoff=LIKE_SEAL):
            raise ValueError(f"must be as it was written, got {near[0][:80]!r} for {SEAL}")
        return found
    content = {key: value for key, value in found.items() if key != SEAL}
    if found[SEAL] != _digest(content):
        raise ValueError(f"must be as it was written, got other content than that of its {SEAL}")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def written(content: Mapping[str, Any]) -> str:
    """The text of a file with this content."""
    return json.dumps(sealed(content), indent=1, allow_nan=False) + "\n"


def _too_deep() -> str:
    return f"more than {DEEPEST} lists and mappings within each other"


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:80]!r} is given twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"must have finite numbers, got {name}")


def _whole(digits: str) -> int:
    if len(digits) > len(str(LARGEST)) + 1 or abs(int(digits)) >= LARGEST:
        raise ValueError(f"must have whole numbers below 2**64, got {digits[:40]}")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"must have finite numbers, got {text[:40]}")
    return number
