"""RF: one family of fully grown trees serves every `max_depth`, `min_samples_split` and `n_estimators` candidate.

scikit-learn's depth-first builder makes a node a leaf where depth >= max_depth or n_node_samples < min_samples_split,
and looks at neither when it chooses a split. A tree with tighter limits is therefore a fully grown one, cut: the same
law of random trees, and with one random_state the first trees of a forest are the trees of a smaller one
(`n_estimators` nests). What does not nest: `min_samples_leaf`, `min_weight_fraction_leaf`, `max_features`,
`criterion`, `bootstrap`, `max_samples`, `class_weight` and `monotonic_cst` change which splits are chosen, so that each
of their values has a family of its own; `max_leaf_nodes` grows best-first, `min_impurity_decrease` depends on the
weighted impurity of both children and `ccp_alpha` prunes by a rule of its own: candidates with these are fitted one
by one.

scikit-learn-intelex splits between bins of values, and counts a node's draws where scikit-learn counts its rows: a row
drawn three times is three draws. Limits on counts are translated by the mean number of draws of a row that was drawn;
its trees then have as many nodes as scikit-learn's, but are other trees by another law.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from mia_batch.attacks.classifiers import METHODS
from mia_batch.attacks.stock import stock_families
from mia_batch.attacks.tasks import Family, Fold, FoldScore, group_by

SHARED = ("max_depth", "min_samples_split", "n_estimators")
DO_NOT_NEST = ("max_leaf_nodes", "min_impurity_decrease", "ccp_alpha")
TREES_PER_TASK = 25  # grown, read off and dropped, so that memory does not grow with the forest
INTELEX_SPEEDUP = 4
BYTES_PER_NODE = 64 + 16  # of scikit-learn's trees with two classes
DRAWS_PER_ROW = 1 / (1 - np.exp(-1))  # of a large bootstrap sample, of the rows that are in it
INTELEX_PARAMETERS = ("min_samples_leaf", "min_weight_fraction_leaf", "max_features", "bootstrap")
# Sums of probabilities as whole numbers: the same whatever the order and the cuts in which trees are added.
ONE = 1 << 24


@dataclass(frozen=True)
class Limits:
    """Where a candidate cuts the trees."""

    max_depth: float  # infinity for None
    min_samples_split: int
    n_estimators: int

    def in_draws(self) -> Limits:
        """For trees whose nodes count draws; nothing limits those that may split two."""
        split = self.min_samples_split
        return replace(self, min_samples_split=split if split == 2 else round(DRAWS_PER_ROW * split))


@dataclass(frozen=True)
class ForestFamily(Family):
    """Candidates that differ in `max_depth`, `min_samples_split` and `n_estimators` alone."""

    intelex: bool = False

    @property
    def engine(self) -> str:
        """Who grows the trees."""
        return "scikit-learn-intelex" if self.intelex else "scikit-learn"

    @cached_property
    def models(self) -> list[RandomForestClassifier]:
        """The stock estimators of the candidates, not fitted."""
        return [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]

    def pieces(self) -> list[tuple[int, int]]:
        """Ranges of trees; no candidate's forest ends within one."""
        return tree_ranges([model.n_estimators for model in self.models])

    def cost(self, piece: tuple[int, int], n_rows: int, n_features: int) -> float:
        seconds = growing_seconds(piece[1] - piece[0], n_rows, n_features)
        return seconds / INTELEX_SPEEDUP if self.intelex else seconds

    def memory(self, n_rows: int, n_features: int) -> int:
        nodes = 2 * n_rows  # of a tree, at most
        trees = TREES_PER_TASK * nodes * BYTES_PER_NODE
        read_off = len(self.candidates) * 8 * (nodes + 2 * n_rows)
        return super().memory(n_rows, n_features) + trees + read_off

    def run(self, fold: Fold, piece: tuple[int, int]) -> dict[str, Any]:
        """Grow a range of trees; the result holds every candidate's sum of P(member), packed."""
        n_fit = len(fold.X_fit)
        limits = [candidate_limits(model, n_fit) for model in self.models]
        cuts = [limit.in_draws() if self.intelex and self.models[0].bootstrap else limit for limit in limits]
        X_val = np.ascontiguousarray(fold.X_val, dtype=np.float32)  # what trees compare
        votes = np.zeros((len(limits), len(X_val)), dtype=np.int64)
        for tree in self._grow(fold, *piece, limits):
            votes += read_off(tree, X_val, cuts)
        return {"votes": _pack(votes)}

    def _grow(self, fold: Fold, first: int, end: int, limits: Sequence[Limits]) -> list[DecisionTreeClassifier]:
        """Trees `first`..`end` - 1, with the loosest limits of the family."""
        depth = max(limit.max_depth for limit in limits)
        loosest = {
            "max_depth": None if np.isinf(depth) else int(depth),
            "min_samples_split": min(limit.min_samples_split for limit in limits),
        }
        model = METHODS[self.method].build({**self.candidates[0], **loosest}, seed=self.seed)
        grow = grow_trees_intelex if self.intelex else grow_trees
        return grow(model, fold.X_fit, fold.y_fit, first, end)

    def scores(self, results: Sequence[Mapping[str, Any]], y_val: NDArray[np.int8]) -> list[FoldScore]:
        """Accuracy of the first `n_estimators` trees of each candidate; a draw is a non-member, as by argmax."""
        pieces = self.pieces()
        votes = [_unpack(result["votes"], len(self.models), len(y_val)) for result in results]
        scores = []
        for i, model in enumerate(self.models):
            total = sum(v[i] for v, (_, end) in zip(votes, pieces, strict=True) if end <= model.n_estimators)
            member = 2 * total > model.n_estimators * ONE
            scores.append(FoldScore(float(np.mean(member == y_val)), nonconverged=False))
        return scores


