"""MLP: candidates of one shape are trained side by side, step for step as MLPClassifier trains each, by compiled loops.

Candidates with one random_state and shape start from the same weights and see the same batches in the same order: both
are drawn once. Each candidate then goes through a whole epoch by itself, so that what it touches stays in the cache.
Each operation on its numbers is the one of scikit-learn's `MLPClassifier`, in its order, so that the results agree but
for last bits.

The loops are in `mlp_kernels`, which is imported where a network is trained: the process that only hands out tasks
needs no compiler in its memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_random_state

from mia_batch.attacks.classifiers import METHODS
from mia_batch.attacks.stock import StockFamily, stock_families
from mia_batch.attacks.tasks import Family, Fold, fold_result, group_by

if TYPE_CHECKING:
    from mia_batch.attacks.mlp_kernels import Weights

Floats = NDArray[np.float64]
# What may differ between candidates that are trained side by side.
SHARED = ("alpha", "learning_rate_init", "tol", "n_iter_no_change", "max_iter")
MAX_SIDE_BY_SIDE = 6  # one after the other on one core: with more of them other cores would wait
ROWS_AT_ONCE = 500  # of those to be decided on: what a network makes of them stays in the cache


class MlpFamily(StockFamily):
    """Adam candidates of one shape and seed that differ in the parameters of SHARED alone."""

    def cost(self, piece: Any, n_rows: int, n_features: int) -> float:
        return super().cost(piece, n_rows, n_features) / 3  # a quarter at 101 features, an eighth at 11

    def run(self, fold: Fold, piece: Any) -> dict[str, Any]:
        models = [METHODS[self.method].build(params, seed=self.seed) for params in self.candidates]
        networks = train_side_by_side(models, fold.X_fit, fold.y_fit)
        decisions = [network.decide(fold.X_val) for network in networks]
        return fold_result(decisions, fold.y_val, [not network.converged for network in networks])


def mlp_families(candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Family]:
    """Families of the MLP grid; other solvers, early stopping and unshuffled batches are fitted one by one."""
    families: list[Family] = []
    for group in group_by(candidates, SHARED):
        if not _stacks(METHODS["mlp"].build(group[0][1], seed=seed)):
            families += stock_families("mlp", group, seed)
            continue
        for start in range(0, len(group), MAX_SIDE_BY_SIDE):
            indices, members = zip(*group[start : start + MAX_SIDE_BY_SIDE], strict=True)
            families.append(MlpFamily("mlp", indices, members, seed))
    return families


def _stacks(model: MLPClassifier) -> bool:
    return model.solver == "adam" and model.shuffle and not model.early_stopping


@dataclass(frozen=True)
class Network:
    """One trained network."""

    weights: Weights
    n_iter: int
    converged: bool

    @property
    def coefs(self) -> list[Floats]:
        """Weights by layer, (fan_in, fan_out), views."""
        return [weights.T for weights in self._by_layer("layer_weights")]

    @property
    def intercepts(self) -> list[Floats]:
        """By layer, (fan_out,), views."""
        return self._by_layer("layer_intercepts")

    def _by_layer(self, part: str) -> list[Floats]:
        from mia_batch.attacks import mlp_kernels

        view, (parameters, sizes) = getattr(mlp_kernels, part), (self.weights.parameters, self.weights.sizes)
        return [view(parameters, sizes, layer) for layer in range(len(sizes) - 1)]

    def decide(self, X: Floats) -> NDArray[np.bool_]:
        """MLPClassifier.predict, shape (n_rows,)."""
        return self.probability(X) > 0.5

    def probability(self, X: Floats) -> Floats:
        """P(member), shape (n_rows,)."""
        from mia_batch.attacks import mlp_kernels

        X, found = _plain(X, np.float64), np.empty(len(X))
        room = np.empty(ROWS_AT_ONCE * self.weights.sizes[1:].sum())
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            found[rows] = mlp_kernels.forward(X[rows], self.weights, room)
        return found


class Training:
    """One network in training."""

    def __init__(self, model: MLPClassifier, sizes: Sequence[int], parameters: Floats, n_rows: int) -> None:
        from mia_batch.attacks import mlp_kernels as kernels

        vectors = [parameters.copy(), *(np.zeros_like(parameters) for _ in range(3))]
        self.weights = kernels.Weights(np.array(sizes), kernels.ACTIVATIONS.index(model.activation), *vectors)
        settings = (model.alpha, model.learning_rate_init, model.beta_1, model.beta_2, model.epsilon)
        self.adam = kernels.Adam(_batch_size(model, n_rows), *map(float, settings))
        self.rule, self.n_steps = StoppingRule(model), 0

    def epoch(self, X: Floats, y: NDArray[np.int8], order: NDArray[np.int64]) -> bool:
        """Train for one epoch, of rows in this order; returns whether it was the last."""
        from mia_batch.attacks import mlp_kernels

        loss = mlp_kernels.epoch(X, y, order, self.weights, self.adam, self.n_steps)
        self.n_steps += -(-len(order) // self.adam.batch_size)
        return self.rule.after_epoch(loss)

    def network(self) -> Network:
        """What has been trained.

        Raises:
            ValueError: weights are no longer finite.
        """
        if not np.isfinite(self.weights.parameters).all():
            raise ValueError("mlp: weights must stay finite: the features are too large for this learning rate")
        return Network(self.weights, self.rule.n_iter, self.rule.converged)


class StoppingRule:
    """When MLPClassifier stops one model: the loss has not improved by `tol` for `n_iter_no_change` epochs."""

    def __init__(self, model: MLPClassifier) -> None:
        self.model = model
        self.best, self.n_without, self.n_iter = np.inf, 0, 0

    def after_epoch(self, loss: float) -> bool:
        """Take the epoch's mean loss; returns whether training ends here."""
        self.n_iter += 1
        self.n_without = self.n_without + 1 if loss > self.best - self.model.tol else 0
        self.best = min(self.best, loss)
        return self.converged or self.n_iter >= self.model.max_iter

    @property
    def converged(self) -> bool:
        """Whether it was the loss that ended it, not `max_iter`."""
        return self.n_without > self.model.n_iter_no_change


