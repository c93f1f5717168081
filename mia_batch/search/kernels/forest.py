"""Trees of two classes, grown as scikit-learn grows them, several times faster: compiled loops.

The trees are those of sklearn.tree with `criterion="gini"` and `splitter="best"` for one random state, to the last bit:
the same generator (Marsaglia 2003, "Xorshift RNGs") draws the same features of the same nodes in the same order, and
the same expressions compare the cuts. To look at a feature is faster here: ranks replace the columns once for all
trees, so that a row of a node is one whole number - rank, then draws by class - which sorts without branches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mia_batch.search.kernels.compiled import compiled

FEATURE_THRESHOLD = np.float32(1e-7)  # scikit-learn does not cut between values that are no further apart
EPSILON = float(np.finfo(np.float64).eps)
FEW = 40  # rows that are sorted by comparing all with all
LANES = 32  # whole numbers that a loop over them takes at once
RADIX_BITS = 8
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


class Columns(NamedTuple):
    """X by columns, each value as its rank among the column's distinct values."""

    ranks: NDArray[Any]  # (n_features, n_rows), unsigned
    values: NDArray[np.float32]  # distinct values, all columns' after each other, ascending in each
    beyond: NDArray[np.int32]  # by distinct value, the rank of the first that may be cut from it
    reach: NDArray[np.int64]  # (n_features,): ranks this far apart may always be cut
    starts: NDArray[np.int64]  # (n_features + 1,): column f has values[starts[f]:starts[f + 1]]


class Tree(NamedTuple):
    """A grown tree in scikit-learn's order: a node, then all nodes on its left, then all nodes on its right.

    Leaves have -1 as children and -2 as feature and threshold.
    """

    children_left: NDArray[np.int64]
    children_right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    n_node_samples: NDArray[np.int64]  # distinct training rows in the node
    value: NDArray[np.float64]  # (n_nodes, 2): shares of both classes among its draws


class Room(NamedTuple):
    """Memory that every tree uses again; in the first two arrays the rows of a node are neighbours."""

    rows: NDArray[np.int32]
    draws: NDArray[np.int32]  # of class 0 in the lower half of a key's bits below the rank, of class 1 in the upper
    aside: NDArray[np.int32]  # (2, n_rows)
    keys: NDArray[Any]
    other: NDArray[Any]
    place: NDArray[np.int32]
    left: NDArray[np.int32]  # (2, n_rows): draws of both classes up to a row
    proxy_improvement: NDArray[np.float64]
    ends: NDArray[np.uint32]  # by digit
    features: NDArray[np.int64]  # (2, n_features): in the order that draws have made, and the constant ones first
    stack: NDArray[np.int64]  # nodes to come: first row, rows, depth, parent, constant features
    impurities: NDArray[np.float64]  # of these


class Settings(NamedTuple):
    """Limits of a tree, as scikit-learn's builder and splitter have them."""

    max_features: int
    max_depth: int
    min_samples_split: int
    min_samples_leaf: int


class Node(NamedTuple):
    """A node that may be split."""

    start: int  # its first row in Room.rows
    n: int  # rows
    zeros: float  # draws of class 0
    ones: float
    n_known_constants: int  # features that are constant in it


def rank_columns(X: NDArray[np.float32]) -> Columns:
    """Columns of X, shape (n_rows, n_features), finite."""
    ranks = np.empty(X.shape[::-1], dtype=np.uint16 if len(X) <= 1 << 16 else np.uint32)
    distinct, beyond = [], []
    for column, rank in zip(X.T, ranks, strict=True):
        values, rank[:] = np.unique(column, return_inverse=True)
        distinct.append(values)
        beyond.append(np.searchsorted(values, values + FEATURE_THRESHOLD, side="right").astype(np.int32))
    reach = np.array([np.max(first - np.arange(len(first))) for first in beyond])
    return Columns(ranks, np.concatenate(distinct), np.concatenate(beyond), reach, np.cumsum([0, *map(len, distinct)]))


