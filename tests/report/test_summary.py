"""The summary as JSON, CSV, printed lines and table: golden text, round trips, numbers that are missing."""

import csv
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.attacks.base import AttackResult
from mia_batch.metrics import base, ranking, registry
from mia_batch.metrics.base import Estimate
from mia_batch.report.summary import build_summary, method_line, plain, to_csv, to_json
from mia_batch.report.text import render
from mia_batch.settings.schema import GateConfig, ReportConfig
from mia_batch.verdict.gate import decide
from mia_batch.verdict.rules import Gate

TUTORIAL = ("precision", "accuracy", "recall")


def result(method: str, *, n: int = 200, strength: float = 1.0, **fields: Any) -> AttackResult:
    rng = np.random.default_rng(5)
    member = np.repeat([1, 0], n // 2).astype(np.int8)
    evaluated = np.arange(n) % 2 == 0
    scores = np.where(evaluated, 1 / (1 + np.exp(-rng.normal(strength * (member - 0.5)))), np.nan)
    with np.errstate(invalid="ignore"):
        predicted = np.where(evaluated, scores > 0.5, -1).astype(np.int8)
    made: dict[str, Any] = {
        "method": method, "scores": scores, "predicted": predicted, "evaluated": evaluated, "member": member,
        "best_params": {"C": np.float64(0.5), "max_depth": None}, "best_score": 0.61,
        "cv_results": {"params": ["{}", "{}"]},
        "provenance": {"n_nonconverged": {"search": 2, "final": 1}, "seconds": 1.5, "engine": "sklearn"},
    }  # fmt: skip
    return AttackResult(**(made | fields))


GATE = GateConfig().gate()


def summary_of(*results: AttackResult, augment: bool = False, gate: Gate = GATE) -> dict[str, Any]:
    by_name = {each.method: each for each in results}
    found = {}
    for name, each in by_name.items():
        rows = each.evaluated
        found[name] = registry.evaluate(each.member[rows], each.predicted[rows], each.scores[rows])
    rows, member = results[0].evaluated, results[0].member
    sides = {"n_members": int(member[rows].sum()), "n_nonmembers": int((1 - member[rows]).sum())}
    verdict = decide(found, gate, methods=list(by_name), augment_members=augment, **sides)
    origin = {"config": {"checkpoint": Path("net.ckpt")}, "digests": {"model.checkpoint": "ab"}}
    return build_summary(by_name, found, verdict, gate, origin, augment_members=augment)


def silent_summary() -> dict[str, Any]:
    """A summary with precision undefined: the attack calls no sample a member."""
    quiet = result("lr", predicted=np.where(np.arange(200) % 2 == 0, 0, -1).astype(np.int8))
    with pytest.warns(base.UndefinedMetricWarning, match="precision is undefined"):
        return summary_of(quiet)


def test_the_tutorials_line_to_the_letter() -> None:
    values = {"accuracy": 0.71324, "precision": 0.65961, "recall": 0.881, "auc": 0.75}
    found = {name: {"value": value} for name, value in values.items()}
    summary = {"methods": {"lr": {"metrics": found}}}
    golden = "Method: lr, {'recall': 0.8810,'precision': 0.6596,'accuracy': 0.7132}"
    assert method_line(summary, "lr", TUTORIAL) == golden
    assert method_line(summary, "lr", ("recall", "accuracy", "precision")) == golden
    assert method_line(summary, "lr", ("auc", "accuracy")) == "Method: lr, {'accuracy': 0.7132,'auc': 0.7500}"


def test_all_limits_stand_behind_tpr_at_fpr() -> None:
    line = method_line(summary_of(result("rf")), "rf", ("tpr_at_fpr", "recall"))
    names = [part.split(":")[0] for part in line.removeprefix("Method: rf, {").split(",")]
    assert names == ["'recall'", "'tpr_at_fpr_0.1'", "'tpr_at_fpr_0.01'", "'tpr_at_fpr_0.001'"]


def test_nan_is_printed_as_nan_and_stored_as_null_with_its_reason() -> None:
    summary = silent_summary()
    assert method_line(summary, "lr", TUTORIAL) == "Method: lr, {'recall': 0.0000,'precision': nan,'accuracy': 0.5000}"
    precision = json.loads(to_json(summary))["methods"]["lr"]["metrics"]["precision"]
    assert precision == {"value": None, "low": None, "high": None, "reason": "no sample is predicted a member"}
    row = next(row for row in csv.DictReader(io.StringIO(to_csv(summary))) if row["metric"] == "precision")
    assert row["value"] == ""
    assert row["reason"] == "no sample is predicted a member"
    assert "precision       nan*" in render(summary)
    assert "* no sample is predicted a member" in render(summary)


def test_json_is_strict_and_complete() -> None:
    summary = summary_of(result("lr"), result("knn", strength=3.0), augment=True)
    back = json.loads(to_json(summary), parse_constant=lambda text: pytest.fail(f"{text} is not strict JSON"))
    assert back == summary
    assert back["schema"] == 1
    assert back["verdict"]["leak"] is True
    assert back["verdict"]["methods"]["knn"]["leak"] is True
    assert back["verdict"]["rule"]["threshold"] == 0.6
    assert any("augment_members" in caution for caution in back["verdict"]["cautions"])
    assert back["augment_members"] is True
    assert back["samples"] == {"n_fit": 100, "n_scored": 100, "n_members": 50, "n_nonmembers": 50, "base_rate": 0.5}
    assert back["provenance"] == {"config": {"checkpoint": "net.ckpt"}, "digests": {"model.checkpoint": "ab"}}
    method = back["methods"]["lr"]
    assert method["best_params"] == {"C": 0.5, "max_depth": None}
    assert (method["cv_score"], method["n_candidates"], method["n_fit"], method["n_eval"]) == (0.61, 2, 100, 100)
    assert method["n_nonconverged"] == {"search": 2, "final": 1}
    assert method["seconds"] == 1.5
    assert method["provenance"] == {"engine": "sklearn"}


def test_a_grid_search_without_a_score_gives_its_reason() -> None:
    method = summary_of(result("lr", best_score=math.nan))["methods"]["lr"]
    assert method["cv_score"] is None
    assert "no candidate" in method["cv_score_reason"]


def test_csv_rows_hold_the_summarys_numbers_in_full() -> None:
    summary = summary_of(result("lr"), result("knn", strength=3.0))
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert list(rows[0]) == ["method", "metric", "value", "low", "high", "reason"]
    assert len(rows) == 2 * 9
    for row in rows:
        numbers = summary["methods"][row["method"]]["metrics"][row["metric"]]
        assert [float(row[key]) for key in ("value", "low", "high")] == [numbers[k] for k in ("value", "low", "high")]
        assert row["reason"] == (numbers["reason"] or "")


def test_plain_types() -> None:
    value = {
        "a": np.arange(2),
        1: (np.float32(0.5), np.bool_(True)),
        "n": [math.inf, np.float64("nan"), None],
        "p": Path("x"),
    }
    assert plain(value) == {"a": [0, 1], "1": [0.5, True], "n": [None, None, None], "p": "x"}


def four() -> dict[str, Any]:
    return summary_of(*(result(name, strength=2.0) for name in ("lr", "knn", "mlp", "rf")))


@pytest.mark.parametrize("width", [22, 30, 31, 40, 60, 79, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = render(four(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    for word in ("lr", "knn", "mlp", "rf", "balanced acc.", "TPR @ FPR 0.001"):
        assert word in text
    assert text.count("TPR @ FPR 0.001") == math.ceil(4 / min(4, (width - 15) // (16 if width >= 31 else 7)))


def test_even_narrower_terminals_get_a_table() -> None:
    assert render(four(), width=1) == render(four(), width=22)


def test_table_at_80_columns() -> None:
    summary = summary_of(result("lr"), result("knn"))
    for method, shift in (("lr", 0.0), ("knn", 0.1)):
        for name in summary["methods"][method]["metrics"]:
            numbers = {"value": 0.7 + shift, "low": 0.65, "high": 1.0, "reason": None}
            summary["methods"][method]["metrics"][name] = numbers
    summary["methods"]["knn"]["metrics"]["tpr_at_fpr_0.001"]["reason"] = "too fine"
    summary["verdict"] |= {"sentence": "LEAK FOUND: all.", "cautions": ["few samples."]}
    assert (
        render(summary)
        == """\
Value and 95% interval, scored on 50 members and 50 non-members that no attack
was fitted on:

                lr              knn
accuracy        .700 .650-1.00  .800 .650-1.00
precision       .700 .650-1.00  .800 .650-1.00
recall          .700 .650-1.00  .800 .650-1.00
balanced acc.   .700 .650-1.00  .800 .650-1.00
AUC             .700 .650-1.00  .800 .650-1.00
advantage       .700 .650-1.00  .800 .650-1.00
TPR @ FPR 0.1   .700 .650-1.00  .800 .650-1.00
TPR @ FPR 0.01  .700 .650-1.00  .800 .650-1.00
TPR @ FPR 0.001 .700 .650-1.00  .800 .650-1.00*

* too fine
lr: 3 fits did not converge (details in summary.json)
knn: 3 fits did not converge (details in summary.json)

LEAK FOUND: all.
Caution: few samples."""
    )


def test_many_distinct_reasons_share_the_last_mark() -> None:
    summary = four()
    for i, (method, metric) in enumerate((m, k) for m in summary["methods"] for k in summary["methods"][m]["metrics"]):
        summary["methods"][method]["metrics"][metric]["reason"] = f"reason {i}"
    assert "& reason 35" in render(summary)


def test_estimates_of_the_summary_are_those_of_the_metrics() -> None:
    each = result("lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summary_of(each)
    rows = each.evaluated
    expected = ranking.auc(each.member[rows], each.scores[rows])
    assert Estimate(**summary["methods"]["lr"]["metrics"]["auc"]) == expected


def test_a_new_metric_is_one_line_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = registry.Metric(lambda member, scores, *, level: Estimate(0.25, 0.2, level), of_scores=True, label="Toy")
    monkeypatch.setitem(registry.METRICS, "toy", toy)
    assert ReportConfig.model_validate({"metrics": ["toy", "recall"]}).metrics == ("toy", "recall")
    gate = GateConfig.model_validate({"metrics": ["toy"], "threshold": 0.2}).gate()
    summary = summary_of(result("lr"), gate=gate)
    assert summary["methods"]["lr"]["metrics"]["toy"] == {"value": 0.25, "low": 0.2, "high": 0.95, "reason": None}
    assert summary["verdict"]["leak"] is True
    assert "Toy             .250 .200-.950" in render(summary)
    assert "toy,0.25,0.2,0.95" in to_csv(summary)
    assert method_line(summary, "lr", ("toy", "recall")).endswith(",'toy': 0.2500}")
    assert "calls every sample a member passes this rule" in summary["verdict"]["cautions"][0]