def train_side_by_side(models: Sequence[MLPClassifier], X: Floats, y: NDArray[np.int8]) -> list[Network]:
    """Fit MLPClassifiers that differ in SHARED parameters alone, each as its own `fit` would.

    Args:
        models: Adam, shuffled batches, no early stopping, an integer random_state; not changed.
        X: shape (n_rows, n_features).
        y: 0 or 1, shape (n_rows,).

    Raises:
        ValueError: a model's weights are no longer finite.
    """
    random = check_random_state(models[0].random_state)
    sizes = (X.shape[1], *np.atleast_1d(models[0].hidden_layer_sizes).astype(int).tolist(), 1)
    parameters = _initial(sizes, models[0].activation, random)
    trainings = [Training(model, sizes, parameters, len(X)) for model in models]
    X, y = _plain(X, np.float64), _plain(y, np.int8)
    order, running = np.arange(len(X)), trainings
    while running:
        order = order[random.permutation(len(order))]  # sklearn.utils.shuffle, which takes four times as long
        running = [training for training in running if not training.epoch(X, y, order)]
    return [training.network() for training in trainings]


def _plain(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """As the kind of array that the loops are compiled for: any other would have them compiled once more."""
    return np.require(array, dtype, ("C", "A", "W"))


def _batch_size(model: MLPClassifier, n_rows: int) -> int:
    return min(200, n_rows) if model.batch_size == "auto" else int(np.clip(model.batch_size, 1, n_rows))


def _initial(sizes: Sequence[int], activation: str, random: np.random.RandomState) -> Floats:
    """The Glorot start, as one vector of all layers, drawn as MLPClassifier draws it."""
    factor, layers = 2.0 if activation == "logistic" else 6.0, []
    for fan_in, fan_out in itertools.pairwise(sizes):
        bound = np.sqrt(factor / (fan_in + fan_out))
        layers.append(random.uniform(-bound, bound, (fan_in, fan_out)).T.ravel())
        layers.append(random.uniform(-bound, bound, fan_out))
    return np.concatenate(layers)
