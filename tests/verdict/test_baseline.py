"""When a verdict is called confounded: by rule, and how often on data where members are like non-members."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_attacks import scored

from mia_batch.attacks.split import make_splits
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import auc
from mia_batch.verdict.baseline import BLIND_LIMIT, Baseline, compare
from mia_batch.verdict.gate import decide
from mia_batch.verdict.rules import TUTORIAL, Gate, Rule, Verdict

TRIALS = 400
CROSS_FITTED = (2.0, 2.0)
SURE = Gate(rules=(Rule("auc", 0.6),))


def figures(blind: tuple[float, float], difference: float | None) -> Baseline:
    area = Estimate(blind[0], blind[1], 1.0)
    if difference is None:
        return Baseline(area, None, None, None, True)
    return Baseline(area, "a", Estimate(0.9, 0.85, 1.0), Estimate(0.2, difference, 0.5), True)


@pytest.mark.parametrize(
    ("blind", "difference", "confounded"),
    [
        ((0.6, BLIND_LIMIT), -0.1, (False, False, False)),  # not shown to tell the sides apart
        ((0.6, 0.53), 0.01, (False, True, True)),  # the leak is more than that; what hides none could hide one
        ((0.6, 0.53), 0.0, (True, True, True)),
        ((0.6, 0.53), None, (True, True, True)),
    ],
)
def test_by_the_rule(
    blind: tuple[float, float], difference: float | None, confounded: tuple[bool, bool, bool]
) -> None:
    found = figures(blind, difference)
    assert tuple(found.confounds(leak) for leak in (True, False, None)) == confounded


def a_model(rng: np.random.Generator, n: int, *, leak: float, brighter: float) -> tuple[np.ndarray, ...]:
    """Membership, scores of an attack and of the baseline, which share what the inputs say."""
    member = np.repeat([True, False], n)
    inputs = rng.normal(size=2 * n) + brighter * member
    return member, inputs + rng.normal(0, 0.3, 2 * n) + leak * member, inputs + rng.normal(0, 0.05, 2 * n)


def verdict(member: np.ndarray, attack: np.ndarray, blind: np.ndarray, gate: Gate = SURE) -> Verdict:
    found = compare(member, blind, {"a": attack}, alpha=gate.alpha, statistics=True)
    estimates = {"auc": auc(member, attack)}
    estimates |= dict.fromkeys(("accuracy", "precision", "recall"), Estimate(0.9, 0.8, 1.0))
    return decide({"a": scored(member, attack > 0, attack, estimates=estimates)}, gate, methods=["a"], baseline=found)


@pytest.mark.parametrize("gate", [SURE, Gate(joint=TUTORIAL), Gate(joint=TUTORIAL, tutorial=True)])
def test_brighter_members_are_no_leak_by_any_gate(gate: Gate) -> None:
    found = verdict(*a_model(np.random.default_rng(0), 500, leak=0.0, brighter=1.0), gate)
    assert found.leak is None
    assert found.sentence.startswith("NOT EVALUABLE: members and non-members can be told apart without the model: by ")
    assert "labels and input statistics alone the AUC is 0.7" in found.sentence
    assert "the best attack, a, has 0.7" in found.sentence
    assert found.notes == ()


def test_a_leak_beyond_what_inputs_tell_stands() -> None:
    found = verdict(*a_model(np.random.default_rng(0), 500, leak=1.5, brighter=0.5))
    assert found.leak is True


def test_harder_members_hide_a_leak_and_do_not_pass() -> None:
    """The model's knowledge of its members cancels what makes them harder: the attack alone would find no leak."""
    member, attack, blind = a_model(np.random.default_rng(0), 2000, leak=1.0, brighter=-1.0)
    alone = scored(member, attack > 0, attack)
    assert decide({"a": alone}, SURE, methods=["a"]).leak is False
    assert verdict(member, attack, -blind).leak is None


def cross_fitted(rng: np.random.Generator, n: int, seed: int, *shifts: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Membership, and for each shift of three columns the cross-fitted projection on the difference of means."""
    member = rng.permutation(np.repeat([True, False], n))
    splits = make_splits(member.astype(np.int8), evaluation="cross_fit", eval_fraction=0.2, seed=seed, cv=2)
    found = []
    for shift in shifts:
        X, scores = rng.normal(size=(2 * n, 3)) + shift * member[:, np.newaxis], np.empty(2 * n)
        for split in splits:
            fit, known = X[split.fit], member[split.fit]
            scores[split.evaluated] = X[split.evaluated] @ (fit[known].mean(axis=0) - fit[~known].mean(axis=0))
        found.append(scores)
    return member, found


def compared(member: np.ndarray, blind: np.ndarray, *attacks: np.ndarray) -> Baseline:
    named = {f"a{i}": scores for i, scores in enumerate(attacks)}
    return compare(member, blind, named, alpha=0.05, statistics=True, effects=CROSS_FITTED)


@pytest.mark.parametrize("n", [50, 300])
def test_on_data_without_a_difference_at_most_one_in_twenty_is_confounded(n: int) -> None:
    rng, confounded, beaten = np.random.default_rng(0), 0, 0
    for trial in range(TRIALS):
        member, (blind, *attacks) = cross_fitted(rng, n, trial, 0.0, 0.0, 0.0, 0.0)
        found = compared(member, blind, *attacks)
        confounded += found.confounds(None)
        beaten += found.difference is not None and found.difference.low > 0
    assert confounded <= 0.05 * TRIALS
    assert beaten <= 0.05 * TRIALS


def test_a_difference_of_the_sides_is_found() -> None:
    rng = np.random.default_rng(0)
    trials = [cross_fitted(rng, 500, trial, 0.4, 0.3) for trial in range(50)]
    assert sum(compared(member, *scores).confounds(True) for member, scores in trials) >= 48


def test_bounds_are_of_as_many_samples_as_are_independent() -> None:
    member, attack, blind = a_model(np.random.default_rng(0), 500, leak=0.5, brighter=0.5)
    one, two = (
        compare(member, blind, {"a": attack}, alpha=0.05, statistics=True, effects=effects)
        for effects in ((1.0, 1.0), CROSS_FITTED)
    )
    assert one.difference is not None
    assert two.difference is not None
    assert one.difference.value == two.difference.value
    wider = (two.difference.value - two.difference.low) / (one.difference.value - one.difference.low)
    assert wider == pytest.approx(2**0.5)
    assert (two.auc.value - two.auc.low) / (one.auc.value - one.auc.low) == pytest.approx(2**0.5, rel=0.05)


def test_the_best_of_many_must_be_better_by_more() -> None:
    member, attack, blind = a_model(np.random.default_rng(0), 500, leak=0.5, brighter=0.5)
    one = compare(member, blind, {"a": attack}, alpha=0.05, statistics=True)
    four = compare(member, blind, {"a": attack, **dict.fromkeys("bcd", -attack)}, alpha=0.05, statistics=True)
    assert one.difference is not None
    assert four.difference is not None
    assert four.best == "a"
    assert four.difference.low < one.difference.low
