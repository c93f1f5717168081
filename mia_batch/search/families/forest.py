"""RF: one family of fully grown trees serves every `max_depth`, `min_samples_split` and `n_estimators` candidate.

scikit-learn's depth-first builder makes a node a leaf where depth >= max_depth or n_node_samples < min_samples_split,
and looks at neither when it chooses a split. So a tree with tighter limits is a fully grown tree, cut. With one
random_state the first trees of a forest are the trees of a smaller forest, so `n_estimators` nests too.

Other parameters do not nest. `min_samples_leaf`, `min_weight_fraction_leaf`, `max_features`, `criterion`, `bootstrap`,
`max_samples`, `class_weight` and `monotonic_cst` change which splits are chosen: each of their values has a family of
its own. `max_leaf_nodes` grows best-first, `min_impurity_decrease` depends on the weighted impurity of both children
and `ccp_alpha` prunes by a rule of its own: candidates with these are fitted one by one.

kernels/forest.py grows trees of the usual settings, several times faster than scikit-learn and the same to the last
bit; scikit-learn grows the others.
"""

from __future__ import annotations

import base64
import itertools
import logging
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import check_random_state

from mia_batch.samples import Fold
from mia_batch.search.estimators import METHODS, RESERVED
from mia_batch.search.families.base import Family, FoldScore, group_by
from mia_batch.search.families.stock import stock_families

if TYPE_CHECKING:  # only workers load compiled code: the process that schedules needs neither its time nor its memory
    from mia_batch.search.kernels.forest import Tree

log = logging.getLogger(__name__)
SHARED = ("max_depth", "min_samples_split", "n_estimators")
DO_NOT_NEST = ("max_leaf_nodes", "min_impurity_decrease", "ccp_alpha")
# The parameters that kernels/forest.py knows; it takes any other one at its default alone.
COMPILED = frozenset({*SHARED, "min_samples_leaf", "max_features", "bootstrap", "random_state", *RESERVED})
TREES_PER_TASK = 50
STOCK_AT_ONCE = 5  # trees, so that memory does not grow with the forest
# Seconds per tree, row and level, and the square root of the features.
COMPILED_SECONDS, STOCK_SECONDS = 1.8e-8, 1.1e-7
BYTES_PER_NODE = 6 * 8  # of Tree
BYTES_PER_ROW = 100  # of the memory for growing
# One, in sums of probabilities as whole numbers: they do not depend on the order in which trees are added.
ONE = 1 << 24


@dataclass(frozen=True)
class Limits:
    """Where a candidate cuts the trees."""

    max_depth: float  # infinity for None
    min_samples_split: int
    n_estimators: int


