"""The gate: three outcomes by bounds, what they say, and that no side's size decides one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_attacks import decisions, scored, verdict_of

from mia_batch.metrics.base import Estimate
from mia_batch.settings.schema import GateConfig
from mia_batch.verdict import gate as gate_module
from mia_batch.verdict import measures
from mia_batch.verdict.detectable import detectable_accuracy, samples_to_pass, unlikely_to_pass
from mia_batch.verdict.gate import decide
from mia_batch.verdict.measures import MEASURES, Bounds, Measure
from mia_batch.verdict.rules import Gate, Rule

RNG = 5


def attacks(accuracy: float, n: int = 2000, n_attacks: int = 2) -> dict[str, Any]:
    return decisions(np.random.default_rng(RNG), n, accuracy, n_attacks)


def test_a_leak_is_said_with_its_bound() -> None:
    verdict = verdict_of(attacks(0.7))
    assert (verdict.leak, verdict.outcome) == (True, "leak")
    assert verdict.sentence.startswith("LEAK FOUND: a0 has balanced accuracy 0.6")
    assert "(at least 0.6" in verdict.sentence
    assert "above 0.6" in verdict.sentence
    assert not any("anonymity" in note for note in verdict.notes)
    rules = {each.rule: each for each in verdict.methods["a0"].rules}
    assert list(rules) == ["balanced_accuracy", "tpr_at_fpr_0.01", "epsilon"]
    assert rules["balanced_accuracy"].outcome == "leak"
    assert verdict.methods["a0"].above == ("balanced_accuracy",)


def test_a_clean_audit_says_what_was_tried_and_what_it_does_not_mean() -> None:
    verdict = verdict_of(attacks(0.5))
    assert (verdict.leak, verdict.outcome) == (False, "no leak")
    assert verdict.sentence.startswith(
        "NO LEAK ABOVE balanced accuracy of 0.6 and TPR at FPR 0.01 of 0.1: each of the 2 attacks tried (a0, a1) has "
        "balanced accuracy at most 0.5"
    )
    assert verdict.notes[0].startswith("With 2000 members and 2000 non-members scored, one attack finds a balanced acc")
    assert "from 135 scored samples a side on" in verdict.notes[1]
    assert verdict.notes[-1].startswith("Passing proves neither anonymity nor differential privacy")


def test_what_may_be_is_inconclusive() -> None:
    verdict = verdict_of(attacks(0.6, n=300))
    assert (verdict.leak, verdict.outcome) == (None, "inconclusive")
    assert verdict.sentence.startswith("INCONCLUSIVE: no attack is shown to leak, but a0 may have balanced accuracy up")
    assert "(the level is 0.6)" in verdict.sentence


def test_an_attack_that_is_not_evaluable_leaves_it_inconclusive() -> None:
    reasons = {"mlp": "every candidate fails"}
    verdict = decide(attacks(0.5), Gate(), methods=["a0", "a1", "mlp"], reasons=reasons)
    assert verdict.leak is None
    assert "mlp is not evaluable (every candidate fails)" in verdict.sentence
    assert decide(attacks(0.7), Gate(), methods=["a0", "a1", "mlp"], reasons=reasons).leak is True
    assert decide({}, Gate(), methods=["mlp"], reasons=reasons).leak is None


def test_a_model_that_is_not_evaluable_has_no_verdict() -> None:
    verdict = decide(attacks(0.7), Gate(), methods=["a0", "a1"], not_evaluable="the outputs are all the same.")
    assert verdict.leak is None
    assert verdict.sentence == "NOT EVALUABLE: the outputs are all the same."
    tutorial = GateConfig(tutorial=True).gate()
    found = {name: scored(each.member, each.predicted, estimates=TUTORIALS) for name, each in attacks(0.7).items()}
    assert decide(found, tutorial, methods=list(found), not_evaluable="why").outcome == "inconclusive"


def numbers(value: float) -> dict[str, Estimate]:
    return {name: Estimate(value, value - 0.01, value + 0.01) for name in ("accuracy", "precision", "recall")}


TUTORIALS = numbers(0.7)


@pytest.mark.parametrize(
    ("accuracy", "points", "outcome", "beside"),
    [(0.5, 0.5, "no leak", "no leak"), (0.6, 0.59, "no leak", "inconclusive"), (0.5, 0.7, "leak", "no leak"),
     (0.7, 0.5, "leak", "leak")],
)
def test_the_tutorials_gate_is_either_rule(accuracy: float, points: float, outcome: str, beside: str) -> None:
    found = {
        name: scored(each.member, each.predicted, each.scores, estimates=numbers(points))
        for name, each in attacks(accuracy, n=300).items()
    }
    verdict = decide(found, GateConfig.model_validate("tutorial").gate(), methods=list(found))
    assert (verdict.outcome, verdict.by_rules) == (outcome, beside)
    assert any(each.leak for each in verdict.methods.values()) == (outcome == "leak")
    said = any(note.startswith("By the gate's rules instead: ") for note in verdict.notes)
    assert said == (accuracy < 0.7)


@pytest.mark.parametrize("methods", [["a0", "rf"], []])
def test_a_method_without_a_result_is_an_error(methods: list[str]) -> None:
    with pytest.raises(ValueError, match=r"missing (rf|all)"):
        decide(attacks(0.5, n=20), Gate(), methods=methods)


def test_errors_are_divided_over_attacks_and_rules() -> None:
    assert Gate().leak_alpha(4) == 0.05 / 8
    alone, many = (verdict_of(attacks(0.7, n=100, n_attacks=n)).methods["a0"].rules[0] for n in (1, 12))
    assert many.low is not None
    assert alone.low is not None
    assert many.low < alone.low


def test_the_gate_never_depends_on_the_base_rate() -> None:
    """With few members an attack that knows much decides always for "non-member": that is no clean audit."""
    rng, member = np.random.default_rng(1), np.repeat([True, False], [1000, 8000])
    scores = rng.normal(0.75 * member)
    verdict = verdict_of({"lr": scored(member, scores > 4, scores)})
    rule = verdict.methods["lr"].rules[0]
    assert rule.high is not None
    assert rule.high > 0.6
    assert verdict.outcome == "inconclusive"
    assert "the sides are unequal" in str(rule.reason)
    nothing = verdict_of({"lr": scored(member, scores > 9, rng.normal(size=9000))})
    assert nothing.outcome == "no leak"


def test_one_side_alone_says_nothing() -> None:
    verdict = verdict_of({"lr": scored(np.ones(50), np.ones(50))})
    assert verdict.outcome == "inconclusive"
    assert "no non-members among the scored samples" in verdict.sentence


def test_epsilon_is_of_the_threshold_that_was_fixed() -> None:
    member = np.repeat([True, False], 1000)
    scores = np.concatenate([np.repeat([2.0, 0.0], [300, 700]), np.zeros(1000)])
    half = np.arange(2000) % 2
    own, fixed = (
        verdict_of({"lr": scored(member, half, scores, threshold=threshold)}).methods["lr"].rules[2]
        for threshold in (None, 1.0)
    )
    assert own.outcome == "not above"
    assert fixed.outcome == "leak"
    assert fixed.value is None
    assert "the value is infinite" in str(fixed.reason)


def test_points_instead_of_bounds() -> None:
    point = Gate((Rule("balanced_accuracy", 0.6, bound="point"),))
    assert verdict_of(attacks(0.58, n=60), point).outcome in ("leak", "no leak")
    member = np.repeat([True, False], 10)
    exact = {"lr": scored(member, np.where(np.arange(20) % 10 < 6, member, ~member))}
    assert verdict_of(exact, point).outcome == "no leak"  # .6 is not above .6
    assert verdict_of(exact, Gate((Rule("balanced_accuracy", 0.59, bound="point"),))).outcome == "leak"


def test_a_rule_may_decide_both_by_any_measure() -> None:
    member = np.repeat([True, False], 2000)
    scores = np.random.default_rng(3).normal(2.0 * member)
    strong = {"lr": scored(member, scores > 1, scores)}
    for rule in (Rule("tpr_at_fpr", 0.1, fpr=0.01), Rule("auc", 0.7), Rule("advantage", 0.3)):
        assert verdict_of(strong, Gate((rule,))).outcome == "leak", rule
        assert verdict_of(attacks(0.5, n_attacks=1), Gate((rule,))).outcome == "no leak", rule


def test_a_new_measure_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "luck", Measure(lambda *_: Bounds(7.0, 6.5, 7.5), highest=math.inf))
    gate = GateConfig.model_validate({"rules": [{"metric": "luck", "above": 6}]}).gate()
    verdict = verdict_of(attacks(0.5, n=50, n_attacks=1), gate)
    assert verdict.sentence == "LEAK FOUND: a0 has luck 7.0000 (at least 6.5000) above 6."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule("auc", 0.6, bound="upper"), "gate.rules.bound: must be one of point, lower, got 'upper'"),
        (lambda: Rule("auc", 0.6, decides="all"), "gate.rules.decides: must be one of both, leak, no_leak"),
        (lambda: Rule("auc", math.nan), "gate.rules.above: must be at least 0, got nan"),
        (lambda: Rule("tpr_at_fpr", 0.1, fpr=0.0), r"gate.rules.fpr: must be in \(0, 1\), got 0.0"),
        (lambda: Rule("epsilon", 1, delta=1.0), r"gate.rules.delta: must be in \[0, 1\), got 1.0"),
        (lambda: Gate(alpha=0.5), r"gate.alpha: must be in \(0, 0.5\), got 0.5"),
        (lambda: Gate(()), "gate.rules: must have a rule that decides leak"),
        (lambda: Gate((Rule("auc", 0.6, decides="leak"),)), "gate.rules: must have a rule that decides no_leak"),
    ],
)
def test_a_gate_that_is_none(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_detectable_effect_and_the_samples_to_pass() -> None:
    alpha = 0.05
    assert [round(samples_to_pass(0.6, n_attacks=n, alpha=alpha)) for n in (1, 4, 12)] == [107, 162, 204]
    assert math.isinf(samples_to_pass(0.5, n_attacks=1, alpha=alpha))
    effect = detectable_accuracy(0.6, 1000, 1000, alpha=alpha / 8)
    assert effect == pytest.approx(0.6 + (2.497705 + 0.841621) * math.sqrt(0.24 * 2 / 1000) / 2, abs=1e-6)
    sides = {"n_members": 161, "n_nonmembers": 1000}
    assert "161 samples of a side are scored, and it takes 162" in str(unlikely_to_pass(Gate(), n_attacks=4, **sides))
    assert unlikely_to_pass(Gate(), n_attacks=1, **sides) is None


@pytest.mark.parametrize("room", ["metrics", "verdict", "report"])
def test_the_settings_stand_above(room: str) -> None:
    folder = Path(gate_module.__file__).parents[1] / room
    assert not [file.name for file in folder.glob("*.py") if "mia_batch.settings" in file.read_text()]


def test_unequal_means_outside_the_stated_shares() -> None:
    assert not measures.unequal(450, 550)
    assert measures.unequal(449, 551)
    assert measures.unequal(0, 0)


@pytest.mark.parametrize(
    ("accuracy", "leak", "word"), [(0.5, None, "INCONCLUSIVE: the gap"), (0.8, True, "LEAK FOUND")]
)
def test_what_shows_that_the_attacks_are_too_weak_forbids_no_leak_alone(
    accuracy: float, leak: bool | None, word: str
) -> None:
    attacks = decisions(np.random.default_rng(7), 1000, accuracy, 2)
    assert decide(attacks, Gate(), methods=list(attacks)).leak is (leak is not None)
    found = decide(attacks, Gate(), methods=list(attacks), too_weak=lambda: "the gap")
    assert found.leak is leak
    assert found.sentence.startswith(word)


JOINT = ("tutorial", {"threshold": 0.6, "metrics": ["auc"]}, {"rule": "any_above", "threshold": 0.6})


@pytest.mark.parametrize("joint", JOINT)
@pytest.mark.parametrize(("accuracy", "beside"), [(0.5, "no leak"), (0.6, "inconclusive")])
def test_what_cannot_be_trusted_never_passes_a_joint_rule(joint: Any, accuracy: float, beside: str) -> None:
    """Whatever the definitions' rules say beside it: with too few samples too."""
    gate = GateConfig.model_validate(joint).gate()
    low = {name: Estimate(0.5, 0.4, 0.55) for name in ("auc", "accuracy", "precision", "recall")}
    found = {
        name: scored(each.member, each.predicted, each.scores, estimates=low)
        for name, each in attacks(accuracy, n=300).items()
    }
    trusted = decide(found, gate, methods=list(found))
    assert (trusted.outcome, trusted.by_rules) == ("no leak", beside)
    verdict = decide(found, gate, methods=list(found), too_weak=lambda: "losses alone do not say it.")
    assert (verdict.outcome, verdict.by_rules) == ("inconclusive", "inconclusive")
    assert verdict.sentence == "INCONCLUSIVE: losses alone do not say it."
    above = numbers(0.7) | {"auc": Estimate(0.7, 0.6, 0.8)}
    high = {name: scored(each.member, each.predicted, each.scores, estimates=above) for name, each in found.items()}
    assert decide(high, gate, methods=list(high), too_weak=lambda: "losses alone do not say it.").outcome == "leak"
