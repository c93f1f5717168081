"""Fixtures of attacks' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As tasks are done: gradient boosting on all cores waits for itself where another test has one."""
    with threadpool_limits(1):
        yield