@dataclass(frozen=True)
class ForestFamily(Family):
    """Candidates that differ in `max_depth`, `min_samples_split` and `n_estimators` alone."""

    name = "ForestFamily"

    @property
    def engine(self) -> str:
        """What grows the trees."""
        return "compiled" if compiles(self.models[0]) else "scikit-learn"

    @staticmethod
    def preload() -> None:
        model = METHODS["rf"].build({"n_estimators": 1}, seed=0)
        X, y = np.arange(4.0).reshape(-1, 1), np.array([0, 1, 0, 1], dtype=np.int8)
        tree_votes(model, X, y, X, (0, 1))
        for tree in grow_trees(model, X, y, 0, 1):
            add_votes(np.zeros((4, 1), dtype=np.int64), tree, X.astype(np.float32), [Limits(np.inf, 2, 1)])

    @cached_property
    def models(self) -> list[RandomForestClassifier]:
        """The stock estimators of the candidates, not fitted."""
        return [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of trees; every candidate's forest ends at the end of one."""
        return tree_ranges([model.n_estimators for model in self.models])

    def cost(self, chunk: tuple[int, int], n_rows: int, n_features: int) -> float:
        return growing_seconds(self.models[0], chunk[1] - chunk[0], n_rows, n_features)

    def memory(self, n_rows: int, n_features: int) -> int:
        nodes = 2 * n_rows  # of a tree, at most
        growing = 2 * nodes * BYTES_PER_NODE + n_rows * (BYTES_PER_ROW + 2 * 8 * n_features)
        read_off = len(self.candidates) * 8 * (nodes + 2 * n_rows)
        return super().memory(n_rows, n_features) + growing + read_off

    def run(self, fold: Fold, chunk: tuple[int, int]) -> dict[str, Any]:
        """Grow a range of trees; the result holds every candidate's sum of P(member), packed."""
        limits = [candidate_limits(model, len(fold.X_fit)) for model in self.models]
        X_val = np.ascontiguousarray(fold.X_val, dtype=np.float32)  # what trees compare
        votes = np.zeros((len(X_val), len(limits)), dtype=np.int64)
        for tree in grow_trees(self._loosest(limits), fold.X_fit, fold.y_fit, *chunk):
            add_votes(votes, tree, X_val, limits)
        return {"votes": _pack(votes)}

    def _loosest(self, limits: Sequence[Limits]) -> RandomForestClassifier:
        """The forest whose trees, cut, are those of all candidates."""
        depth = max(limit.max_depth for limit in limits)
        loosest = {
            "max_depth": None if np.isinf(depth) else int(depth),
            "min_samples_split": min(limit.min_samples_split for limit in limits),
        }
        return METHODS[self.method].build({**self.candidates[0], **loosest}, seed=self.seed)

    def scores(self, results: Sequence[Mapping[str, Any]], y_val: NDArray[np.int8]) -> list[FoldScore]:
        """Accuracy of the first `n_estimators` trees of each candidate; a tie means non-member, as by argmax."""
        chunks = self.chunks()
        votes = [_unpack(result["votes"], len(y_val), len(self.models)) for result in results]
        scores = []
        for i, model in enumerate(self.models):
            total = sum(v[:, i] for v, (_, end) in zip(votes, chunks, strict=True) if end <= model.n_estimators)
            member = 2 * total > model.n_estimators * ONE
            scores.append(FoldScore(float(np.mean(member == y_val)), nonconverged=False))
        return scores


def tree_ranges(n_estimators: Sequence[int]) -> list[tuple[int, int]]:
    """The trees of the largest forest as ranges, one for each task; every forest ends where a range does."""
    cuts = sorted({*n_estimators, *range(0, max(n_estimators), TREES_PER_TASK)})
    return list(itertools.pairwise(cuts))


def growing_seconds(model: RandomForestClassifier, n_trees: int, n_rows: int, n_features: int) -> float:
    """Estimated seconds of one core for fully grown trees that try the root of n_features at each node."""
    per_level = COMPILED_SECONDS if compiles(model) else STOCK_SECONDS
    return float(per_level * n_trees * n_rows * np.log2(max(n_rows, 2)) * n_features**0.5)


def candidate_limits(model: RandomForestClassifier, n_fit: int) -> Limits:
    """The limits as scikit-learn's builder applies them to `n_fit` rows (fractions become counts)."""
    depth = np.inf if model.max_depth is None else model.max_depth
    return Limits(depth, _count(model.min_samples_split, n_fit, least=2), model.n_estimators)


def _count(limit: float, n_rows: int, *, least: int) -> int:
    """A limit on rows as scikit-learn counts it, from a number of rows or a share of `n_rows`."""
    return int(limit) if isinstance(limit, int | np.integer) else max(least, int(np.ceil(limit * n_rows)))


def add_votes(votes: NDArray[np.int64], tree: Tree, X: NDArray[np.float32], limits: Sequence[Limits]) -> None:
    """Add P(member) of each row under each candidate's cut of one fully grown tree, times ONE.

    Args:
        votes: shape (n_rows, n_candidates), changed.
        tree: grown with limits at least as loose as any of `limits`.
        X: shape (n_rows, n_features), C-contiguous.
        limits: of the candidates.
    """
    from mia_batch.search.kernels.forest import read_off

    max_depth = np.array([limit.max_depth for limit in limits], dtype=np.float64)
    min_samples_split = np.array([limit.min_samples_split for limit in limits], dtype=np.int64)
    read_off(tree, X, max_depth, min_samples_split, ONE, votes)


def compiles(model: RandomForestClassifier) -> bool:
    """Whether kernels/forest.py grows this forest's trees."""
    default = RandomForestClassifier().get_params()
    return all(value == default[name] for name, value in model.get_params().items() if name not in COMPILED)


def grow_trees(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> Iterator[Tree]:
    """Trees `first`..`end` - 1 of the forest that `model` with n_estimators >= end would fit, tree for tree."""
    grow = _compiled_trees if compiles(model) else _stock_trees
    return grow(model, X, y, first, end)


def _compiled_trees(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> Iterator[Tree]:
    from mia_batch.search.kernels.forest import Grower

    n_rows, n_features = X.shape
    limits = candidate_limits(model, n_rows)
    leaf = _count(model.min_samples_leaf, n_rows, least=1)
    depth = n_rows if np.isinf(limits.max_depth) else int(limits.max_depth)
    grower = Grower(
        X.astype(np.float32), y, max_features=n_tried(model.max_features, n_features), max_depth=depth,
        min_samples_split=limits.min_samples_split, min_samples_leaf=leaf,
    )
    for seed in tree_seeds(model, end)[first:]:
        # scikit-learn starts a tree's generator twice from its seed: for its rows, and for its features.
        sample = np.random.RandomState(seed).randint(0, n_rows, n_rows) if model.bootstrap else np.arange(n_rows)
        state = np.random.RandomState(seed).randint(0, np.iinfo(np.int32).max)
        yield grower.grow(np.bincount(sample, minlength=n_rows), state)


def tree_seeds(model: RandomForestClassifier, end: int) -> list[int]:
    """The random_state of each of the first trees."""
    random = check_random_state(model.random_state)
    return [int(random.randint(np.iinfo(np.int32).max)) for _ in range(end)]


def n_tried(max_features: Any, n_features: int) -> int:
    """Features tried at a node, of `n_features`, as scikit-learn counts them."""
    if max_features is None:
        return n_features
    if isinstance(max_features, str):
        return max(1, int(np.sqrt(n_features) if max_features == "sqrt" else np.log2(n_features)))
    return int(max_features) if isinstance(max_features, int | np.integer) else max(1, int(max_features * n_features))


def _stock_trees(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> Iterator[Tree]:
    for start in range(first, end, STOCK_AT_ONCE):
        for tree in fit_trees(model, X, y, start, min(start + STOCK_AT_ONCE, end)):
            yield as_tree(tree)


def fit_trees(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], first: int, end: int
) -> list[DecisionTreeClassifier]:
    """Trees `first`..`end` - 1 by scikit-learn, without the trees before them.

    A warm start draws the seeds of the trees that the forest has already, and skips them. Here these are stand-ins.
    """
    forest = RandomForestClassifier(**model.get_params())
    forest.set_params(n_estimators=end, warm_start=True, n_jobs=None)
    forest.estimators_ = [None] * first
    with warnings.catch_warnings():
        # scikit-learn warns that a warm start may see other rows; ours sees the same.
        warnings.filterwarnings("ignore", "class_weight presets", UserWarning)
        return forest.fit(X, y).estimators_[first:]


def as_tree(fitted: DecisionTreeClassifier) -> Tree:
    """A fitted tree of two classes."""
    from mia_batch.search.kernels.forest import Tree

    grown, value = fitted.tree_, np.asarray(fitted.tree_.value)[:, 0, :]
    whole = [grown.children_left, grown.children_right, grown.feature, grown.n_node_samples]
    left, right, feature, n_rows = (np.array(column, dtype=np.int64) for column in whole)
    return Tree(left, right, feature, np.array(grown.threshold), n_rows, value.copy())


def forest_families(candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Family]:
    """Families of the RF grid."""
    families: list[Family] = []
    for group in group_by(candidates, SHARED):
        if any(name in group[0][1] for name in DO_NOT_NEST):
            families += stock_families("rf", group, seed)
            continue
        indices, members = zip(*group, strict=True)
        families.append(ForestFamily("rf", indices, members, seed))
    return families


@dataclass(frozen=True)
class VoteSum:
    """Votes of some trees, added up."""

    total: NDArray[np.float64]  # (n_eval, 2)
    n_trees: int


def tree_votes(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], X_eval: NDArray[Any], trees: tuple[int, int]
) -> NDArray[np.float64]:
    """Probabilities by trees `trees[0]`..`trees[1]` - 1 of the final forest, shape (n_trees, n_eval, 2)."""
    return np.stack(list(_votes_of_each(model, X, y, X_eval, trees)))


def summed_votes(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], X_eval: NDArray[Any], trees: tuple[int, int]
) -> VoteSum:
    """The sum of `tree_votes` over the trees, for so many rows that those of each tree take too much memory."""
    votes = _votes_of_each(model, X, y, X_eval, trees)
    total = next(votes).copy()
    for each in votes:
        total += each
    return VoteSum(total, trees[1] - trees[0])


def _votes_of_each(
    model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], X_eval: NDArray[Any], trees: tuple[int, int]
) -> Iterator[NDArray[np.float64]]:
    from mia_batch.search.kernels.forest import leaves

    rows = np.ascontiguousarray(X_eval, dtype=np.float32)
    grow = _compiled_trees if compiles(model) and grows_as_stock(model, X, y, trees[0]) else _stock_trees
    return (tree.value[leaves(tree, rows)] for tree in grow(model, X, y, *trees))


def grows_as_stock(model: RandomForestClassifier, X: NDArray[Any], y: NDArray[Any], number: int) -> bool:
    """Whether a compiled tree equals scikit-learn's in every bit; on another release or processor it may not."""
    ours, stock = (next(grow(model, X, y, number, number + 1)) for grow in (_compiled_trees, _stock_trees))
    same = all(np.array_equal(mine, its) for mine, its in zip(ours, stock, strict=True))
    if not same:
        log.warning("scikit-learn's trees differ here from the compiled code's: scikit-learn fits the final forest")
    return same


def summed_probabilities(sums: Sequence[VoteSum]) -> NDArray[np.float64]:
    """`forest_probabilities` from sums, to a rounding of them."""
    total = sums[0].total.copy()
    for each in sums[1:]:
        total += each.total
    return total / sum(each.n_trees for each in sums)


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


def _unpack(text: str, n_rows: int, n_candidates: int) -> NDArray[np.int64]:
    votes = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    return votes.reshape(n_rows, n_candidates).astype(np.int64)
