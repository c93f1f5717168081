"""The blind baseline: what it is made of, and that it finds what tells the sides apart and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from in_process import run_here

from mia_batch.attacks.base import BLIND, AttackSettings
from mia_batch.attacks.blind import GRIDS, MOST_CLASSES, BlindAttack, blind_rows, n_columns
from mia_batch.attacks.registry import ATTACKS, CHECKS
from mia_batch.attacks.split import make_splits
from mia_batch.inputs import STATISTICS
from mia_batch.metrics.ranking import auc
from mia_batch.samples import Samples
from mia_batch.search.estimators import check_grid

N = 400
MEMBER = np.repeat([1, 0], N // 2).astype(np.int8)


def made(label: np.ndarray, statistics: np.ndarray | None, evaluation: str = "holdout") -> tuple[Samples, float, float]:
    """The samples, and the baseline's AUC with its lower end on the rows that it scores."""
    splits = make_splits(MEMBER, evaluation=evaluation, eval_fraction=0.5, seed=1, cv=2)
    samples = Samples(MEMBER, splits, blind=blind_rows(label, statistics))
    result = run_here(BlindAttack(), samples, AttackSettings(seed=1))
    found = auc(MEMBER[result.evaluated], result.scores[result.evaluated])
    return samples, found.value, found.low


def test_rows_are_number_class_and_statistics_each_standardised() -> None:
    rows = blind_rows(np.array([3, 3, 7, 7]), np.array([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, np.inf]]))
    infinite = np.array([5.0, 5.0, 5.0, 0.0])
    expected = [[-1, -1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, 1, -1, 1], (infinite - 3.75) / infinite.std()]
    np.testing.assert_allclose(rows.T, expected)
    assert not blind_rows(np.array([5, 5]), None)[:].any()
    for n in (2, MOST_CLASSES, MOST_CLASSES + 1):
        assert blind_rows(np.arange(n), np.zeros((n, len(STATISTICS)))).shape == (n, n_columns(n))
    assert n_columns(2) == 3 + len(STATISTICS)
    assert n_columns(MOST_CLASSES + 1) == 1 + len(STATISTICS)


def test_it_is_no_attack_that_can_be_configured() -> None:
    assert BLIND in CHECKS
    assert BLIND not in ATTACKS
    for method, grid in GRIDS.items():
        assert check_grid(method, grid) == []


@pytest.mark.parametrize("evaluation", ["holdout", "cross_fit"])
def test_it_scores_the_rows_of_the_attacks_and_names_what_it_has_chosen(evaluation: str) -> None:
    rng = np.random.default_rng(0)
    splits = make_splits(MEMBER, evaluation=evaluation, eval_fraction=0.5, seed=1, cv=2)
    samples = Samples(MEMBER, splits, blind=blind_rows(np.zeros(N, int), rng.normal(size=(N, 3)) + MEMBER[:, None]))
    attack, settings = BlindAttack(), AttackSettings(seed=1)
    result = run_here(attack, samples, settings)
    assert np.array_equal(np.flatnonzero(result.evaluated), np.sort(np.concatenate([s.evaluated for s in splits])))
    assert [each["method"] in GRIDS for each in result.provenance["chosen"]] == [True] * len(splits)
    keys = [task.key for task in attack.tasks(samples, settings)]
    assert len(set(keys)) == len(keys)
    assert {task.attack for task in attack.tasks(samples, settings)} == {BLIND}


def test_it_finds_brighter_members() -> None:
    statistics = np.random.default_rng(0).normal(size=(N, 38))
    statistics[:, 0] += 2.0 * MEMBER
    _, value, low = made(np.zeros(N, int), statistics)
    assert value > 0.85
    assert low > 0.75


def test_it_finds_members_of_other_classes_by_labels_alone() -> None:
    """Every second class has three times as many members: no threshold of the class's number tells it."""
    rng = np.random.default_rng(0)
    odd = rng.random(N) < np.where(MEMBER == 1, 0.9, 0.1)
    _, value, low = made(2 * rng.integers(0, 10, N) + odd, None)
    assert value > 0.8
    assert low > 0.7


def test_it_finds_what_no_line_tells() -> None:
    """Members lie in a shell about the others: a forest finds them, a regression does not."""
    rng = np.random.default_rng(0)
    statistics = rng.normal(size=(N, 2)) * np.where(MEMBER == 1, 3.0, 0.7)[:, None]
    samples, value, _ = made(np.zeros(N, int), statistics)
    assert value > 0.8
    chosen = run_here(BlindAttack(), samples, AttackSettings(seed=1)).provenance["chosen"]
    assert [each["method"] for each in chosen] == ["rf"]


def test_it_finds_nothing_where_the_sides_are_alike() -> None:
    rng = np.random.default_rng(3)
    _, value, low = made(rng.integers(0, 10, N), rng.normal(size=(N, 38)))
    assert value == pytest.approx(0.5, abs=0.12)
    assert low < 0.52
