"""The joint rule of points, as the tutorial has it: its words, its cautions, and sides that decide nothing."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from simulated_attacks import scored

from mia_batch.metrics import registry
from mia_batch.metrics.base import Estimate
from mia_batch.settings.schema import GateConfig
from mia_batch.verdict.gate import decide
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.rules import GATE_RULES, JointRule, JointRuleKind, Verdict

UNDEFINED = Estimate(math.nan, math.nan, math.nan, "no sample is predicted a member")
TUTORIAL = {"rule": "all_above"}


def estimates(accuracy: float, precision: float, recall: float, *, reach: float = 0.01) -> dict[str, Estimate]:
    values = {"accuracy": accuracy, "precision": precision, "recall": recall}
    return {name: Estimate(value, value - reach, value + reach) for name, value in values.items()}


def judge(evaluations: dict[str, Any], *, n: tuple[int, int] = (1000, 1000), **gate: Any) -> Verdict:
    """Of attacks that know nothing but have these metrics."""
    member = np.repeat([1, 0], n)
    said = np.arange(sum(n)) % 2
    attacks = {name: scored(member, said, estimates=found) for name, found in evaluations.items()}
    return decide(attacks, GateConfig(**(gate or TUTORIAL)).gate(), methods=list(attacks))


def test_the_tutorials_rule() -> None:
    verdict = judge({"lr": estimates(0.7132, 0.6596, 0.8810), "knn": estimates(0.7082, 0.5613, 0.7774)})
    assert verdict.leak
    assert verdict.methods["lr"].leak
    assert not verdict.methods["knn"].leak
    assert verdict.methods["knn"].above == ("accuracy", "recall")
    assert verdict.methods["knn"].not_above == ("precision",)
    assert verdict.cautions == ()
    assert verdict.sentence == (
        "LEAK FOUND: lr has accuracy 0.7132, precision 0.6596 and recall 0.8810. The rule for a leak is accuracy, "
        "precision and recall above 0.6 in any one attack."
    )


def test_metrics_above_in_different_methods_do_not_add_up() -> None:
    verdict = judge({"lr": estimates(0.7, 0.7, 0.5), "knn": estimates(0.5, 0.7, 0.7)})
    assert not verdict.leak
    assert verdict.sentence == (
        "No leak found: none of the 2 attacks (lr, knn) has all of accuracy, precision and recall above 0.6."
    )


def test_equal_is_not_above() -> None:
    assert not judge({"lr": estimates(0.6, 0.9, 0.9)}).leak
    assert judge({"lr": estimates(math.nextafter(0.6, 1), 0.9, 0.9)}).leak


def test_any_above() -> None:
    found = {"lr": estimates(0.5, 0.5, 0.5), "rf": estimates(0.61, 0.5, 0.5)}
    verdict = judge(found, rule="any_above", metrics=("accuracy", "precision"))
    assert verdict.leak
    assert "rf has accuracy 0.6100" in verdict.sentence
    assert "accuracy or precision above 0.6" in verdict.sentence
    assert not judge({"lr": found["lr"]}, rule="any_above").leak
    assert not judge(found).leak


def test_the_lower_bound_decides_if_asked() -> None:
    found = {"lr": estimates(0.65, 0.65, 0.65, reach=0.06)}
    by_value, by_bound = judge(found), judge(found, bound="lower")
    assert by_value.leak
    assert "could be sampling error" in by_value.cautions[0]
    assert not by_bound.leak
    assert by_bound.sentence == (
        "No leak found: lr does not have all of accuracy, precision and recall above 0.6, by the lower ends of the "
        "intervals."
    )
    sure = judge({"lr": estimates(0.65, 0.65, 0.65, reach=0.04)}, bound="lower")
    assert sure.leak
    assert "accuracy 0.6500 (at least 0.6100)" in sure.sentence


def test_undefined_is_never_above() -> None:
    found = {"lr": {**estimates(0.9, 0.9, 0.9), "precision": UNDEFINED}}
    verdict = judge(found, threshold=0.0)
    assert not verdict.leak
    assert verdict.methods["lr"].undefined == ("precision",)
    assert verdict.methods["lr"].above == ("accuracy", "recall")
    assert verdict.cautions[-1] == "without a value, and therefore counted as not above: precision of lr."
    assert judge(found, rule="any_above").leak
    assert not judge({"lr": {"precision": UNDEFINED}}, rule="any_above", metrics=("precision",)).leak


def measured(member: np.ndarray, said: np.ndarray, scores: np.ndarray | None = None) -> Scored:
    values = said.astype(float) if scores is None else scores
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scored(member, said, values, estimates=registry.evaluate(member, said, values))


@pytest.mark.parametrize("n", [(900, 100), (800, 200), (100, 900)])
@pytest.mark.parametrize("word", [0, 1])
@pytest.mark.parametrize("gate", [TUTORIAL, {"rule": "any_above", "metrics": ("accuracy", "precision")}])
def test_a_guess_is_neither_a_leak_nor_a_clean_audit(n: tuple[int, int], word: int, gate: dict[str, Any]) -> None:
    """Saying "member" of four members and a non-member has accuracy .8 and precision .8."""
    member = np.repeat([1, 0], n)
    verdict = decide({"knn": measured(member, np.full(sum(n), word))}, GateConfig(**gate).gate(), methods=["knn"])
    assert verdict.outcome == "inconclusive"
    assert "decisions lean to the larger side" in verdict.sentence


def test_few_members_among_many_do_not_make_a_clean_audit() -> None:
    """100 members against 800 others, AUC .8: the attack calls nobody a member, and the tutorial's rule is content."""
    rng, member = np.random.default_rng(6), np.repeat([1, 0], [100, 800])
    scores = rng.normal(1.19 * member)
    attack = measured(member, (scores > 4).astype(int), scores)
    assert attack.estimates["auc"].value > 0.75
    for gate in ("tutorial", TUTORIAL, {}):
        verdict = decide({"lr": attack}, GateConfig.model_validate(gate).gate(), methods=["lr"])
        assert verdict.outcome == "inconclusive"
    by_auc = GateConfig(metrics=("auc",)).gate()
    assert decide({"lr": attack}, by_auc, methods=["lr"]).outcome == "leak"