def tree_ranges(n_estimators: Sequence[int]) -> list[tuple[int, int]]:
    """The trees of the largest forest in ranges for one task each; every forest ends where a range does."""
    cuts = sorted({*n_estimators, *range(0, max(n_estimators), TREES_PER_TASK)})
    return list(itertools.pairwise(cuts))


def growing_seconds(n_trees: int, n_rows: int, n_features: int) -> float:
    """Estimated seconds of one core for fully grown trees that try the root of n_features at each node."""
    return float(6e-8 * n_trees * n_rows * np.log2(max(n_rows, 2)) * n_features**0.5)


def candidate_limits(model: RandomForestClassifier, n_fit: int) -> Limits:
    """The limits as scikit-learn's builder applies them to `n_fit` rows (fractions become counts)."""
    depth = np.inf if model.max_depth is None else model.max_depth
    return Limits(depth, _count(model.min_samples_split, n_fit, least=2), model.n_estimators)


def _count(limit: float, n_rows: int, *, least: int) -> int:
    """A limit on rows, given as a number of them or as a share of `n_rows`, as scikit-learn counts it."""
    return int(limit) if isinstance(limit, int | np.integer) else max(least, int(np.ceil(limit * n_rows)))


def read_off(tree: DecisionTreeClassifier, X: NDArray[np.float32], limits: Sequence[Limits]) -> NDArray[np.int64]:
    """P(member) of each row under each candidate's cut of one fully grown tree, times ONE.

    Returns:
        Shape (n_candidates, n_rows).
    """
    grown = tree.tree_
    leaves = grown.apply(X)
    cut_value = cut_values(grown, limits)
    return np.rint(cut_value[:, leaves] * ONE).astype(np.int64)


def cut_values(grown: Any, limits: Sequence[Limits]) -> NDArray[np.float64]:
    """For each candidate and node the value of the node itself, or of its first ancestor where the candidate stops.

    Goes down one level of the tree at a time, over all its nodes and all candidates at once.

    Args:
        grown: a fitted `tree_` of two classes.
        limits: of the candidates, n_candidates of them.

    Returns:
        P(class 1), shape (n_candidates, n_nodes); meaningful at the leaves of the full tree.
    """
    levels, parents = tree_levels(grown.children_left, grown.children_right)
    value = np.asarray(grown.value)[:, 0, :]
    member = value[:, 1] / value.sum(axis=1)
    max_depth = np.array([limit.max_depth for limit in limits])[:, np.newaxis]
    min_split = np.array([limit.min_samples_split for limit in limits])[:, np.newaxis]
    small = grown.n_node_samples < min_split
    result = np.tile(member, (len(limits), 1))
    stopped = np.zeros(result.shape, dtype=bool)
    for depth, nodes in enumerate(levels):
        if depth:
            above = parents[nodes]
            was_stopped = stopped[:, above]
            result[:, nodes] = np.where(was_stopped, result[:, above], member[nodes])
            stopped[:, nodes] = was_stopped
        stopped[:, nodes] |= small[:, nodes] | (depth >= max_depth)
    return result