def open_room(columns: Columns) -> Room:
    """The memory for trees on these columns."""
    n_features, n_rows = columns.ranks.shape
    padded, key_type = n_rows + LANES + 1, np.uint32 if columns.ranks.itemsize == 2 else np.uint64
    return Room(
        np.empty(n_rows, np.int32), np.empty(n_rows, np.int32), np.empty((2, n_rows), np.int32),
        np.empty(padded, key_type), np.empty(padded, key_type), np.empty(FEW + LANES, np.int32),
        np.empty((2, n_rows), np.int32), np.empty(n_rows), np.empty(1 << RADIX_BITS, np.uint32),
        np.empty((2, n_features), np.int64), np.empty((n_rows + 1, 5), np.int64), np.empty(n_rows + 1),
    )


@compiled
def _random_below(state, n):
    """A draw from 0..n - 1; `state` of one element goes on."""
    s, low = state[0], np.uint64(0xFFFFFFFF)
    s ^= (s << np.uint64(13)) & low
    s ^= s >> np.uint64(17)
    s ^= (s << np.uint64(5)) & low
    state[0] = s
    return np.int64(s & np.uint64(0x7FFFFFFF)) % n


@compiled
def _sort_few(keys, other, n, place):
    """Sort keys[:n], at most FEW, into other: each goes where as many are before it."""
    padded = (n + LANES - 1) // LANES * LANES
    for i in range(n, padded + 1):
        keys[i] = ALL_BITS
    top = keys[padded]
    for i in range(padded):
        place[i] = 0
    for j in range(n):
        key = keys[j]
        for i in range(padded):
            place[i] += np.int32(key < keys[i])
    for i in range(n):
        other[i] = top
    for i in range(n):
        other[place[i]] = keys[i]
    for i in range(1, n):  # equal keys went to one place
        if other[i] == top:
            other[i] = other[i - 1]


@compiled
def _sort_many(keys, other, n, low_bit, n_bits, ends):
    """Sort keys[:n] by `n_bits` bits from `low_bit` on, by counting digits; returns the array that holds the result."""
    n_passes = (n_bits + RADIX_BITS - 1) // RADIX_BITS
    width = (n_bits + n_passes - 1) // max(n_passes, 1)
    size = 1 << width
    for number in range(n_passes):
        shift = low_bit + number * width
        for digit in range(size):
            ends[digit] = 0
        for i in range(n):
            ends[(np.int64(keys[i]) >> shift) & (size - 1)] += 1
        total = 0
        for digit in range(size):
            total, ends[digit] = total + ends[digit], total
        for i in range(n):
            digit = (np.int64(keys[i]) >> shift) & (size - 1)
            other[ends[digit]] = keys[i]
            ends[digit] += 1
        keys, other = other, keys
    return keys


@compiled
def _sort(room, n, low_bit, n_values):
    """The node's keys, sorted; ranks are less than `n_values`."""
    if n <= FEW:
        _sort_few(room.keys, room.other, n, room.place)
        return room.other
    n_bits = 0
    while (n_values - 1) >> n_bits:
        n_bits += 1
    return _sort_many(room.keys, room.other, n, low_bit, n_bits, room.ends)


@compiled
def _gini(zeros, ones):
    """Impurity by the draws of both classes."""
    n = zeros + ones
    return 1.0 - (zeros * zeros + ones * ones) / (n * n)


@compiled
def _proxy_improvement(left0, left1, zeros, ones):
    """Of a cut with these draws on its left in a node of `zeros` and `ones`: minus the children's impurity."""
    right0, right1 = zeros - left0, ones - left1
    return -(right0 + right1) * _gini(right0, right1) - (left0 + left1) * _gini(left0, left1)


