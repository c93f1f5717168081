"""Which rows belong together: equal inputs, and what the user declares (views of one image, twins, persons)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mia_batch.inputs import NO_GROUP
from mia_batch.metrics.base import Effects

CROSS_FITTED = 2.0  # so many scores that are pooled over models of shared rows count as one


def twins(content: NDArray[np.uint8] | None, member: NDArray[np.int8]) -> NDArray[np.bool_]:
    """The rows whose input is on both sides, (n,): whether such an input is a member has no answer.

    Args:
        content: hash of each row's input, (n, n_bytes); None where it is not known, which finds no row.
        member: (n,) 1 member, 0 non-member.
    """
    if content is None:
        return np.zeros(len(member), dtype=bool)
    first = _first_equal(_keys(content, len(member)))
    n_members = np.bincount(first, weights=member, minlength=len(member))[first]
    return (n_members > 0) & (n_members < np.bincount(first, minlength=len(member))[first])


def group_codes(content: NDArray[np.uint8] | None, group: NDArray[np.int64] | None, n: int) -> NDArray[np.int64]:
    """Number of each row's group, (n,), from 0 in order of first appearance.

    Rows are of one group if their inputs are equal, if they have one declared group, or if a chain of such pairs
    joins them. A group may have rows on both sides.

    Args:
        content: hash of each row's input, (n, n_bytes), or None.
        group: declared groups, (n,), `NO_GROUP` for a row that has none; or None.
        n: rows.

    Raises:
        ValueError: an array is not of n rows.
    """
    if content is None and group is None:
        return np.arange(n)
    links = [] if content is None else [_first_equal(_keys(content, n))]
    if group is not None:
        if group.shape != (n,):
            raise ValueError(f"group must be of shape ({n},), got {group.shape}")
        links.append(np.where(group == NO_GROUP, np.arange(n), _first_equal(group)))
    target = np.concatenate(links) if links else np.arange(n)
    source = np.arange(len(target)) % max(n, 1)
    graph = coo_array((np.ones(len(target), dtype=np.int8), (source, target)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    first = _first_equal(component)
    return np.cumsum(first == np.arange(n), dtype=np.int64)[first] - 1


def design_effects(
    member: NDArray[np.integer], group: NDArray[np.integer] | None = None, *, cross_fitted: bool
) -> Effects:
    """How many scored members, and non-members, count as one.

    Rows of one group say at the worst what one row says: sum g^2 / n of groups of g rows (Kish 1965). Scores that are
    pooled over models which share rows that fitted them vary more than those of one model.

    Args:
        member: membership of the scored rows, (n,).
        group: numbers of their groups, (n,); None for rows that stand alone.
        cross_fitted: whether several models have scored them.
    """
    crossed = CROSS_FITTED if cross_fitted else 1.0
    if group is None:
        return crossed, crossed
    sizes = [np.unique(group[member == side], return_counts=True)[1] for side in (1, 0)]
    of_groups = [float((each**2).sum() / each.sum()) if len(each) else 1.0 for each in sizes]
    return crossed * of_groups[0], crossed * of_groups[1]


def _keys(content: NDArray[np.uint8], n: int) -> NDArray[Any]:
    """Each row's bytes as one value that sorts."""
    if content.ndim != 2 or len(content) != n:
        raise ValueError(f"content must be of shape ({n}, n_bytes), got {content.shape}")
    kind = "<u8" if content.shape[1] == 8 else f"V{content.shape[1]}"  # numbers sort faster
    return np.ascontiguousarray(content).view(kind)[:, 0]


def _first_equal(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Of each row, the first row with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]
