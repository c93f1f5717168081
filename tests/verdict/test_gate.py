"""The verdict's rule, its words, and the cautions without which it would mislead."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.metrics import registry
from mia_batch.metrics.base import Estimate
from mia_batch.settings.schema import GateConfig
from mia_batch.verdict import gate as gate_module
from mia_batch.verdict.gate import decide
from mia_batch.verdict.rules import GATE_RULES, Gate, GateRule, Verdict

UNDEFINED = Estimate(math.nan, math.nan, math.nan, "no sample is predicted a member")


def estimates(accuracy: float, precision: float, recall: float, *, reach: float = 0.01) -> dict[str, Estimate]:
    values = {"accuracy": accuracy, "precision": precision, "recall": recall}
    return {name: Estimate(value, value - reach, value + reach) for name, value in values.items()}


def judge(evaluations: dict[str, Any], *, n: tuple[int, int] = (1000, 1000), **gate: Any) -> Verdict:
    return decide(evaluations, GateConfig(**gate).gate(), methods=list(evaluations), n_members=n[0], n_nonmembers=n[1])


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


@pytest.mark.parametrize("methods", [["lr", "rf"], []])
def test_a_method_without_a_result_is_an_error(methods: list[str]) -> None:
    with pytest.raises(ValueError, match=r"missing (rf|all)"):
        decide({"lr": estimates(0.5, 0.5, 0.5)}, GateConfig().gate(), methods=methods, n_members=9, n_nonmembers=9)


@pytest.mark.parametrize("gate", [{}, {"rule": "any_above", "metrics": ("accuracy",)}])
def test_a_guess_that_passes_is_named(gate: dict[str, Any]) -> None:
    """Nine members to a non-member: saying "member" always has accuracy .9, precision .9, recall 1."""
    member = np.repeat([1, 0], [900, 100])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {"knn": registry.evaluate(member, np.ones(1000, dtype=int), np.zeros(1000))}
    verdict = judge(found, n=(900, 100), **gate)
    assert verdict.leak
    assert verdict.cautions[0].startswith("with 90.0% members among the scored samples, an attack that knows nothing")
    assert "a leak by it proves nothing" in verdict.cautions[0]
    assert not judge(found, n=(900, 100), metrics=("balanced_accuracy",)).leak


def test_many_nonmembers_let_the_other_guess_pass() -> None:
    verdict = judge({"lr": estimates(0.9, 0.1, 0.1)}, n=(100, 900), rule="any_above", metrics=("accuracy",))
    assert "calls every sample a non-member" in verdict.cautions[0]


def test_unequal_sides_are_said_and_equal_ones_are_not() -> None:
    found = {"lr": estimates(0.7, 0.7, 0.7)}
    assert judge(found, n=(400, 600)).cautions == (
        "40.0% of the scored samples are members: accuracy and precision depend on that share. balanced_accuracy and "
        "auc do not.",
    )
    assert judge(found, n=(1000, 1001)).cautions == ()
    assert "only members or only non-members" in judge(found, n=(100, 0)).cautions[0]


def test_augmented_members_are_said() -> None:
    found = {"lr": estimates(0.7, 0.7, 0.7)}
    verdict = decide(found, GateConfig().gate(), methods=["lr"], n_members=9, n_nonmembers=9, augment_members=True)
    assert "augment_members" in verdict.cautions[0]


def test_a_new_rule_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GATE_RULES, "most_above", GateRule(lambda above: 2 * sum(above) > len(above), "most of", "and"))
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
        Gate(**({"rule": "all_above", "threshold": 0.6, "metrics": ("auc",)} | fields))


def test_without_a_leak_an_attack_that_is_not_evaluable_leaves_the_audit_inconclusive() -> None:
    counts: dict[str, Any] = {"n_members": 1000, "n_nonmembers": 1000, "reasons": {"mlp": "every candidate fails"}}
    gate = GateConfig().gate()
    verdict = decide({"lr": estimates(0.5, 0.5, 0.5)}, gate, methods=["lr", "mlp"], **counts)
    assert (verdict.leak, verdict.outcome) == (None, "inconclusive")
    assert list(verdict.methods) == ["lr"]
    assert verdict.sentence == (
        "INCONCLUSIVE: mlp is not evaluable (every candidate fails); lr does not have all of accuracy, precision and "
        "recall above 0.6."
    )
    leak = decide({"lr": estimates(0.7, 0.7, 0.7)}, gate, methods=["lr", "mlp"], **counts)
    assert (leak.leak, leak.outcome) == (True, "leak")
    assert leak.cautions == ("not evaluable, and therefore not judged: mlp (every candidate fails).",)
    assert leak.not_evaluable == {"mlp": "every candidate fails"}


@pytest.mark.parametrize("room", ["metrics", "verdict", "report"])
def test_the_settings_stand_above(room: str) -> None:
    folder = Path(gate_module.__file__).parents[1] / room
    assert not [file.name for file in folder.glob("*.py") if "mia_batch.settings" in file.read_text()]