def test_bounds_may_clear_unequal_sides_that_points_cannot() -> None:
    rng, member = np.random.default_rng(8), np.repeat([1, 0], [3000, 9000])
    attack = measured(member, rng.integers(0, 2, 12_000), rng.normal(size=12_000))
    outcomes = [
        decide({"lr": attack}, GateConfig.model_validate(gate).gate(), methods=["lr"]).outcome
        for gate in ("tutorial", TUTORIAL)
    ]
    assert outcomes == ["no leak", "inconclusive"]


def test_equal_sides_change_nothing() -> None:
    verdict = judge({"lr": estimates(0.7, 0.7, 0.7)}, n=(1000, 1000))
    assert "accuracy 0.7000, precision 0.7000" in verdict.sentence
    assert judge({"lr": estimates(0.59, 0.59, 0.59)}).outcome == "no leak"


def test_a_rule_that_a_guess_passes_is_named() -> None:
    verdict = judge({"lr": estimates(0.5, 0.5, 0.9)}, metrics=("recall",))
    assert verdict.leak
    assert verdict.cautions[0].startswith("an attack that knows nothing and calls every sample a member passes")


def test_unequal_sides_are_said_and_equal_ones_are_not() -> None:
    found = {"lr": estimates(0.7, 0.7, 0.7)}
    assert judge(found, n=(400, 600)).cautions[0].startswith("40.0% of the scored samples are members: accuracy and")
    assert judge(found, n=(1000, 1001)).cautions == ()
    assert "only members or only non-members" in judge(found, n=(100, 0)).cautions[0]


def test_a_new_rule_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = JointRuleKind(lambda above: 2 * sum(above) > len(above), "most of", "and")
    monkeypatch.setitem(GATE_RULES, "most_above", kind)
    leak = judge({"lr": estimates(0.7, 0.7, 0.5)}, rule="most_above")
    clear = judge({"lr": estimates(0.7, 0.5, 0.5)}, rule="most_above")
    assert leak.sentence == (
        "LEAK FOUND: lr has accuracy 0.7000 and precision 0.7000. The rule for a leak is most of accuracy, precision "
        "and recall above 0.6 in any one attack."
    )
    assert not clear.leak
    assert "lr does not have most of accuracy, precision and recall above 0.6" in clear.sentence


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "some_above"}, "gate.rule: must be one of all_above, any_above, got 'some_above'"),
        ({"bound": "upper"}, "gate.bound: must be one of point, lower, got 'upper'"),
        ({"threshold": math.nan}, r"gate.threshold: must be in \[0, 1\], got nan"),
        ({"metrics": ()}, "gate.metrics: must name at least one"),
    ],
)
def test_a_gate_that_is_none(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointRule(**({"rule": "all_above", "threshold": 0.6, "metrics": ("auc",)} | fields))


def test_an_attack_that_is_not_evaluable_leaves_no_clean_audit() -> None:
    member, reasons = np.repeat([1, 0], 1000), {"mlp": "every candidate fails"}
    gate = GateConfig(**TUTORIAL).gate()
    clean = scored(member, member * 0, estimates=estimates(0.5, 0.5, 0.5))
    verdict = decide({"lr": clean}, gate, methods=["lr", "mlp"], reasons=reasons)
    assert (verdict.leak, verdict.outcome) == (None, "inconclusive")
    assert list(verdict.methods) == ["lr"]
    assert verdict.sentence == (
        "INCONCLUSIVE: mlp is not evaluable (every candidate fails); lr does not have all of accuracy, precision and "
        "recall above 0.6."
    )
    leaking = scored(member, member * 0, estimates=estimates(0.7, 0.7, 0.7))
    leak = decide({"lr": leaking}, gate, methods=["lr", "mlp"], reasons=reasons)
    assert (leak.leak, leak.outcome) == (True, "leak")
    assert leak.cautions == ("not evaluable, and therefore not judged: mlp (every candidate fails).",)
    assert leak.not_evaluable == reasons
