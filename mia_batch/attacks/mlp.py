"""MLP: candidates of one shape are trained side by side as stacked arrays, step for step as MLPClassifier trains each.

Candidates with one random_state and shape start from the same weights and see the same batches in the same order. Their
first layers are therefore one matrix product, of all candidates' weights below each other with the batch; what follows
is a batched product; and Adam runs once over one flat vector of all their parameters. Arrays are units first, rows of
the batch last, so that each candidate's part of any of them is one piece of memory. Each operation on a candidate's
numbers is the one of scikit-learn's `MLPClassifier`, in its order, so that the results agree but for last bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_random_state, shuffle

from mia_batch.attacks.classifiers import METHODS
from mia_batch.attacks.stock import StockFamily, stock_families
from mia_batch.attacks.tasks import Family, Fold, fold_result, group_by

Floats = NDArray[np.float64]
# What may differ between candidates that are trained side by side.
SHARED = ("alpha", "learning_rate_init", "tol", "n_iter_no_change", "max_iter")
MAX_SIDE_BY_SIDE = 6  # beyond that their parameters leave the cache, and other cores would wait


class MlpFamily(StockFamily):
    """Adam candidates of one shape and seed that differ in the parameters of SHARED alone."""

    def cost(self, piece: Any, n_rows: int, n_features: int) -> float:
        return super().cost(piece, n_rows, n_features) * (1 + len(self.candidates)) / (3 * len(self.candidates))

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

    coefs: list[Floats]  # by layer, (fan_in, fan_out)
    intercepts: list[Floats]  # by layer, (fan_out,)
    activation: str
    n_iter: int
    converged: bool

    def decide(self, X: Floats) -> NDArray[np.bool_]:
        """MLPClassifier.predict, shape (n_rows,)."""
        return self.probability(X) > 0.5

    def probability(self, X: Floats) -> Floats:
        """P(member), shape (n_rows,)."""
        a = X
        for layer, (coef, intercept) in enumerate(zip(self.coefs, self.intercepts, strict=True)):
            a = a @ coef
            a += intercept
            activate("logistic" if layer == len(self.coefs) - 1 else self.activation, a)
        return a[:, 0]


def activate(name: str, z: Floats) -> None:
    """Apply an activation in place."""
    if name == "relu":
        np.maximum(z, 0, out=z)
    elif name == "logistic":
        expit(z, out=z)
    elif name == "tanh":
        np.tanh(z, out=z)


def _slope(name: str, a: Floats) -> Any:
    """Factors of the derivative of an activation where its value is `a`."""
    if name == "relu":
        return (a > 0,)
    return {"identity": lambda: (), "logistic": lambda: (a.copy(), 1 - a), "tanh": lambda: (1 - a**2,)}[name]()


@dataclass(frozen=True)
class Layout:
    """Where the parameters of networks of one shape lie in one flat vector.

    Layer by layer, weights before intercepts, in each of these one model after the other.
    """

    sizes: tuple[int, ...]  # units by layer, the features first
    n_models: int

    @property
    def n_values(self) -> int:
        """Parameters of all models."""
        return self.n_models * sum((a + 1) * b for a, b in itertools.pairwise(self.sizes))

    def views(self, vector: Floats) -> tuple[list[Floats], list[Floats]]:
        """Weights (n_models, fan_out, fan_in) and intercepts (n_models, fan_out) by layer, as views of `vector`."""
        weights: list[Floats] = []
        intercepts: list[Floats] = []
        start = 0
        for fan_in, fan_out in itertools.pairwise(self.sizes):
            for views, shape in ((weights, (fan_out, fan_in)), (intercepts, (fan_out,))):
                end = start + self.n_models * math.prod(shape)
                views.append(vector[start:end].reshape(self.n_models, *shape))
                start = end
        return weights, intercepts

    def per_weight(self, values: Sequence[float], *, intercepts: bool) -> Floats:
        """One value per model, repeated for each of its weights, and for its intercepts or 0 for these."""
        vector = np.zeros(self.n_values)
        for group in self.views(vector)[: 2 if intercepts else 1]:
            for view in group:
                view += np.reshape(values, (-1, *[1] * (view.ndim - 1)))
        return vector


class Batch:
    """Room for one batch of `n_rows` through all layers of all models: allocated once, used at every step.

    Going back, the error of a layer overwrites its values: what a step touches should stay in the cache.
    """

    def __init__(self, layout: Layout, n_rows: int) -> None:
        self.X = np.empty((n_rows, layout.sizes[0]))
        self.values = [np.empty((layout.n_models, size, n_rows)) for size in layout.sizes[1:]]  # by layer
        self.ones = np.ones(n_rows)


class Trainer:
    """Networks in training side by side: parameters, Adam's moments, and the room for a step."""

    def __init__(self, models: Sequence[MLPClassifier], layout: Layout, parameters: Floats) -> None:
        self.models, self.layout = list(models), layout
        self.parameters = parameters
        self.first_moment, self.second_moment = np.zeros_like(parameters), np.zeros_like(parameters)
        self.n_steps = 0
        self._bind()

    def _bind(self) -> None:
        """Views and buffers for the models that are left."""
        rates = [model.learning_rate_init for model in self.models]
        self.rate: Any = rates[0] if len(set(rates)) == 1 else self.layout.per_weight(rates, intercepts=True)
        self.alpha = self.layout.per_weight([model.alpha for model in self.models], intercepts=False)
        self.gradient, self.scratch = np.empty_like(self.parameters), np.empty_like(self.parameters)
        self.weights, self.intercepts = self.layout.views(self.parameters)
        self.weight_gradients, self.intercept_gradients = self.layout.views(self.gradient)
        self.batches: dict[int, Batch] = {}

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with some of the models."""
        smaller = Layout(self.layout.sizes, len(positions))
        for name in ("parameters", "first_moment", "second_moment"):
            old, new = getattr(self, name), np.empty(smaller.n_values)
            for source, target in zip(self.layout.views(old), smaller.views(new), strict=True):
                for there, here in zip(source, target, strict=True):
                    here[:] = there[positions]
            setattr(self, name, new)
        self.models, self.layout = [self.models[i] for i in positions], smaller
        self._bind()

    def network(self, position: int, n_iter: int, *, converged: bool) -> Network:
        """A copy of one model as it is now."""
        coefs = [view[position].T.copy() for view in self.weights]
        intercepts = [view[position].copy() for view in self.intercepts]
        return Network(coefs, intercepts, self.models[position].activation, n_iter, converged)

    def step(self, X: Floats, y: NDArray[np.bool_], rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """One step of every model on the batch `rows`.

        Returns:
            P(member), (n_models, n_batch), and the sum of squared weights, (n_models,), both from before the step.
        """
        if len(rows) not in self.batches:
            self.batches[len(rows)] = Batch(self.layout, len(rows))
        batch = self.batches[len(rows)]
        np.take(X, rows, axis=0, out=batch.X, mode="clip")
        self._forward(batch)
        probability = batch.values[-1][:, 0].copy()
        squares = self._squared_weights()
        self._backward(batch, y[rows])
        self._adam(len(rows))
        return probability, squares

    def _forward(self, batch: Batch) -> None:
        activation, last = self.models[0].activation, len(self.weights) - 1
        for layer, (weights, value) in enumerate(zip(self.weights, batch.values, strict=True)):
            if layer == 0:
                np.matmul(_below_each_other(weights), batch.X.T, out=_below_each_other(value))
            else:
                np.matmul(weights, batch.values[layer - 1], out=value)
            value += self.intercepts[layer][:, :, np.newaxis]
            activate("logistic" if layer == last else activation, value)

    def _backward(self, batch: Batch, y: NDArray[np.bool_]) -> None:
        delta = batch.values[-1]
        delta -= y
        for layer in range(len(self.weights) - 1, -1, -1):
            np.matmul(delta, batch.ones, out=self.intercept_gradients[layer])
            if layer == 0:
                np.matmul(_below_each_other(delta), batch.X, out=_below_each_other(self.weight_gradients[0]))
                return
            below = batch.values[layer - 1]
            np.matmul(delta, below.transpose(0, 2, 1), out=self.weight_gradients[layer])
            slopes = _slope(self.models[0].activation, below)
            if delta.shape[1] == 1:  # one output: an outer product
                np.multiply(self.weights[layer].transpose(0, 2, 1), delta, out=below)
            else:
                np.matmul(self.weights[layer].transpose(0, 2, 1), delta, out=below)
            for slope in slopes:
                below *= slope
            delta = below

    def _squared_weights(self) -> Floats:
        by_model = ([part.reshape(-1) for part in weights] for weights in self.weights)
        return np.sum([[part @ part for part in parts] for parts in by_model], axis=0)

    def _adam(self, n_batch: int) -> None:
        """Kingma & Ba 2014, arXiv 1412.6980, operation by operation in scikit-learn's order."""
        model = self.models[0]
        gradient, scratch = self.gradient, self.scratch
        np.multiply(self.alpha, self.parameters, out=scratch)
        gradient += scratch
        gradient /= n_batch
        self.n_steps += 1
        np.multiply(gradient, 1 - model.beta_1, out=scratch)
        self.first_moment *= model.beta_1
        self.first_moment += scratch
        np.square(gradient, out=scratch)
        scratch *= 1 - model.beta_2
        self.second_moment *= model.beta_2
        self.second_moment += scratch
        rate = self.rate * np.sqrt(1 - model.beta_2**self.n_steps) / (1 - model.beta_1**self.n_steps)
        np.sqrt(self.second_moment, out=scratch)
        scratch += model.epsilon
        np.multiply(self.first_moment, -rate, out=gradient)
        gradient /= scratch
        self.parameters += gradient


