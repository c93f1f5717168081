"""numba compiles the inner loops for this processor and keeps them on disk for later processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core.caching import FunctionCache

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


class KeptCode(FunctionCache):
    """numba's files of machine code. Where one cannot be read or written, the code is compiled again.

    numba itself raises the error of a damaged file, a full disk or a quota.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature, or None; damaged files are emptied."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            log.debug("%s: compiled code cannot be read: %r", self.cache_path, error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature where there is room for it."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_once(self.cache_path, getattr(error, "strerror", None) or repr(error))


@cache
def _warn_once(folder: str, reason: str) -> None:
    log.warning("%s: compiled code cannot be kept, each run compiles it again: %s", folder, reason)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` in numba's nopython mode: floating-point operations in the order written, none of them fused.

    Division by zero gives what NumPy gives: a test before each division would keep a loop from being vectorised. Other
    threads of the process run meanwhile.

    The machine code is kept beside the source; where that cannot be written, in NUMBA_CACHE_DIR or the user's cache
    folder; where none of them can, each process compiles for itself.
    """
    dispatcher = numba.njit(error_model="numpy", nogil=True)(function)
    try:
        dispatcher._cache = KeptCode(function)  # instead of the one that cache=True makes
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
    return dispatcher
