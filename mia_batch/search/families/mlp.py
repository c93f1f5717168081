"""MLP: networks are trained step for step as MLPClassifier trains them, several times faster, by compiled loops.

Each operation on a network's numbers is the one of scikit-learn's `MLPClassifier`, in its order, so that the results
agree but for last bits. Candidates of one shape could share the gathering of batches, but then the cache would not hold
what one network touches: to train one after the other is faster, and leaves a task for each.

The loops are in kernels/mlp.py. It is imported where a network is trained, so that the process that hands out tasks
holds no compiler in memory.
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

from mia_batch.samples import Fold
from mia_batch.search.estimators import METHODS
from mia_batch.search.families.base import Family, fold_result
from mia_batch.search.families.stock import StockFamily

if TYPE_CHECKING:
    from mia_batch.search.kernels.mlp import Weights

Floats = NDArray[np.float64]
SPEEDUP = 4  # against scikit-learn, at 101 features; more at fewer
# Beyond these training is chaotic: networks that differ in a last bit end far apart.
MAX_LEARNING_RATE, MIN_BETA_2 = 0.1, 0.5
ROWS_AT_ONCE = 500  # of those to be decided on: what a network makes of them stays in the cache


class MlpFamily(StockFamily):
    """One candidate that compiled loops can train."""

    name = "MlpFamily"

    @property
    def engine(self) -> str:
        return "compiled"

    @staticmethod
    def preload() -> None:
        X, y = np.zeros((3, 1)), np.array([0, 1, 0], dtype=np.int8)
        train(METHODS["mlp"].build({"hidden_layer_sizes": (2, 2), "max_iter": 1}, seed=0), X, y).decide(X)

    def cost(self, chunk: Any, n_rows: int, n_features: int) -> float:
        return super().cost(chunk, n_rows, n_features) / SPEEDUP

    def run(self, fold: Fold, chunk: Any) -> dict[str, Any]:
        (params,) = self.candidates
        network = train(METHODS[self.method].build(params, seed=self.seed), fold.X_fit, fold.y_fit)
        return fold_result([network.decide(fold.X_val)], fold.y_val, [not network.converged])


def mlp_families(candidates: Sequence[tuple[int, Mapping[str, Any]]], seed: int) -> list[Family]:
    """A family for each candidate; what is not compiled is scikit-learn's."""
    families: list[Family] = []
    for index, params in candidates:
        kind = MlpFamily if compiles(METHODS["mlp"].build(params, seed=seed)) else StockFamily
        families.append(kind("mlp", (index,), (params,), seed))
    return families


def compiles(model: MLPClassifier) -> bool:
    """Whether kernels/mlp.py trains this network: by Adam, with steps so small that last bits stay last bits."""
    steady = model.learning_rate_init <= MAX_LEARNING_RATE and model.beta_2 >= MIN_BETA_2
    return bool(model.solver == "adam" and model.shuffle and not model.early_stopping and steady)


@dataclass(frozen=True)
class Network:
    """One trained network."""

    weights: Weights
    converged: bool

    def decide(self, X: Floats) -> NDArray[np.bool_]:
        """What MLPClassifier.predict gives, shape (n_rows,)."""
        return self.probability(X) > 0.5

    def probability(self, X: Floats) -> Floats:
        """P(member), shape (n_rows,)."""
        from mia_batch.search.kernels import mlp as mlp_kernels

        X, found = _plain(X, np.float64), np.empty(len(X))
        room = np.empty(ROWS_AT_ONCE * self.weights.sizes[1:].sum())
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            found[rows] = mlp_kernels.forward(X[rows], self.weights, room)
        return found


class StoppingRule:
    """When MLPClassifier stops: the loss has not improved by `tol` for `n_iter_no_change` epochs."""

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
        """Whether the loss ended the training, not `max_iter`."""
        return self.n_without > self.model.n_iter_no_change


def train(model: MLPClassifier, X: Floats, y: NDArray[np.int8]) -> Network:
    """Fit an MLPClassifier as its own `fit` would.

    Args:
        model: one that `compiles`, with an integer random_state; not changed.
        X: shape (n_rows, n_features).
        y: 0 or 1, shape (n_rows,).

    Raises:
        ValueError: weights are no longer finite.
    """
    from mia_batch.search.kernels import mlp as kernels

    random = check_random_state(model.random_state)
    weights = _initial((X.shape[1], *np.atleast_1d(model.hidden_layer_sizes).astype(int).tolist(), 1), model, random)
    settings = (model.alpha, model.learning_rate_init, model.beta_1, model.beta_2, model.epsilon)
    adam = kernels.Adam(_batch_size(model, len(X)), *map(float, settings))
    X, y = _plain(X, np.float64), _plain(y, np.int8)
    rule, order, n_steps, ended = StoppingRule(model), np.arange(len(X)), 0, False
    while not ended:
        order = order[random.permutation(len(order))]  # sklearn.utils.shuffle, which takes four times as long
        ended = rule.after_epoch(kernels.epoch(X, y, order, weights, adam, n_steps))
        n_steps += -(-len(order) // adam.batch_size)
    if not np.isfinite(weights.parameters).all():
        raise ValueError("mlp: weights must stay finite: the features are too large for this learning rate")
    return Network(weights, rule.converged)


def _plain(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The array in the layout that the loops are compiled for; any other would have them compiled once more."""
    return np.require(array, dtype, ("C", "A", "W"))


def _batch_size(model: MLPClassifier, n_rows: int) -> int:
    return min(200, n_rows) if model.batch_size == "auto" else int(np.clip(model.batch_size, 1, n_rows))


def _initial(sizes: Sequence[int], model: MLPClassifier, random: np.random.RandomState) -> Weights:
    """The Glorot start, drawn as MLPClassifier draws it."""
    from mia_batch.search.kernels import mlp as kernels

    factor, layers = 2.0 if model.activation == "logistic" else 6.0, []
    for fan_in, fan_out in itertools.pairwise(sizes):
        bound = np.sqrt(factor / (fan_in + fan_out))
        layers.append(random.uniform(-bound, bound, (fan_in, fan_out)).T.ravel())
        layers.append(random.uniform(-bound, bound, fan_out))
    parameters = np.concatenate(layers)
    moments = [np.zeros_like(parameters) for _ in range(3)]
    return kernels.Weights(np.array(sizes), kernels.ACTIVATIONS.index(model.activation), parameters, *moments)