def _below_each_other(by_model: Floats) -> Floats:
    """All models' units as the rows of one matrix, (n_models * n_units, n), a view."""
    return by_model.reshape(-1, by_model.shape[2])


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
    trainer = Trainer(models, *_initial(models, X.shape[1], random))
    rules = [StoppingRule(model) for model in models]
    running, networks = list(range(len(models))), {}
    order = np.arange(len(X))
    while running:
        order = shuffle(order, random_state=random)
        losses = _epoch(trainer, np.asarray(X, dtype=np.float64), y.astype(bool), order)
        ended = [rules[i].after_epoch(loss) for i, loss in zip(running, losses, strict=True)]
        for position in np.flatnonzero(ended):
            rule = rules[running[position]]
            networks[running[position]] = trainer.network(position, rule.n_iter, converged=rule.converged)
        if any(ended):
            stay = [position for position, over in enumerate(ended) if not over]
            running = [running[position] for position in stay]
            trainer.keep(stay)
    _check_finite(networks.values())
    return [networks[i] for i in range(len(models))]


def _initial(models: Sequence[MLPClassifier], n_features: int, random: np.random.RandomState) -> tuple[Layout, Floats]:
    """The same Glorot start for every model, drawn as MLPClassifier draws it."""
    hidden = np.atleast_1d(models[0].hidden_layer_sizes).tolist()
    layout = Layout((n_features, *hidden, 1), len(models))
    parameters = np.zeros(layout.n_values)
    factor = 2.0 if models[0].activation == "logistic" else 6.0
    for weights, intercepts in zip(*layout.views(parameters), strict=True):
        _, fan_out, fan_in = weights.shape
        bound = np.sqrt(factor / (fan_in + fan_out))
        weights[:] = random.uniform(-bound, bound, (fan_in, fan_out)).T
        intercepts[:] = random.uniform(-bound, bound, intercepts.shape[1:])
    return layout, parameters


