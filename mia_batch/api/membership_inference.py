"""`MembershipInference`: MindArmour's interface, with figures of rows that the attackers have not seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.api.arrays import features_of
from mia_batch.api.audit import named
from mia_batch.api.settings import attack_section, n_cores
from mia_batch.attacks.grouping import design_effects, group_codes, twins
from mia_batch.attacks.split import fit_split
from mia_batch.errors import InputError
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.registry import evaluate
from mia_batch.rundir.features import Features
from mia_batch.search.fitted import Attacker
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_columns, samples_that_fit
from mia_batch.stages.attackers import fit_attackers
from mia_batch.stages.reduce import undefined_logged
from mia_batch.verdict.evaluability import evaluability

log = logging.getLogger(__name__)

METHODS = ("knn", "lr", "mlp", "rf")
CV = 3
METRICS = ("precision", "accuracy", "recall")
KEYS = {"method", "params"}


@dataclass(frozen=True)
class BothSides:
    """The answers of a model on both data sets: members first."""

    features: Features
    twin: NDArray[np.bool_]  # (n_samples,) input is on both sides
    group: NDArray[np.int64]  # (n_samples,) equal inputs have one number


class MembershipInference:
    """Whether attackers tell a model's training samples from others, by its loss and logits: as MindArmour asks it.

    `train` fits attackers on samples whose membership is known, `eval` scores others. What MindArmour does not do:
    samples of `eval` that `train` has seen, and inputs that are on both sides, are found by a hash of the input, left
    out, and counted in a warning. `audit` gives a verdict besides.
    """

    def __init__(self, model: Any, n_jobs: int = -1) -> None:
        """Take a trained model.

        Args:
            model: a `mindspore.train.Model` whose network gives logits.
            n_jobs: cores for the search; -1 for all that this process may use.

        Raises:
            TypeError: `model` is no Model, or `n_jobs` no integer.
            InputError: a ValueError; `n_jobs` is neither -1 nor a positive integer.
        """
        if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer):
            raise TypeError(f"n_jobs: must be an integer, got {type(n_jobs).__name__}")
        self._model = _reader().check_model(model)
        self._n_jobs = n_cores(n_jobs)
        self._attackers: list[Attacker] = []
        self._attack: AttackConfig | None = None
        self._seen: set[bytes] = set()
        self._estimates: list[dict[str, Estimate]] = []

    @property
    def attackers(self) -> tuple[Attacker, ...]:
        """Those that `train` has fitted: method, params, cv_score, table of the search, model."""
        return tuple(self._attackers)

    @property
    def estimates(self) -> tuple[Mapping[str, Estimate], ...]:
        """What `eval` gave last, with 95% intervals: value, low, high, and the reason where there is no value."""
        return tuple(self._estimates)

    def train(self, dataset_train: Any, dataset_test: Any, attack_config: Sequence[Mapping[str, Any]]) -> None:
        """Search each grid and fit the best candidate on all these samples; further calls add attackers.

        Args:
            dataset_train: MindSpore data set of the model's training samples, columns image and label.
            dataset_test: likewise, of samples that the model has not seen.
            attack_config: mappings such as `{"method": "lr", "params": {"C": np.logspace(-4, 2, 10)}}`; methods knn,
                lr, mlp and rf; values are lists, tuples or arrays.

        Raises:
            TypeError: an argument is of another type.
            InputError: a ValueError; a line for each problem.
        """
        with named("train"):
            sections = _sections(attack_config, self._n_jobs)
            read = self._read(dataset_train, dataset_test)
            features = read.features
            if read.twin.all():
                raise InputError("dataset_test: must give other samples than dataset_train, got the same inputs")
            assert features.logits is not None
            assert features.label is not None
            for reason in evaluability(features.logits, features.label, features.member).reasons:
                log.warning("train: %s", reason)
            split = fit_split(features.member, cv=CV, seed=sections[0].seed, group=read.group, left_out=read.twin)
            samples = samples_that_fit(features, sections[0], split)
            if read.twin.any():
                log.warning("train: %d samples have an input that is on both sides, and are left out", read.twin.sum())
            self._attackers += fit_attackers(samples, sections, n_jobs=self._n_jobs)
            self._attack = sections[0]
            self._seen |= set(_keys(features))

    def eval(
        self, dataset_train: Any, dataset_test: Any, metrics: Sequence[str]
    ) -> list[dict[str, float]]:
        """The attackers' figures on samples that `train` has not seen.

        Args:
            dataset_train: as of `train`.
            dataset_test: likewise.
            metrics: of precision, accuracy and recall.

        Returns:
            For each attacker, in the order of `attack_config`, each metric's value; NaN where it has none.

        Raises:
            TypeError: an argument is of another type.
            InputError: a ValueError; a line for each problem. Also where no sample of a side is left.
        """
        with named("eval"):
            wanted = _metrics(metrics)
            if self._attack is None:
                raise InputError("train must be called before")
            read = self._read(dataset_train, dataset_test)
            left = self._left(read)
            rows = make_columns(read.features, self._attack)["features"][left]
            self._estimates = [_score(each, rows, read, left, wanted) for each in self._attackers]
        return [{name: found[name].value for name in wanted} for found in self._estimates]

    def _read(self, dataset_train: Any, dataset_test: Any) -> BothSides:
        reader = _reader()
        named_sets = {"dataset_train": dataset_train, "dataset_test": dataset_test}
        for name, dataset in named_sets.items():
            reader.check_dataset(dataset, name)
            if random := reader.random_operations(dataset):
                log.warning(
                    "%s: %s may give another input of a sample each time: one that train has seen is not found in "
                    "eval, and if members alone are changed so, that is what the figures may show",
                    name, ", ".join(random),
                )
        sides = [reader.read_answers(self._model, dataset, name) for name, dataset in named_sets.items()]
        widths = [side.logits.shape[1] for side in sides]
        if widths[0] != widths[1]:
            raise InputError(f"dataset_test: must give {widths[0]} logits as dataset_train does, got {widths[1]}")
        logits, label, content = (
            np.concatenate([getattr(side, name) for side in sides]) for name in ("logits", "label", "content")
        )
        member = np.repeat([1, 0], [len(side.label) for side in sides]).astype(np.int8)
        features = features_of(
            member, signals.loss(logits, label), attrs={}, logits=logits, label=label, content=content
        )
        return BothSides(features, twins(content, member), group_codes(content, None, len(member)))

    def _left(self, read: BothSides) -> NDArray[np.bool_]:
        """The samples to score: new ones, of which it is known on which side they are."""
        seen = np.array([key in self._seen for key in _keys(read.features)])
        left, member = ~(seen | read.twin), read.features.member == 1
        sides = ((member, "members"), (~member, "non-members"))
        counted = " and ".join(f"{(seen & side).sum()} of {side.sum()} {word}" for side, word in sides)
        remain = " and ".join(f"{(left & side).sum()} {word}" for side, word in sides)
        if read.twin.all():
            raise InputError("dataset_test: must give other samples than dataset_train, got the same inputs")
        if lost := [f"all {side.sum()} {word}" for side, word in sides if read.twin[side].all()]:
            raise InputError(f"must have inputs that are on one side alone, got {lost[0]} on the other side too")
        if not all((left & side).any() for side, _ in sides):
            raise InputError(f"must have members and non-members that train has not seen, got {remain}")
        if seen.any():
            log.warning("eval: train has seen %s: left out; the figures are of %s", counted, remain)
        else:
            log.info("eval: train has seen %s; the figures are of %s", counted, remain)
        if (read.twin & ~seen).any():
            log.warning("eval: %d samples have an input that is on both sides: left out", (read.twin & ~seen).sum())
        return left


def _score(
    attacker: Attacker, rows: NDArray[np.float64], read: BothSides, left: NDArray[np.bool_], metrics: Sequence[str]
) -> dict[str, Estimate]:
    """The attacker's metrics on `rows`, the features of the samples that are left."""
    member = read.features.member[left]
    predicted, scores = attacker.model.predict(rows), attacker.model.predict_proba(rows)[:, 1]
    effects = design_effects(member, read.group[left], cross_fitted=False)
    with undefined_logged(attacker.method):
        return evaluate(member, predicted, scores, names=metrics, effects=effects)


