"""Which rows a rank still owes: explicit indices, never padded, never dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def owed_rows(done: NDArray[np.bool_], rank_id: int, rank_size: int) -> NDArray[np.int64]:
    """Rows that are not done and fall to this rank: one of `rank_size` contiguous parts, equal but for one row.

    Args:
        done: shape (n_rows,), whether a row is in the file already.
        rank_id: 0 <= rank_id < rank_size.

    Returns:
        Ascending row numbers; over all ranks each row that is not done appears exactly once.
    """
    if not 0 <= rank_id < rank_size:
        raise ValueError(f"rank_id must be in [0, {rank_size}), got {rank_id}")
    owed = np.flatnonzero(~done)
    first, end = (len(owed) * part // rank_size for part in (rank_id, rank_id + 1))
    return owed[first:end]