def _epoch(trainer: Trainer, X: Floats, y: NDArray[np.bool_], order: NDArray[np.int64]) -> Floats:
    """One pass over the rows; returns every model's mean loss, penalty included, shape (n_models,)."""
    n_rows, size = len(X), trainer.models[0].batch_size
    size = min(200, n_rows) if size == "auto" else int(np.clip(size, 1, n_rows))
    probability = np.empty((len(trainer.models), n_rows))
    squares = np.zeros(len(trainer.models))
    for start in range(0, n_rows, size):
        batch = slice(start, start + size)
        probability[:, batch], weights = trainer.step(X, y, order[batch])
        squares += weights
    # A batch's penalty is divided by its length and its loss multiplied with it, so that squares simply add up.
    penalty = 0.5 * np.array([model.alpha for model in trainer.models]) * squares
    return (_log_loss(y[order], probability).sum(axis=1) + penalty) / n_rows


def _log_loss(y: NDArray[np.bool_], probability: Floats) -> Floats:
    eps = np.finfo(np.float64).eps
    clipped = np.clip(probability, eps, 1 - eps)
    return -(xlogy(y, clipped) + xlogy(1 - y, 1 - clipped))


def _check_finite(networks: Iterable[Network]) -> None:
    for network in networks:
        if not all(np.isfinite(part).all() for part in (*network.coefs, *network.intercepts)):
            raise ValueError("mlp: weights must stay finite: the features are too large for this learning rate")