@compiled
def _best_threshold(room, keys, node, low_bit, beyond, reach, min_samples_leaf, best):
    """The best cut of a node's sorted rows whose proxy improvement is above `best`.

    Returns:
        Its proxy improvement and the ranks on both sides of it, or -1 as ranks.
    """
    n = node.n
    half = low_bit // 2
    low = (np.int64(1) << half) - 1
    left, proxy_improvement = room.left, room.proxy_improvement
    sum0 = sum1 = 0
    for i in range(n):
        sum0 += np.int64(keys[i]) & low
        sum1 += (np.int64(keys[i]) >> half) & low
        left[0, i] = sum0
        left[1, i] = sum1
    for i in range(min_samples_leaf - 1, n - min_samples_leaf):
        proxy_improvement[i] = _proxy_improvement(np.float64(left[0, i]), np.float64(left[1, i]), node.zeros, node.ones)
    rank_before = rank_after = -1
    for i in range(min_samples_leaf - 1, n - min_samples_leaf):
        if proxy_improvement[i] > best:
            before, after = np.int64(keys[i]) >> low_bit, np.int64(keys[i + 1]) >> low_bit
            if after - before >= reach or after >= beyond[before]:
                best, rank_before, rank_after = proxy_improvement[i], before, after
    return best, rank_before, rank_after


@compiled
def _fill_keys(room, ranks, feature, start, n, low_bit):
    """Keys of a node's rows along a feature."""
    for i in range(n):
        room.keys[i] = np.int64(ranks[feature, room.rows[start + i]]) << low_bit | room.draws[start + i]


@compiled
def _best_split(columns, room, node, state, settings):
    """scikit-learn's search for the split of a node of which some features are known to be constant.

    Returns:
        Feature (-1 for none), ranks before and after the cut, and how many features are now known to be constant.
    """
    low_bit, n_known = 8 * columns.ranks.itemsize, node.n_known_constants
    order, constant = room.features[0], room.features[1]
    best, best_feature, best_before, best_after = -np.inf, -1, -1, -1
    undrawn, n_constant_features = len(order), n_known
    n_drawn = n_found = n_visited = 0  # drawn of the known constants, found constant, looked at
    while undrawn > n_constant_features and (n_visited < settings.max_features or n_visited <= n_found + n_drawn):
        n_visited += 1
        j = n_drawn + _random_below(state, undrawn - n_found - n_drawn)
        if j < n_known:
            order[n_drawn], order[j] = order[j], order[n_drawn]
            n_drawn += 1
            continue
        j += n_found
        feature = order[j]
        first, end = columns.starts[feature], columns.starts[feature + 1]
        beyond, reach = columns.beyond[first:end], columns.reach[feature]
        _fill_keys(room, columns.ranks, feature, node.start, node.n, low_bit)
        keys = _sort(room, node.n, low_bit, end - first)
        if np.int64(keys[node.n - 1]) >> low_bit < beyond[np.int64(keys[0]) >> low_bit]:
            order[j], order[n_constant_features] = order[n_constant_features], order[j]
            n_found += 1
            n_constant_features += 1
            continue
        undrawn -= 1
        order[undrawn], order[j] = order[j], order[undrawn]
        found = _best_threshold(room, keys, node, low_bit, beyond, reach, settings.min_samples_leaf, best)
        if found[1] >= 0:
            best_feature, (best, best_before, best_after) = feature, found
    _keep_constants(order, constant, n_known, n_constant_features)
    return best_feature, best_before, best_after, n_constant_features


@compiled
def _keep_constants(order, constant, n_known, n_constant_features):
    """The known constants back in their order, and those found after them."""
    for i in range(n_known):
        order[i] = constant[i]
    for i in range(n_known, n_constant_features):
        constant[i] = order[i]


@compiled
def _partition_rows(room, ranks, feature, start, n, rank):
    """Put the rows with a rank up to `rank` first and keep the order of both sides; returns their number."""
    n_left = n_right = 0
    for i in range(start, start + n):
        row, draws = room.rows[i], room.draws[i]
        if ranks[feature, row] <= rank:
            room.rows[start + n_left], room.draws[start + n_left] = row, draws
            n_left += 1
        else:
            room.aside[0, n_right], room.aside[1, n_right] = row, draws
            n_right += 1
    for i in range(n_right):
        room.rows[start + n_left + i], room.draws[start + n_left + i] = room.aside[0, i], room.aside[1, i]
    return n_left