def _reader() -> Any:
    """The only part that needs MindSpore."""
    try:
        from mia_batch.network import membership
    except ImportError as error:
        raise ImportError(f"MembershipInference needs MindSpore, got: {error}; audit takes logits without") from error
    return membership


def _keys(features: Features) -> list[bytes]:
    assert features.content is not None
    return [row.tobytes() for row in features.content]


def _sections(attack_config: Any, n_jobs: int) -> list[AttackConfig]:
    """A section for each attacker.

    Raises:
        InputError: with a line for every problem.
    """
    if not isinstance(attack_config, list | tuple):
        raise TypeError(f"attack_config: must be a list or a tuple, got {type(attack_config).__name__}")
    if not attack_config:
        raise InputError("attack_config: must have at least one method, got []")
    sections, problems = [], []
    for i, each in enumerate(attack_config):
        try:
            sections.append(_section(each, n_jobs))
        except InputError as error:
            where = f"attack_config[{i}]"
            problems += [f"{where}: {line}".replace(f"{where}: attack.methods[0]", where) for line in error.problems]
    if problems:
        raise InputError(problems)
    return sections


def _section(each: Any, n_jobs: int) -> AttackConfig:
    if not isinstance(each, Mapping) or set(each) != KEYS:
        got = f"keys {', '.join(map(str, each))}" if isinstance(each, Mapping) else type(each).__name__
        raise InputError(f"must be a mapping with method and params, got {got}")
    method = each["method"].lower() if isinstance(each["method"], str) else each["method"]
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {each['method']!r}")
    if not isinstance(each["params"], Mapping):
        raise InputError(f"params must be a mapping, got {type(each['params']).__name__}")
    # Loss and logits as they are, and three folds, as MindArmour has them.
    return attack_section({method: each["params"]}, n_jobs, features="logits_loss", cv=CV)


def _metrics(metrics: Any) -> list[str]:
    if not isinstance(metrics, list | tuple):
        raise TypeError(f"metrics: must be a list or a tuple, got {type(metrics).__name__}")
    if unknown := [name for name in metrics if name not in METRICS]:
        raise InputError(f"metrics: must be of {', '.join(METRICS)}, got {unknown[0]!r}")
    if not metrics:
        raise InputError(f"metrics: must name at least one of {', '.join(METRICS)}, got []")
    return list(dict.fromkeys(metrics))
