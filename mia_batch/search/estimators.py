"""The attack classifiers, the first four of MindArmour, their settings, and what a grid over them may hold.

A grid is checked by scikit-learn's own constraints and by fitting its candidates on a few rows, so that no list of
valid values here can go stale.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.utils._param_validation import StrOptions, validate_parameter_constraints

from mia_batch.errors import Problem, did_you_mean

# The engine sets threads and seeds; the others only change what is printed or kept.
RESERVED = frozenset({"n_jobs", "verbose", "warm_start", "random_state", "oob_score"})
# What makes a fit cheap without changing whether it is possible.
CHEAPEST: dict[str, Any] = {"max_iter": 1, "n_estimators": 1, "max_fun": 1}
MAX_PROBES = 200
MOST = {"n_estimators": 100_000, "max_iter": 10_000_000}  # what is more never ends, or has no room
MOST_WEIGHTS = 10_000_000  # of a network, with eight inputs


@dataclass(frozen=True)
class MethodSpec:
    """A classifier family: scikit-learn's class and the settings that MindArmour gives it."""

    estimator: type[BaseEstimator]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names that a grid may hold."""
        return tuple(sorted(set(self.estimator().get_params()) - RESERVED))

    def build(self, params: Mapping[str, Any], *, seed: int) -> ClassifierMixin:
        """The stock estimator of one candidate; whatever is random in it starts from `seed`."""
        model = self.estimator(**{**self.defaults, **params})
        return model.set_params(random_state=seed) if "random_state" in model.get_params() else model


METHODS: dict[str, MethodSpec] = {
    "lr": MethodSpec(LogisticRegression, {"max_iter": 300}),
    "knn": MethodSpec(KNeighborsClassifier),
    "mlp": MethodSpec(MLPClassifier, {"max_iter": 300}),
    "rf": MethodSpec(RandomForestClassifier),
    "hgb": MethodSpec(HistGradientBoostingClassifier),
}


def n_candidates(params: Mapping[str, Sequence[Any]]) -> int:
    """How many candidates a grid has; an empty one has one, the default settings."""
    return math.prod(len(values) for values in params.values())


def candidates(params: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The grid's candidates in the order of scikit-learn's ParameterGrid, which decides ties."""
    names = sorted(params)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(params[name] for name in names))]


def check_grid(method: str, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
    """The problems of a grid, each of `params.NAME` or of `params`; empty if there is none."""
    spec = METHODS[method]
    problems = [problem for name, values in params.items() for problem in _check_values(spec, name, values)]
    return problems or _check_combinations(spec, params)


def _check_values(spec: MethodSpec, name: str, values: Sequence[Any]) -> list[Problem]:
    if name in RESERVED:
        return [(f"params.{name}", f"is set by the engine; valid parameters: {', '.join(spec.parameters)}")]
    if name not in spec.parameters:
        near = did_you_mean(name, spec.parameters)
        return [(f"params.{name}", f"is unknown; valid parameters: {', '.join(spec.parameters)}{near}")]
    if not values:
        return [(f"params.{name}", "must have at least one value, got []")]
    repeated = [v for i, v in enumerate(values) if any(type(v) is type(w) and v == w for w in values[:i])]
    problems = [(f"params.{name}", f"must have each value once, got {value!r} again") for value in repeated]
    return problems + [problem for value in values for problem in _check_value(spec, name, value)]


def _check_value(spec: MethodSpec, name: str, value: Any) -> list[Problem]:
    constraints = spec.estimator._parameter_constraints
    try:
        validate_parameter_constraints(constraints, {name: value}, caller_name=spec.estimator.__name__)
    except ValueError as error:
        rule = str(error).split(" must be ", 1)[-1].replace(" Got ", " got ").rstrip(".")
        words = [word for each in constraints[name] if isinstance(each, StrOptions) for word in each.options]
        return [(f"params.{name}", f"must be {rule.replace('. got', ', got')}{did_you_mean(value, words)}")]
    if name in MOST and value > MOST[name]:
        return [(f"params.{name}", f"must be at most {MOST[name]}, got {value}")]
    if name == "hidden_layer_sizes" and isinstance(value, Mapping):  # which scikit-learn takes for a list of its keys
        return [(f"params.{name}", f"must be a whole number or a list of them, got {value}")]
    if name == "hidden_layer_sizes" and _n_weights(value) > MOST_WEIGHTS:
        return [(f"params.{name}", f"must make at most {MOST_WEIGHTS} weights, got {value}")]
    return []


def _n_weights(hidden: Any) -> int:
    """Of a network with such hidden layers; 0 where they are no numbers, which a fit of a few rows says."""
    sizes = (8, *np.atleast_1d(np.asarray(hidden, object)).tolist(), 1)
    if not all(isinstance(each, Integral) for each in sizes):
        return 0
    return sum(math.prod(each) for each in itertools.pairwise(sizes))


def _check_combinations(spec: MethodSpec, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
    """Problems of candidates whose values are valid one by one but not together, found by fits on a few rows."""
    many = n_candidates(params) > MAX_PROBES
    probes = {name: tuple(_representatives(values)) for name, values in params.items()} if many else params
    problems: dict[Problem, None] = {}
    for candidate in itertools.islice(candidates(probes), MAX_PROBES):
        if reason := _fails_to_fit(spec, candidate):
            problems["params", f"{candidate} cannot be fitted: {reason}"] = None
    return list(problems)


def _representatives(values: Sequence[Any]) -> list[Any]:
    """The smallest and the largest of more than two numbers, and every other value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    others = [value for value in values if isinstance(value, bool) or not isinstance(value, int | float)]
    return others + ([min(numbers), max(numbers)] if len(numbers) > 2 else numbers)


def _fails_to_fit(spec: MethodSpec, candidate: Mapping[str, Any]) -> str | None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 8)), np.arange(40) % 2
    model = spec.build(candidate, seed=0)
    model.set_params(**{name: value for name, value in CHEAPEST.items() if name in model.get_params()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one iteration on noise; the real fits count theirs
        try:
            model.fit(X, y)
        except (ValueError, TypeError) as error:
            return " ".join(str(error).split())
    return None