@compiled
def _sum_draws(room, start, n, half):
    """Draws of both classes among `n` rows."""
    zeros = ones = 0
    for i in range(start, start + n):
        zeros += room.draws[i] & ((1 << half) - 1)
        ones += room.draws[i] >> half
    return np.float64(zeros), np.float64(ones)


@compiled
def _take_rows(room, draws, classes, half):
    """Put the rows that were drawn into `room`, in their order; returns their number."""
    n = 0
    for row in range(len(draws)):
        if draws[row]:
            room.rows[n] = row
            room.draws[n] = draws[row] << (half * classes[row])
            n += 1
    return n


@compiled
def _push(stack, at, start, n, depth, parent, n_known_constants):
    stack[at, 0], stack[at, 1], stack[at, 2], stack[at, 3], stack[at, 4] = start, n, depth, parent, n_known_constants


@compiled
def _add_leaf(grown, node, parent, n, share0, share1):
    """Add a node, a leaf until it has children; a left child comes right after its parent."""
    grown.children_left[node] = grown.children_right[node] = -1
    grown.feature[node], grown.threshold[node], grown.n_node_samples[node] = -2, -2.0, n
    grown.value[node, 0], grown.value[node, 1] = share0, share1
    if parent >= 0 and node == parent + 1:
        grown.children_left[parent] = node
    elif parent >= 0:
        grown.children_right[parent] = node


@compiled
def _begin(room, columns, draws, classes):
    """Put the root on the stack; returns the draws of both classes."""
    half = 4 * columns.ranks.itemsize
    n_all = _take_rows(room, draws, classes, half)
    for feature in range(len(columns.ranks)):
        room.features[0, feature] = feature
    zeros, ones = _sum_draws(room, 0, n_all, half)
    _push(room.stack, 0, 0, n_all, 0, -1, 0)
    room.impurities[0] = _gini(zeros, ones)
    return zeros, ones


@compiled
def _is_leaf(node, depth, impurity, settings):
    too_few = node.n < settings.min_samples_split or node.n < 2 * settings.min_samples_leaf
    return depth >= settings.max_depth or too_few or impurity <= EPSILON


@compiled
def _grow(columns, room, draws, classes, state, settings, grown):
    """Grow one tree into `grown`, a Tree with room for all nodes; returns their number."""
    half, stack, impurities = 4 * columns.ranks.itemsize, room.stack, room.impurities
    total0, total1 = _begin(room, columns, draws, classes)
    n_on_stack, n_nodes = 1, 0
    while n_on_stack:
        n_on_stack -= 1
        start, n, depth, parent, n_known_constants = stack[n_on_stack]
        impurity = impurities[n_on_stack]
        zeros, ones = _sum_draws(room, start, n, half)
        node, weight = Node(start, n, zeros, ones, n_known_constants), zeros + ones
        number, n_nodes = n_nodes, n_nodes + 1
        _add_leaf(grown, number, parent, n, zeros / weight, ones / weight)
        if _is_leaf(node, depth, impurity, settings):
            continue
        feature, before, after, n_constant_features = _best_split(columns, room, node, state, settings)
        if feature < 0:
            continue
        n_left = _partition_rows(room, columns.ranks, feature, start, n, before)
        left0, left1 = _sum_draws(room, start, n_left, half)
        right0, right1 = zeros - left0, ones - left1
        gini_left, gini_right = _gini(left0, left1), _gini(right0, right1)
        improvement = impurity - (right0 + right1) / weight * gini_right - (left0 + left1) / weight * gini_left
        if weight / (total0 + total1) * improvement + EPSILON < 0.0:
            continue
        values = columns.values[columns.starts[feature]:]
        grown.feature[number] = feature
        grown.threshold[number] = np.float64(values[before]) / 2.0 + np.float64(values[after]) / 2.0
        _push(stack, n_on_stack, start + n_left, n - n_left, depth + 1, number, n_constant_features)
        _push(stack, n_on_stack + 1, start, n_left, depth + 1, number, n_constant_features)
        impurities[n_on_stack], impurities[n_on_stack + 1] = gini_right, gini_left
        n_on_stack += 2
    return n_nodes


