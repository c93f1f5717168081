"""Stacked references: classifiers that learn from references that play the target, and then attack the target.

In the spirit of RAPID, "Is Difficulty Calibration All We Need? Towards More Practical Membership Inference Attacks", He
et al. 2024, arXiv 2409.00426. What a reference was trained on is known, so that its rows have labels; each row holds
what the single attacks make of it by the references that remain. No label of the target is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import REFERENCE_COLUMNS, STACK, AttackResult, AttackSettings, result_over_all_rows
from mia_batch.attacks.bayesian import lira_bayes
from mia_batch.attacks.differences import calibration, squared_difference
from mia_batch.attacks.inclusion import complements
from mia_batch.attacks.lira import lira_fixed
from mia_batch.attacks.ratio import A_UNTUNED, log_p, log_ratio
from mia_batch.attacks.sides import References, Side, pooled_variances, sides
from mia_batch.attacks.trajectories import lira_trajectory, n_trajectory_features, trajectory_features
from mia_batch.errors import Problem
from mia_batch.samples import OwnRows, Part, Samples, Split
from mia_batch.search.estimators import check_grid
from mia_batch.search.grid_search import GridSearch
from mia_batch.search.table import plain_columns
from mia_batch.search.tasks import CannotEvaluate, Task

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

NULL = "stack_null"  # as `STACK`, of permuted inclusion
LEAST_UNITS = 3  # pairs, or references that have no complement: one plays the target, two remain
N_FEATURES = 14
MOST_WAYS = 16  # to leave a unit out that score the target
NULL_GRID: dict[str, Sequence[Any]] = {"C": (1.0,)}
NULL_Z = 4.0  # standard deviations above chance of an accuracy on permuted inclusion: 1 in 30,000


# --- rows ------------------------------------------------------------------------------------------------------------


def units(reference_in: NDArray[np.int8]) -> list[list[int]]:
    """References that are left out together, (n_samples, n_references): pairs of complements, and each other alone.

    One that was trained on none of the samples cannot play the target, and is never left out.
    """
    pairs, paired = [], set[int]()
    for pair in complements(reference_in):
        if not paired & set(pair):
            pairs.append(list(pair))
            paired |= set(pair)
    alone = [[int(k)] for k in np.flatnonzero(reference_in.any(axis=0)) if k not in paired]
    return sorted([*pairs, *alone])


def stack_features(references: References) -> Floats:
    """Of each sample what a target and its references say, (n_samples, n_stack_features(n_checkpoints)), all finite.

    The target's phi and loss; mean, median and standard deviation of IN and of OUT; the scores of single attacks; the
    mean of the class's OUT; of the checkpoints of the training, if they are known, `trajectory_features` and the score
    of LiRA over them. How many references are on a side is left out: it tells how they were drawn.
    """
    inside, out = sides(references)
    medians = [side.centre for side in sides(references, medians=True)]
    variances = pooled_variances(inside, out)
    spreads = [_spread(side, variance) for side, variance in zip((inside, out), variances, strict=True)]
    gap = np.nanmean(inside.centre - out.centre) if np.isfinite(inside.centre - out.centre).any() else 0.0
    scores = [
        lira_fixed(references), lira_bayes(references), log_ratio(references, a=A_UNTUNED), calibration(references),
        squared_difference(references),
    ]  # fmt: skip
    mean_out = _filled(out.centre, inside.centre - gap)
    columns = [
        references.target, -log_p(references.target), _filled(inside.centre, out.centre + gap), mean_out,
        _filled(medians[0], medians[1] + gap), _filled(medians[1], medians[0] - gap), *spreads,
        *(score.values for score in scores),
    ]  # fmt: skip
    means = [*(column.mean(axis=1) for column in columns), _of_class(mean_out, references.label)]
    return np.column_stack([*means, *_of_steps(references.steps)])


def n_stack_features(n_checkpoints: int) -> int:
    """Columns of `stack_features`."""
    return N_FEATURES + (n_trajectory_features(n_checkpoints) + 1 if n_checkpoints > 1 else 0)


def _of_steps(steps: References | None) -> list[Floats]:
    """What the checkpoints of the training tell, n_samples rows each."""
    if steps is None:
        return []
    return [trajectory_features(steps.target, -log_p(steps.target)), lira_trajectory(steps).values]


def _filled(centre: Floats, other: Floats) -> Floats:
    """A side's centre; where it has no reference, what the other side lets expect."""
    return np.where(np.isnan(centre), other, centre)


