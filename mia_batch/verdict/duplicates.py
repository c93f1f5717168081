"""Inputs on both sides: whether such a one is a member has no answer, and many of them leave nothing to ask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_NAMED = 3  # of each side
NOT_KNOWN = (
    "the features are of a version that kept no hash of the inputs: inputs that are on both sides were not looked for."
)
IMPORTED = (
    "outputs were imported, and nothing is known of the inputs: inputs that are on both sides were not looked for."
)


def duplicates_caution(
    twin: NDArray[np.bool_], member: NDArray[np.integer], split: NDArray[np.str_], sample_index: NDArray[np.integer]
) -> str:
    """How many inputs are on both sides and which, "" if none is.

    Args:
        twin: of `attacks.grouping.twins`, (n,), as are the others.
        member: 1 member, 0 non-member.
        split: of each row.
        sample_index: within its split.
    """
    if not twin.any():
        return ""
    sides = [(np.flatnonzero(twin & (member == side)), word) for side, word in ((1, "members"), (0, "non-members"))]
    counted = " and ".join(f"{len(rows)} {word}" for rows, word in sides)
    named = "; ".join(
        ", ".join(f"{split[row]} sample {sample_index[row]}" for row in rows[:N_NAMED])
        + (", ..." if len(rows) > N_NAMED else "") for rows, _ in sides
    )  # fmt: skip
    return f"{counted} have an input that is on both sides, and are left out: {named}."


def too_many_duplicates(twin: NDArray[np.bool_], member: NDArray[np.integer], limit: float) -> str:
    """Why the audit is not evaluable, with what to look at; "" if at most `limit` of each side have a twin.

    Arguments as `duplicates_caution` has them.
    """
    sides = [(int((twin & (member == side)).sum()), int((member == side).sum()), word)
             for side, word in ((1, "members"), (0, "non-members"))]  # fmt: skip
    found, size, word = max(sides, key=lambda side: side[0] / max(1, side[1]))
    if found / max(1, size) <= limit:
        return ""
    return (
        f"{found} of {size} {word} ({found / size:.1%}) have their input on the other side too, more than "
        f"data.max_duplicates ({limit:g}). Look at data.members and data.nonmembers: they may hold the same images."
    )