class Grower:
    """Trees on one set of rows."""

    def __init__(
        self, X: NDArray[np.float32], y: NDArray[np.int8], *,
        max_features: int, max_depth: int, min_samples_split: int, min_samples_leaf: int,
    ) -> None:
        """Prepare what all trees share.

        Args:
            X: finite, shape (n_rows, n_features).
            y: 0 or 1, shape (n_rows,).
            max_features: features that are tried at a node, at least; constant ones do not count.
            max_depth: levels below the root.
            min_samples_split: distinct rows of a node that is split, at least.
            min_samples_leaf: distinct rows of a leaf, at least.
        """
        self._columns = rank_columns(X)
        self._room = open_room(self._columns)
        self._y = np.array(y, dtype=np.int8)  # a read-only one would have `_grow` compiled once more
        self._settings = Settings(max_features, max_depth, min_samples_split, min_samples_leaf)
        most = 2 * len(X)  # nodes
        left, right, feature, n_rows = np.empty((4, most), dtype=np.int64)
        self._grown = Tree(left, right, feature, np.empty(most), n_rows, np.empty((most, 2)))

    def grow(self, draws: NDArray[np.int64], state: int) -> Tree:
        """One tree.

        Args:
            draws: how often each row was drawn, shape (n_rows,); rows drawn 0 times are left out.
            state: of the generator, 32 bits.

        Raises:
            ValueError: a row was drawn more often than a key can say, 256 times of up to 65,536 rows.
        """
        if draws.max() >= (most := 1 << 4 * self._columns.ranks.itemsize):
            raise ValueError(f"a row must be drawn less than {most} times, got {draws.max()}")
        states = np.array([state or 1], dtype=np.uint64)
        n = _grow(self._columns, self._room, draws, self._y, states, self._settings, self._grown)
        return Tree._make(column[:n].copy() for column in self._grown)


@compiled
def _leaf(tree, X, row):
    """The leaf of a row."""
    node = 0
    while tree.children_left[node] >= 0:
        goes_left = X[row, tree.feature[node]] <= tree.threshold[node]
        node = tree.children_left[node] if goes_left else tree.children_right[node]
    return node


@compiled
def leaves(tree, X):
    """The leaf of each row of X, (n_rows,)."""
    found = np.empty(len(X), dtype=np.int64)
    for row in range(len(X)):
        found[row] = _leaf(tree, X, row)
    return found


@compiled
def read_off(tree, X, max_depth, min_samples_split, one, votes):
    """Add to votes, (n_rows, n_candidates), P(class 1) times `one` at the node where each candidate's tree ends."""
    n_nodes, n_candidates = len(tree.children_left), len(max_depth)
    depth = np.zeros(n_nodes, dtype=np.int64)
    value = np.zeros((n_nodes, n_candidates), dtype=np.int64)
    stopped = np.zeros((n_nodes, n_candidates), dtype=np.bool_)
    for node in range(n_nodes):
        left, right = tree.children_left[node], tree.children_right[node]
        for c in range(n_candidates):
            if not stopped[node, c]:
                value[node, c] = np.int64(np.rint(tree.value[node, 1] * one))
                stopped[node, c] = depth[node] >= max_depth[c] or tree.n_node_samples[node] < min_samples_split[c]
            if left >= 0 and stopped[node, c]:
                stopped[left, c] = stopped[right, c] = True
                value[left, c] = value[right, c] = value[node, c]
        if left >= 0:
            depth[left] = depth[right] = depth[node] + 1
    for row in range(len(X)):
        node = _leaf(tree, X, row)
        for c in range(n_candidates):
            votes[row, c] += value[node, c]
