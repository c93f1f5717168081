"""Intervals hold the truth as often as they say, and are not far too wide: the bench of validity in short, seeded."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import validity
from validity import FEW_EXPOSED, POPULATIONS, RATES, Population, Tally

from mia_batch.metrics.ranking import advantage, auc, tpr_at_fpr

# Widths, in widths of two steps at a quarter of the error each. Where a few members are far above all other samples the
# threshold hardly matters, and no interval can be narrower than one of a rate alone: 1.96 / 2.24 of the two steps.
NARROW, NARROW_OF_A_FEW = 0.8, 0.875


def check(tallies: Iterable[Tally], *, narrow: float = NARROW) -> None:
    for each in tallies:
        noise = 3 * math.sqrt(0.06 * 0.94 / each.trials)
        assert each.coverage >= 0.94 - noise, each
        assert max(each.too_high, each.too_low) <= 0.025 + noise, each
        if each.expected >= validity.ENOUGH and not each.tied:
            assert each.narrowness <= narrow, each


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("sides", [(50, 50), (100, 1000)])
def test_metrics_of_scores(population: Population, sides: tuple[int, int]) -> None:
    narrow = NARROW_OF_A_FEW if population is FEW_EXPOSED else NARROW
    check(validity.score_tallies(population, sides, trials=200, seed=1), narrow=narrow)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("sides", [(50, 50), (30, 300)])
def test_metrics_of_decisions(rates: tuple[float, float], sides: tuple[int, int]) -> None:
    check(validity.decision_tallies(rates, sides, trials=150, seed=1))


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda each: each.name)
def test_the_populations_are_what_they_say(population: Population) -> None:
    """Their true values against those of a million draws."""

    rng, n = np.random.default_rng(0), 500_000
    member, scores = np.repeat([1, 0], n), np.concatenate([population.members(rng, n), population.nonmembers(rng, n)])
    assert auc(member, scores).value == pytest.approx(population.auc, abs=3e-3)
    assert advantage(member, scores).value == pytest.approx(population.advantage, abs=5e-3)
    for fpr in (0.3, 0.05):
        assert tpr_at_fpr(member, scores, fpr).value == pytest.approx(population.tpr(fpr), abs=5e-3)


def test_a_table_has_a_row_for_each_metric() -> None:
    tallies = [
        validity.tally("a", "one", 0.5, [(0.4, 0.6), (0.55, 0.7), (0.1, 0.2), (0.5, 0.5)]),
        validity.tally("a", "two", 0.5, [(0.4, 0.6)] * 4, expected=20.0, plain_width=0.25),
    ]
    assert [(each.coverage, each.too_high, each.too_low) for each in tallies] == [(0.5, 0.25, 0.25), (1.0, 0.0, 0.0)]
    assert tallies[1].narrowness == pytest.approx(0.8)
    lines = validity.summary_table(tallies).splitlines()
    assert lines[2] == "| a |  | 1 | 0.500 to 0.500 | 0.2500 | 0.2500 |  |"
    assert lines[3] == "| a | untied, n f >= 10 | 1 | 1.000 to 1.000 | 0.0000 | 0.0000 | 0.800 to 0.800 |"
    assert "| a | two | 1.0000 | 0.0000 | 0.0000 | 0.2000 | 0.8000 |" in validity.details_table(tallies)
