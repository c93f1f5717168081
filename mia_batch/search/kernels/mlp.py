"""One epoch of training by Adam, compiled: BLAS does the matrix products, one pass over memory all between two of them.

numba takes np.dot from SciPy's BLAS: operands are contiguous and float64, results are written in place. That library
reads the environment's limit on threads as NumPy's does. Weights are (fan_out, fan_in) and layers give (n_units,
n_rows), units first: so the products of the gradient, the slowest ones, need no transposed copy in BLAS, and the passes
between run along the rows, with one intercept or weight for each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mia_batch.search.kernels.compiled import compiled

Floats = NDArray[np.float64]
ACTIVATIONS = ("identity", "relu", "logistic", "tanh")
EPS = float(np.finfo(np.float64).eps)
IDENTITY, RELU, LOGISTIC, TANH = range(4)


class Weights(NamedTuple):
    """A network's parameters, and vectors of as many numbers for their gradient and its two moments.

    In each vector lie, layer by layer, the weights (fan_out, fan_in) and then the intercepts (fan_out,).
    """

    sizes: NDArray[np.int64]  # units by layer: the features first, one output last
    activation: int  # of the hidden layers, position in ACTIVATIONS
    parameters: Floats
    gradient: Floats
    first_moment: Floats
    second_moment: Floats


class Adam(NamedTuple):
    """Settings of the optimizer, with scikit-learn's names."""

    batch_size: int
    alpha: float
    rate: float
    beta_1: float
    beta_2: float
    epsilon: float


@compiled
def n_parameters(sizes: NDArray[np.int64], n_layers: int) -> int:
    """The number of parameters of the first `n_layers` layers, which is where the next layer starts."""
    total = 0
    for layer in range(n_layers):
        total += (sizes[layer] + 1) * sizes[layer + 1]
    return total


@compiled
def layer_weights(vector: Floats, sizes: NDArray[np.int64], layer: int) -> Floats:
    """One layer's weights, (fan_out, fan_in), a view."""
    start, fan_in, fan_out = n_parameters(sizes, layer), sizes[layer], sizes[layer + 1]
    return vector[start : start + fan_out * fan_in].reshape(fan_out, fan_in)


@compiled
def layer_intercepts(vector: Floats, sizes: NDArray[np.int64], layer: int) -> Floats:
    """One layer's intercepts, (fan_out,), a view."""
    end = n_parameters(sizes, layer + 1)
    return vector[end - sizes[layer + 1] : end]


@compiled
def layer_values(room: Floats, sizes: NDArray[np.int64], layer: int, n_rows: int) -> Floats:
    """The place in `room` for a layer's values of the batch, (fan_out, n_rows), a view."""
    start = n_rows * sizes[1 : layer + 1].sum()
    return room[start : start + n_rows * sizes[layer + 1]].reshape(sizes[layer + 1], n_rows)


@compiled
def activate(activation: int, z: Floats, intercepts: Floats) -> None:
    """Set z, (n_units, n_rows), to activation(z + intercepts)."""
    # Elements by two indices, here and below: a view of a row is an object that would be counted in and out.
    n_units, n_rows = z.shape
    for u in range(n_units):
        intercept = intercepts[u]
        if activation == RELU:
            for j in range(n_rows):
                value = z[u, j] + intercept
                z[u, j] = 0.0 if value < 0 else value  # NaN stays NaN
        elif activation == LOGISTIC:
            for j in range(n_rows):
                z[u, j] = 1 / (1 + math.exp(-(z[u, j] + intercept)))
        elif activation == TANH:
            for j in range(n_rows):
                z[u, j] = tanh(z[u, j] + intercept)
        else:
            for j in range(n_rows):
                z[u, j] += intercept


@compiled
def tanh(z: float) -> float:
    """tanh, by the C library only where the shorter expression would cancel: it takes three times as long."""
    return math.tanh(z) if abs(z) < 0.25 else 1 - 2 / (math.exp(2 * z) + 1)


@compiled
def through_activation(activation: int, values: Floats, errors: Floats, factors: Floats) -> None:
    """Turn a layer's values, (n_units, n_rows), into its errors: `errors` times the unit's factor times the slope.

    `errors` has the shape of the values, or one row for all units.
    """
    n_units, n_rows = values.shape
    for u in range(n_units):
        e, factor = min(u, len(errors) - 1), factors[u]
        if activation == RELU:
            for j in range(n_rows):
                values[u, j] = errors[e, j] * factor if values[u, j] > 0 else 0.0
        elif activation == LOGISTIC:
            for j in range(n_rows):
                values[u, j] = errors[e, j] * factor * values[u, j] * (1 - values[u, j])
        elif activation == TANH:
            for j in range(n_rows):
                values[u, j] = errors[e, j] * factor * (1 - values[u, j] * values[u, j])
        else:
            for j in range(n_rows):
                values[u, j] = errors[e, j] * factor


@compiled
def forward(X: Floats, weights: Weights, room: Floats) -> Floats:
    """P(member) of a batch, (n_rows,); `room` keeps the values of every layer, these last."""
    sizes, parameters, last = weights.sizes, weights.parameters, len(weights.sizes) - 2
    for layer in range(last + 1):
        matrix, values = layer_weights(parameters, sizes, layer), layer_values(room, sizes, layer, len(X))
        if layer == 0:
            np.dot(matrix, X.T, values)
        else:
            np.dot(matrix, layer_values(room, sizes, layer - 1, len(X)), values)
        activation = LOGISTIC if layer == last else weights.activation
        activate(activation, values, layer_intercepts(parameters, sizes, layer))
    return layer_values(room, sizes, last, len(X))[0]


