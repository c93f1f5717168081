"""Every row to exactly one rank, however many ranks and whatever is done."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_batch.mpi.shards import owed_rows


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 9))
def test_each_open_row_falls_to_exactly_one_rank(done: list[bool], rank_size: int) -> None:
    flags = np.array(done, dtype=bool)
    parts = [owed_rows(flags, rank, rank_size) for rank in range(rank_size)]
    np.testing.assert_array_equal(np.concatenate(parts), np.flatnonzero(~flags))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rank_id", [-1, 3])
def test_a_rank_outside_the_world_is_refused(rank_id: int) -> None:
    with pytest.raises(ValueError, match=r"rank_id must be in \[0, 3\)"):
        owed_rows(np.zeros(5, bool), rank_id, 3)
