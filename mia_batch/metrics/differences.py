"""How far a difference may be off, from the intervals of its two sides: no SciPy, for code that only reads results."""

from __future__ import annotations

import math


def joint_reach(down: float, up: float, correlation: float = 0.0) -> float:
    """How far the interval of a - b goes down, where that of a goes `down` and that of b `up`; upwards likewise.

    It is the method of variance estimates recovery (Zou & Donner 2008), exact in the limit for any shape of intervals.

    Args:
        down: from a to its lower end, 0 or more.
        up: from b to its upper end, 0 or more.
        correlation: of a and b, in [-1, 1].
    """
    return math.sqrt(max(0.0, down**2 + up**2 - 2 * correlation * down * up))
