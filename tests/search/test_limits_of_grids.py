"""Values of a grid with which a fit would never end, or has no room: refused before anything is fitted."""

from __future__ import annotations

from typing import Any

import pytest

from mia_batch.search.estimators import check_grid


@pytest.mark.parametrize(
    ("method", "name", "good", "bad"),
    [
        ("rf", "n_estimators", 100_000, 1_000_000_000),
        ("lr", "max_iter", 10_000_000, 1 << 62),
        ("hgb", "max_iter", 10_000_000, 1 << 62),
        ("mlp", "hidden_layer_sizes", (1000, 1000), (1_000_000, 1_000_000)),
        ("mlp", "hidden_layer_sizes", 1000, 1 << 62),
    ],
)
def test_what_would_never_end_is_refused(method: str, name: str, good: Any, bad: Any) -> None:
    assert check_grid(method, {name: (good,)}) == []
    [(field, rule)] = check_grid(method, {name: (bad,)})
    assert field == f"params.{name}"
    assert rule.startswith("must ")
    assert rule.endswith(f"got {bad}")
