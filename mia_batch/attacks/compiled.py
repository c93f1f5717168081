"""Inner loops compiled by numba for the processor at hand, kept on disk for the processes that come after."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` in numba's nopython mode: floating-point operations in the order written, none of them fused.

    Division by zero gives what NumPy's does: a test before each division would keep a loop from being vectorised.

    The machine code is kept beside the source, or in NUMBA_CACHE_DIR or the user's cache folder where that cannot be
    written; where none of them can, each process compiles for itself.
    """
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return numba.njit(error_model="numpy")(function)