def _spread(side: Side, variance: Floats) -> Floats:
    """Standard deviation on a side; of fewer than two references that of all samples."""
    return np.sqrt(np.where(side.n >= 2, side.own_variance(), variance))


def _of_class(mean_out: Floats, label: NDArray[np.integer] | None) -> Floats:
    """How surely OUT references answer samples of the row's class, (n_samples,)."""
    own = mean_out.mean(axis=1)
    if label is None:
        return np.full(len(own), own.mean())
    _, which, size = np.unique(label, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(which, own) / size)[which])


def stack_rows(
    references: References, *, cv: int, max_rows: int | None, seed: int, group: Rows | None = None
) -> OwnRows:
    """The rows of references that play the target, which fit, and behind them the target's, which are scored.

    Args:
        references: of the target, at least `LEAST_UNITS` units.
        cv: folds; all rows of a sample, and of its group, are in one.
        max_rows: how many rows fit at most, drawn by `seed`; None for all.
        seed: of the draw and the folds.
        group: samples of one number belong together, (n_samples,); None for samples that stand alone.

    Returns:
        Rows of one standardisation, which the rows that fit give. The target has rows for each way to leave a unit out,
        at most `MOST_WAYS`, n_samples each, so that its features come from as many references as theirs.
    """
    rng, n, left_out = np.random.default_rng(seed), len(references.target), units(references.inside)
    n_rows = _rows_of_each(n, references.n_references, cv, max_rows)
    features, labels, of_sample = [], [], []
    for unit in left_out:
        others = [k for k in range(references.n_references) if k not in unit]
        for k in unit:
            rows = np.sort(rng.choice(n, n_rows, replace=False))
            features.append(stack_features(attacked(references, k, others))[rows])
            labels.append(references.inside[rows, k])
            of_sample.append(rows)
    n_fit = sum(map(len, labels))
    for way in rng.permutation(len(left_out))[:MOST_WAYS]:
        unit = left_out[way]
        others = [k for k in range(references.n_references) if k not in unit]
        features.append(stack_features(attacked(references, None, others)))
    X = _standardised(np.concatenate(features), n_fit)
    y = np.concatenate([*labels, np.zeros(len(X) - n_fit)]).astype(np.int8)
    split = Split(
        np.arange(n_fit), _folds(np.concatenate(of_sample), n, cv, rng, group), np.arange(n_fit, len(X)),
    )  # fmt: skip
    return OwnRows(X, y, split)


def stack_columns(
    references: References, *, cv: int, max_rows: int | None, seed: int, group: Rows | None = None
) -> dict[str, OwnRows]:
    """`STACK`, and `NULL` of permuted inclusion; none where too few references can play the target.

    Arguments as of `stack_rows`.
    """
    if len(units(references.inside)) < LEAST_UNITS:
        return {}
    both = {STACK: references, NULL: permuted(references, seed=seed)}
    return {
        name: stack_rows(each, cv=cv, max_rows=max_rows, seed=seed, group=group) for name, each in both.items()
    }  # fmt: skip


def stack_shapes(
    n_samples: int, n_references: int, *, cv: int, max_rows: int | None, n_checkpoints: int = 1
) -> dict[str, OwnRows]:
    """What `stack_columns` makes at most, without memory for it."""
    if n_references < LEAST_UNITS:
        return {}
    n_fit = n_references * _rows_of_each(n_samples, n_references, cv, max_rows)
    n_rows = n_fit + min(n_references, MOST_WAYS) * n_samples
    X = np.broadcast_to(np.zeros((1, 1)), (n_rows, n_stack_features(n_checkpoints)))
    y = np.broadcast_to(np.int8(0), n_rows)
    split = Split(np.arange(n_fit), np.arange(n_fit, dtype=np.int32) % cv, np.arange(n_fit, n_rows))
    return dict.fromkeys((STACK, NULL), OwnRows(X, y, split))


