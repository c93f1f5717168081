"""Inputs on both sides: whether such a one is a member has no answer, and many of them leave nothing to ask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_NAMED = 3  # of each side
NOT_KNOWN = (
    "the features are of a version that kept no hash of the inputs: inputs that are on both sides were not looked for."
)
IMPORTED = (
    "outputs were imported, and nothing is known of the inputs: of those that are on both sides, only such were looked "
    "for whose outputs and labels are equal, bit for bit, and too rare to be so by chance."
)


def duplicates_caution(twin: NDArray[np.bool_], member: NDArray[np.integer], *, outputs: bool = False) -> str:
    """How many inputs are on both sides, "" if none is. Which they are, no log is told: see `named_duplicates`.

    Args:
        twin: of `attacks.grouping.twins`, (n,), as is the other.
        member: 1 member, 0 non-member.
        outputs: equal outputs are all that is known of equal inputs.
    """
    if not twin.any():
        return ""
    sides = ((int((twin & (member == side)).sum()), word) for side, word in ((1, "members"), (0, "non-members")))
    counted = " and ".join(f"{count} {word}" for count, word in sides)
    what = "outputs and a label that are" if outputs else "an input that is"
    return f"{counted} have {what} on both sides, and are left out."


def named_duplicates(
    twin: NDArray[np.bool_], member: NDArray[np.integer], split: NDArray[np.str_], sample_index: NDArray[np.integer]
) -> str:
    """The first of each side that have a twin on the other, for whoever is to look at them; there is one.

    Args:
        twin, member: as of `duplicates_caution`.
        split: of each row, (n,).
        sample_index: within its split, (n,).
    """
    sides = [np.flatnonzero(twin & (member == side)) for side in (1, 0)]
    return "; ".join(
        ", ".join(f"{split[row]} sample {sample_index[row]}" for row in rows[:N_NAMED])
        + (", ..." if len(rows) > N_NAMED else "") for rows in sides
    )  # fmt: skip


def too_many_duplicates(
    twin: NDArray[np.bool_], member: NDArray[np.integer], limit: float, *, outputs: bool = False
) -> str:
    """Why the audit is not evaluable, with what to look at; "" if at most `limit` of each side have a twin.

    Arguments as `duplicates_caution` has them.
    """
    sides = [(int((twin & (member == side)).sum()), int((member == side).sum()), word)
             for side, word in ((1, "members"), (0, "non-members"))]  # fmt: skip
    found, size, word = max(sides, key=lambda side: side[0] / max(1, side[1]))
    if found / max(1, size) <= limit:
        return ""
    what = "outputs and label" if outputs else "input"
    look = "the files or arrays of the two sides" if outputs else "data.members and data.nonmembers"
    same = "samples" if outputs else "images"
    return (
        f"{found} of {size} {word} ({found / size:.1%}) have their {what} on the other side too, more than "
        f"data.max_duplicates ({limit:g}). Look at {look}: they may hold the same {same}."
    )