def tree_levels(left: NDArray[np.intp], right: NDArray[np.intp]) -> tuple[list[NDArray[np.intp]], NDArray[np.intp]]:
    """Nodes of a tree by depth, and each node's parent (-1 for the root), from its children (-1 at leaves)."""
    parents = np.full(len(left), -1, dtype=np.intp)
    levels = [np.zeros(1, dtype=np.intp)]
    while True:
        nodes = levels[-1][left[levels[-1]] >= 0]
        if not nodes.size:
            return levels, parents
        parents[left[nodes]] = parents[right[nodes]] = nodes
        levels.append(np.concatenate([left[nodes], right[nodes]]))


def grow_trees(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> list[DecisionTreeClassifier]:
    """Trees `first`..`end` - 1 of the forest that `model` with n_estimators >= end would fit, each the same tree.

    A warm start draws and skips the seeds of the trees that are there already, here stand-ins.
    """
    forest = RandomForestClassifier(**model.get_params())
    forest.set_params(n_estimators=end, warm_start=True, n_jobs=None)
    forest.estimators_ = [None] * first
    with warnings.catch_warnings():
        # It fears that a warm start may see other rows; ours sees the same.
        warnings.filterwarnings("ignore", "class_weight presets", UserWarning)
        return forest.fit(X, y).estimators_[first:]


def grow_trees_intelex(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> list[DecisionTreeClassifier]:
    """`end` - `first` trees by scikit-learn-intelex (histogram splits); seeds differ between parts of a forest."""
    from sklearnex.ensemble import RandomForestClassifier as FastForest

    seed = int(np.random.SeedSequence([model.random_state, first]).generate_state(1)[0] >> 1)
    settings = {name: getattr(model, name) for name in (*INTELEX_PARAMETERS, *SHARED)}
    leaf = _count(model.min_samples_leaf, len(X), least=1)
    settings["min_samples_leaf"] = round(DRAWS_PER_ROW * leaf) if model.bootstrap and leaf > 1 else leaf
    forest = FastForest(**{**settings, "n_estimators": end - first}, n_jobs=1, random_state=seed)
    return list(forest.fit(X, y).estimators_)


def intelex_available() -> bool:
    """Whether scikit-learn-intelex (extra `fast`) is installed."""
    return importlib.util.find_spec("sklearnex") is not None


def forest_families(candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int, *, intelex: bool) -> list[Family]:
    """Families of the RF grid; intelex grows those whose parameters it knows."""
    families: list[Family] = []
    for group in group_by(candidates, SHARED):
        if any(name in group[0][1] for name in DO_NOT_NEST):
            families += stock_families("rf", group, seed)
            continue
        indices, members = zip(*group, strict=True)
        known = set(members[0]) <= {*INTELEX_PARAMETERS, *SHARED}
        families.append(ForestFamily("rf", indices, members, seed, intelex=intelex and known))
    return families


def tree_votes(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], X_eval: NDArray[Any], trees: tuple[int, int]
) -> NDArray[np.float64]:
    """What trees `trees[0]`..`trees[1]` - 1 of the final forest say, shape (n_trees, n_eval, 2)."""
    grown = grow_trees(model, X, y, *trees)
    rows = np.ascontiguousarray(X_eval, dtype=np.float32)
    return np.stack([tree.predict_proba(rows, check_input=False) for tree in grown])


def forest_probabilities(votes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """RandomForestClassifier.predict_proba from all its trees' votes in order, shape (n_eval, 2), to the last bit."""
    total = np.zeros(votes[0].shape[1:])
    n_trees = 0
    for part in votes:
        for tree in part:
            total += tree
        n_trees += len(part)
    return total / n_trees


def _pack(votes: NDArray[np.int64]) -> str:
    return base64.b64encode(zlib.compress(votes.astype("<i4").tobytes(), 1)).decode()


def _unpack(text: str, n_candidates: int, n_rows: int) -> NDArray[np.int64]:
    votes = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    return votes.reshape(n_candidates, n_rows).astype(np.int64)