def _rows_of_each(n_samples: int, n_references: int, cv: int, max_rows: int | None) -> int:
    """How many samples' rows of a reference that plays the target fit."""
    return n_samples if max_rows is None else min(n_samples, max(cv, max_rows // n_references))


def permuted(references: References, *, seed: int) -> References:
    """References whose training sets are drawn anew among the samples: of a unit by one permutation."""
    rng, inside = np.random.default_rng(seed), references.inside.copy()
    for unit in units(references.inside):
        order = rng.permutation(len(inside))
        inside[:, unit] = inside[order][:, unit]
    steps = references.steps and replace(references.steps, inside=inside)
    return replace(references, inside=inside, steps=steps)


def attacked(references: References, k: int | None, others: Sequence[int]) -> References:
    """Reference k in the place of the target, None for the target itself, and some of the references."""
    target = references.target if k is None else references.others[:, :, k]
    inside, steps = references.inside[:, others], references.steps and attacked(references.steps, k, others)
    return References(target, references.others[:, :, others], inside, references.label, steps)


def _standardised(X: Floats, n_fit: int) -> Floats:
    """Columns of mean 0 and standard deviation 1 over the first rows; what is constant there is 0."""
    scale = X[:n_fit].std(axis=0)
    return np.asarray((X - X[:n_fit].mean(axis=0)) / np.where(scale > 0, scale, np.inf))


def _folds(of_sample: Rows, n: int, cv: int, rng: np.random.Generator, group: Rows | None) -> NDArray[np.int32]:
    """The fold of each row, so that a sample's rows, and its group's, are in one."""
    _, which = np.unique(np.arange(n) if group is None else group, return_inverse=True)
    fold = rng.permutation(int(which.max()) + 1) % cv
    return fold[which[of_sample]].astype(np.int32)


# --- the attack ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StackedAttack:
    """A classifier of the stack's rows, chosen by a grid search; a target's score is the mean over its ways.

    Refused where a classifier finds membership in permuted inclusion: then the rows tell how references were drawn.
    """

    name: str
    method: str  # of search.estimators.METHODS
    needs = frozenset({"member", *REFERENCE_COLUMNS, STACK, NULL})

    def check(self, params: Mapping[str, Sequence[Any]]) -> list[Problem]:
        """What is wrong with a grid."""
        return check_grid(self.method, params)

    def tasks(self, samples: Samples, settings: AttackSettings) -> list[Task]:
        """The grid search's, its refit's, and those of the search on permuted inclusion."""
        search, null = self._searches(samples, settings)
        return [*search.tasks(), *(task for task in null.tasks() if not task.after)]

    def result(self, samples: Samples, settings: AttackSettings, results: Mapping[str, Any]) -> AttackResult:
        """The mean scores of the refitted model, and how it was chosen.

        Raises:
            CannotEvaluate: no candidate could be fitted, or permuted inclusion is told.
        """
        search, null = self._searches(samples, settings)
        null_accuracy = self._checked(samples, null, results)
        choice = search.choice(results)
        found = search.scored(choice, results)
        scores = found.scores.reshape(-1, len(samples)).mean(axis=0)
        decisions = (scores >= 0.5).astype(np.int8)
        scored = [(scores[split.evaluated], decisions[split.evaluated]) for split in samples.splits]
        return result_over_all_rows(
            self.name, samples, scored, best_params=choice.params,
            best_score=float(choice.table["mean_test_score"][choice.best]), cv_results=plain_columns(choice.table),
            provenance={
                "seed": settings.seed, "search": search.search, "n_rows": search.n_fit, "n_features": search.n_features,
                "n_ways": len(found.scores) // len(samples), "accuracy_on_permuted_inclusion": null_accuracy,
                "n_failed": len(choice.failures), "failures": list(choice.failures[:20]),
            },
        )  # fmt: skip

    def _searches(self, samples: Samples, settings: AttackSettings) -> tuple[GridSearch, GridSearch]:
        search = GridSearch(
            self.method, settings.params, samples, seed=settings.seed, search=settings.search, n_iter=settings.n_iter,
            part=Part(self.name, STACK),
        )  # fmt: skip
        return search, GridSearch("lr", NULL_GRID, samples, seed=settings.seed, part=Part(f"{self.name}/null", NULL))

    def _checked(self, samples: Samples, null: GridSearch, results: Mapping[str, Any]) -> float:
        """Cross-validated accuracy on permuted inclusion, which must not be above that of the more frequent answer.

        Rows of one sample are not independent, so that no more are counted than there are samples.
        """
        accuracy = float(null.choice(results).table["mean_test_score"][0])
        share = float(np.mean(np.concatenate(null.y_val)))
        chance = max(share, 1 - share)
        most = chance + NULL_Z * math.sqrt(chance * (1 - chance) / min(null.n_fit, len(samples)))
        if accuracy > most:
            raise CannotEvaluate(
                f"{self.name}: on permuted inclusion the accuracy must be at most {most:.4f}, got {accuracy:.4f}: how "
                "the references were drawn tells membership"
            )
        return accuracy


STACKED = [StackedAttack(f"stack_{method}", method) for method in ("lr", "knn", "mlp", "rf", "hgb")]