@compiled
def log_loss(y: NDArray[np.int8], probability: Floats) -> float:
    """The loss summed over the batch, clipped as in scikit-learn; the probabilities become the output's errors."""
    total, likelihood = 0.0, 1.0
    for j in range(len(y)):
        p = probability[j]
        clipped = EPS if p < EPS else (1 - EPS if p > 1 - EPS else p)
        likelihood *= clipped if y[j] else 1 - clipped
        if j % 16 == 15:  # one logarithm for 16 rows: their product is at least EPS**16, 1e-251
            total -= math.log(likelihood)
            likelihood = 1.0
        probability[j] = p - y[j]
    return total - math.log(likelihood)


@compiled
def backward(X: Floats, weights: Weights, room: Floats, scratch: Floats, ones: Floats) -> None:
    """Compute the gradient, summed over the rows, from the output's errors; `ones` for all rows and units.

    In `room` each layer's errors take the place of its values: what a step touches should stay in the cache.
    """
    sizes, gradient, n_rows = weights.sizes, weights.gradient, len(X)
    for layer in range(len(sizes) - 2, -1, -1):
        error = layer_values(room, sizes, layer, n_rows)
        np.dot(error, ones[:n_rows], layer_intercepts(gradient, sizes, layer))
        if layer == 0:
            np.dot(error, X, layer_weights(gradient, sizes, 0))
            return
        below = layer_values(room, sizes, layer - 1, n_rows)
        np.dot(error, below.T, layer_weights(gradient, sizes, layer))
        matrix = layer_weights(weights.parameters, sizes, layer)
        if len(matrix) == 1:  # an outer product: no pass of its own
            through_activation(weights.activation, below, error, matrix[0])
        else:
            errors = scratch[: below.size].reshape(below.shape)
            np.dot(matrix.T, error, errors)
            through_activation(weights.activation, below, errors, ones)


@compiled
def update(weights: Weights, adam: Adam, start: int, end: int, alpha: float, n_rows: int, rate: float) -> None:
    """Adam on parameters `start` to `end`, in scikit-learn's order of operations, arXiv 1412.6980."""
    per_row = 1 / n_rows  # dividing each time would take a fifth longer
    parameters, gradient = weights.parameters[start:end], weights.gradient[start:end]
    first, second = weights.first_moment[start:end], weights.second_moment[start:end]
    for i in range(len(parameters)):
        slope = (gradient[i] + alpha * parameters[i]) * per_row
        first[i] = adam.beta_1 * first[i] + (1 - adam.beta_1) * slope
        second[i] = adam.beta_2 * second[i] + (1 - adam.beta_2) * (slope * slope)
        parameters[i] += -rate * first[i] / (math.sqrt(second[i]) + adam.epsilon)


@compiled
def adam_step(weights: Weights, adam: Adam, n_rows: int, n_steps: int) -> float:
    """Step number `n_steps`, counted from 1; returns the penalty of the weights before it, times `n_rows`."""
    sizes, squares, n = weights.sizes, 0.0, float(n_steps)
    rate = adam.rate * math.sqrt(1 - adam.beta_2**n) / (1 - adam.beta_1**n)
    for layer in range(len(sizes) - 1):
        flat = layer_weights(weights.parameters, sizes, layer).reshape(-1)
        squares += np.dot(flat, flat)
        start, end = n_parameters(sizes, layer), n_parameters(sizes, layer + 1)
        middle = end - sizes[layer + 1]
        update(weights, adam, start, middle, adam.alpha, n_rows, rate)
        update(weights, adam, middle, end, 0.0, n_rows, rate)
    return 0.5 * adam.alpha * squares


@compiled
def gather(X: Floats, y: NDArray[np.int8], rows: NDArray[np.int64], batch: Floats, labels: NDArray[np.int8]) -> None:
    """Copy rows to the front of a batch."""
    for j in range(len(rows)):
        row = rows[j]
        labels[j] = y[row]
        for column in range(X.shape[1]):
            batch[j, column] = X[row, column]


@compiled
def epoch(
    X: Floats, y: NDArray[np.int8], order: NDArray[np.int64], weights: Weights, adam: Adam, n_steps: int
) -> float:
    """Train for one pass over the rows.

    Args:
        X: shape (n_rows, n_features).
        y: 0 or 1, shape (n_rows,).
        order: in which the rows make batches, shape (n_rows,).
        weights: changed in place.
        adam: the settings.
        n_steps: steps so far.

    Returns:
        The mean loss, penalty included, each batch's from before its step.
    """
    n_rows, size, sizes = len(order), adam.batch_size, weights.sizes
    room, scratch = np.empty(size * sizes[1:].sum()), np.empty(size * sizes[1:].max())
    batch, labels, ones = np.empty((size, sizes[0])), np.empty(size, dtype=y.dtype), np.ones(max(size, sizes.max()))
    loss = 0.0
    for start in range(0, n_rows, size):
        n = min(size, n_rows - start)
        gather(X, y, order[start : start + n], batch, labels)
        output = forward(batch[:n], weights, room)
        # A batch's penalty is divided by its rows and its loss multiplied with them, so that penalties simply add up.
        loss += log_loss(labels[:n], output)
        backward(batch[:n], weights, room, scratch, ones)
        n_steps += 1
        loss += adam_step(weights, adam, n, n_steps)
    return loss / n_rows
