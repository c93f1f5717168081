"""The gate on real attacks, cross-fitted on drawn features: the bench of the gate's validity in short, seeded."""

import pytest
from gate_validity import Design, designs, outcomes
from scipy import stats

TRIALS = 40


def design(name: str) -> Design:
    return next(each for each in designs() if each.name == name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["cross-fitted on noise; 50 a side", "cross-fitted on noise, 2 views each of 100 images a side",
     "cross-fitted at the level; 100 a side"],
)  # fmt: skip
def test_a_leak_is_said_no_more_often_than_stated(name: str) -> None:
    found = outcomes(design(name), trials=TRIALS, seed=3)
    assert found["leak"] <= stats.binom.isf(0.001, TRIALS, 0.05)


@pytest.mark.slow
def test_with_enough_samples_noise_passes_and_a_clear_leak_is_found() -> None:
    assert outcomes(design("cross-fitted on noise; 500 a side"), trials=10, seed=4)["no leak"] >= 8
    assert outcomes(design("cross-fitted on normals 2 apart; 100 a side"), trials=10, seed=5)["leak"] >= 9
