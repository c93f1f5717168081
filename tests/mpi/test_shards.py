"""Every row to exactly one rank, however many ranks and whatever is done."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_batch.mpi.shards import owed_rows
from mia_batch.rundir.features import contiguous_runs


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


@given(st.sets(st.integers(0, 60)))
def test_runs_put_rows_back_where_they_came_from(rows: set[int]) -> None:
    ordered = np.array(sorted(rows), dtype=np.int64)
    target = np.full(61, -1)
    for here, there in contiguous_runs(ordered):
        target[there] = ordered[here]
    np.testing.assert_array_equal(np.flatnonzero(target >= 0), ordered)
    np.testing.assert_array_equal(target[ordered], ordered)


def test_consecutive_rows_are_one_run() -> None:
    assert list(contiguous_runs(np.arange(5, 69))) == [(slice(0, 64), slice(5, 69))]
