"""What the attacks miss, or see the wrong way round, by the gate's own rules and with its control of errors."""

from typing import Any

import numpy as np
import pytest
from simulated_attacks import decisions, scored

from mia_batch.metrics.base import INDEPENDENT
from mia_batch.settings.schema import GateConfig
from mia_batch.verdict.evaluability import EXCHANGED
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.missed import Looks, halves, missed
from mia_batch.verdict.rules import Gate, Rule

N = 1000  # of a side
MEMBER = np.repeat([True, False], N)


def blind(seed: int = 1) -> Scored:
    """An attack that knows nothing."""
    scores = np.random.default_rng(seed).normal(size=2 * N)
    return scored(MEMBER, scores > 0, scores)


def looks(group: Any = None, **signals: Any) -> Looks:
    return Looks(signals, halves(2 * N, group), INDEPENDENT)


def tail(share: float, seed: int = 2) -> Any:
    """Scores by which a share of the members are sure to be found, and no other."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=2 * N) + 12 * (MEMBER & (rng.random(2 * N) < share))


def gate(**keys: Any) -> Gate:
    return GateConfig.model_validate(keys).gate()


@pytest.mark.parametrize(
    ("rule", "share", "said"),
    [
        (Rule("balanced_accuracy", 0.6), 0.6, "balanced accuracy"),
        (Rule("tpr_at_fpr", 0.1, fpr=0.01), 0.16, "TPR at FPR 0.01"),
        (Rule("epsilon", 1.0, delta=1e-5, decides="both", bound="point"), 0.1, "epsilon"),
        (Rule("auc", 0.6), 0.4, "auc"),
    ],
)
def test_a_leak_that_is_seen_the_wrong_way_round_is_found_by_each_rule(rule: Rule, share: float, said: str) -> None:
    """In the tail too, where the AUC of the exchanged sides is not far below one half."""
    scores = -tail(share)
    found = missed({"lr": blind(), "a": scored(MEMBER, scores > 0, scores)}, looks(), Gate((rule,)))
    assert found.startswith(f"by a non-members look more like members than members do: turned round it has {said}")
    assert found.endswith(EXCHANGED)
    assert missed({"a": scored(MEMBER, tail(share) > 0, tail(share))}, looks(), Gate((rule,))) == ""
    assert missed({"a": blind()}, looks(), Gate((rule,))) == ""


@pytest.mark.parametrize("keys", [{}, {"tutorial": True}, {"threshold": 0.6, "metrics": ["auc"]},
                                  {"threshold": 0.6, "metrics": ["recall"]}])  # fmt: skip
def test_what_is_the_wrong_way_round_is_so_by_any_gate(keys: dict[str, Any]) -> None:
    scores = -tail(0.6)
    assert EXCHANGED in missed({"a": scored(MEMBER, scores > 0, scores)}, looks(), gate(**keys))
    assert missed({"a": blind()}, looks(), gate(**keys)) == ""


@pytest.mark.parametrize(("keys", "found"), [({}, True), ({"tutorial": True}, True),
                                            ({"threshold": 0.6, "metrics": ["auc"]}, True),
                                            ({"threshold": 0.9, "metrics": ["auc"]}, False)])  # fmt: skip
def test_a_leak_that_no_attack_was_asked_to_look_at_is_judged_by_the_rule_that_decides(
    keys: dict[str, Any], found: bool
) -> None:
    signal = tail(0.6)
    said = missed({"correctness": blind()}, looks(threshold_confidence=signal), gate(**keys))
    assert bool(said) == found
    if found:
        assert said.startswith("the attacks that were made miss a leak: threshold_confidence would have")
        assert said.endswith("Add the attack threshold_confidence.")
    turned = missed({"correctness": blind()}, looks(threshold_confidence=-signal), gate(**keys))
    assert turned.startswith("by threshold_confidence non-members look more like members")
    assert missed({"threshold_confidence": blind()}, looks(threshold_confidence=signal), gate(**keys)) == ""  # it did


def test_groups_stay_in_one_half_and_too_few_samples_show_nothing() -> None:
    group = np.arange(N) // 5
    half = halves(N, group)
    assert all(len(np.unique(half[group == each])) == 1 for each in range(N // 5))
    assert 0.4 < half.mean() < 0.6
    few = Looks({}, np.array([True, True]), INDEPENDENT)
    assert missed({"a": scored(np.array([1, 0]), np.array([0, 1]))}, few, Gate()) == ""


@pytest.mark.parametrize(("n", "trials"), [(50, 100), (200, 100), (1000, 20)])
def test_a_model_without_a_leak_is_called_doubtful_no_more_often_than_stated(n: int, trials: int) -> None:
    rng, said = np.random.default_rng(4), 0
    for _ in range(trials):
        own = {"threshold_confidence": rng.normal(size=2 * n), "correctness": (rng.random(2 * n) < 0.8).astype(float)}
        said += bool(missed(decisions(rng, n, 0.5, 4), Looks(own, halves(2 * n), INDEPENDENT), Gate()))
    assert said <= 0.05 * trials
