"""The summary as JSON, CSV, printed lines and table: golden text, round trips, numbers that are missing."""

import csv
import io
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_attacks import scored

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.json_text import SEAL
from mia_batch.metrics import base, ranking, registry
from mia_batch.metrics.base import Estimate
from mia_batch.report.build import build_summary
from mia_batch.report.summary import (
    MetricSummary,
    Summary,
    json_schema,
    plain,
    read_summary,
    to_csv,
    to_json,
)
from mia_batch.report.text import method_line, render
from mia_batch.settings.schema import GateConfig, ReportConfig
from mia_batch.verdict.cautions import AUGMENTED
from mia_batch.verdict.gate import decide
from mia_batch.verdict.rules import OUTCOMES, Gate

TUTORIAL = ("precision", "accuracy", "recall")


def result(method: str, *, n: int = 200, strength: float = 1.0, **fields: Any) -> AttackResult:
    rng = np.random.default_rng(5)
    member = np.repeat([1, 0], n // 2).astype(np.int8)
    evaluated = np.arange(n) % 2 == 0
    scores = np.where(evaluated, 1 / (1 + np.exp(-rng.normal(strength * (member - 0.5)))), np.nan)
    with np.errstate(invalid="ignore"):
        predicted = np.where(evaluated, scores > 0.5, -1).astype(np.int8)
    made: dict[str, Any] = {
        "method": method, "scores": scores, "predicted": predicted,
        "scored_by": np.where(evaluated, 0, -1).astype(np.int32), "member": member,
        "best_params": {"C": np.float64(0.5), "max_depth": None}, "best_score": 0.61,
        "cv_results": {"params": ["{}", "{}"]},
        "provenance": {"n_nonconverged": {"search": 2, "final": 1}, "seconds": 1.5, "engine": "sklearn"},
    }  # fmt: skip
    return AttackResult(**(made | fields))


GATE = GateConfig(rule="all_above").gate()


def summary_of(*results: AttackResult, augment: bool = False, gate: Gate = GATE) -> Summary:
    by_name = {each.method: each for each in results}
    reasons = {name: each.reason for name, each in by_name.items() if each.reason}
    found = {}
    for name, each in by_name.items():
        if each.reason:
            continue
        rows = each.evaluated
        found[name] = registry.evaluate(each.member[rows], each.predicted[rows], each.scores[rows])
    attacks = {}
    for name, estimates in found.items():
        each = by_name[name]
        columns = (column[each.evaluated] for column in (each.member, each.predicted, each.scores))
        attacks[name] = scored(*columns, estimates=estimates)
    verdict = decide(attacks, gate, methods=list(by_name), cautions=[AUGMENTED] * augment, reasons=reasons)
    origin = {"config": {"checkpoint": Path("net.ckpt")}, "digests": {"model.checkpoint": "ab"}}
    return build_summary(by_name, found, verdict, gate, origin, augment_members=augment)


def as_dict(summary: Summary) -> dict[str, Any]:
    return json.loads(to_json(summary), parse_constant=lambda text: pytest.fail(f"{text} is not strict JSON"))


def silent_summary() -> Summary:
    """A summary with precision undefined: the attack calls no sample a member."""
    quiet = result("lr", predicted=np.where(np.arange(200) % 2 == 0, 0, -1).astype(np.int8))
    with pytest.warns(base.UndefinedMetricWarning, match="precision is undefined"):
        return summary_of(quiet)


def test_the_tutorials_line_to_the_letter() -> None:
    values = {"accuracy": 0.71324, "precision": 0.65961, "recall": 0.881, "auc": 0.75}
    raw = as_dict(summary_of(result("lr")))
    raw["methods"]["lr"]["metrics"] = {n: {"value": v, "low": 0, "high": 1, "reason": None} for n, v in values.items()}
    summary = Summary.model_validate(raw)
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
    back = as_dict(summary)
    assert Summary.model_validate(back) == summary
    assert list(back) == [
        "schema", "verdict", "level", "samples", "augment_members", "methods", "provenance", "audited", "checks",
        "randomised", "claim", "records", "slices", "detectable", "facts", "not_tried", "files", SEAL,
    ]  # fmt: skip
    assert back["schema"] == 2
    assert back["verdict"]["leak"] is True
    assert back["verdict"]["outcome"] == "leak"
    assert back["verdict"]["methods"]["knn"]["leak"] is True
    assert back["verdict"]["rule"]["threshold"] == 0.6
    assert any("augment_members" in caution for caution in back["verdict"]["cautions"])
    assert back["augment_members"] is True
    assert back["samples"] == {
        "n_fit": 100, "n_scored": 100, "n_members": 50, "n_nonmembers": 50, "base_rate": 0.5, "base_rate_reason": None,
        "n_twins": None, "n_groups": None,
    }  # fmt: skip
    assert back["provenance"] == {"config": {"checkpoint": "net.ckpt"}, "digests": {"model.checkpoint": "ab"}}
    method = back["methods"]["lr"]
    assert method["best_params"] == {"C": 0.5, "max_depth": None}
    assert (method["cv_score"], method["n_candidates"], method["n_fit"], method["n_eval"]) == (0.61, 2, 100, 100)
    assert method["n_nonconverged"] == {"search": 2, "final": 1}
    assert method["seconds"] == 1.5
    assert method["provenance"] == {"engine": "sklearn"}


def test_a_grid_search_without_a_score_gives_its_reason() -> None:
    method = summary_of(result("lr", best_score=math.nan)).methods["lr"]
    assert method.cv_score is None
    assert method.cv_score_reason == "no candidate of the grid search has a finite score"
    method = summary_of(result("lr", best_score=math.nan, cv_results={})).methods["lr"]
    assert method.cv_score_reason == "no grid was searched"


def test_csv_rows_hold_the_summarys_numbers_in_full() -> None:
    summary = summary_of(result("lr"), result("knn", strength=3.0))
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert list(rows[0]) == ["method", "metric", "value", "low", "high", "reason", "slice"]
    assert len(rows) == 2 * len(registry.METRICS)
    for row in rows:
        numbers = summary.methods[row["method"]].metrics[row["metric"]]
        assert [float(row[key]) for key in ("value", "low", "high")] == [numbers.value, numbers.low, numbers.high]
        assert row["reason"] == (numbers.reason or "")
        assert row["slice"] == ""


def test_plain_types() -> None:
    value = {
        "a": np.arange(2),
        1: (np.float32(0.5), np.bool_(True)),
        "n": [math.inf, np.float64("nan"), None],
        "p": Path("x"),
    }
    assert plain(value) == {"a": [0, 1], "1": [0.5, True], "n": [None, None, None], "p": "x"}


def four() -> Summary:
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
    summary = as_dict(summary_of(result("lr"), result("knn")))
    for method, shift in (("lr", 0.0), ("knn", 0.1)):
        for name in summary["methods"][method]["metrics"]:
            numbers = {"value": 0.7 + shift, "low": 0.65, "high": 1.0, "reason": None}
            summary["methods"][method]["metrics"][name] = numbers
    summary["methods"]["knn"]["metrics"]["tpr_at_fpr_0.001"]["reason"] = "too fine"
    summary["verdict"] |= {"sentence": "LEAK FOUND: all.", "cautions": ["few samples."], "notes": []}
    assert (
        render(Summary.model_validate(summary))
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
PPV @ FPR 0.1   .700 .700 .700  .800 .800 .800
PPV @ FPR 0.01  .700 .700 .700  .800 .800 .800
PPV @ FPR 0.001 .700 .700 .700  .800 .800 .800

* too fine
lr: 3 fits did not converge (details in summary.json)
knn: 3 fits did not converge (details in summary.json)
PPV: how sure a decision at that FPR is where 0.5, 0.1 and 0.01 of all samples
are members.

LEAK FOUND: all.
Caution: few samples."""
    )


@pytest.mark.parametrize("width", [22, 80])
def test_long_names_go_over_several_lines(width: int) -> None:
    names = ("lr", "class_threshold_loss", "class_threshold_hinge", "attack_p", "class_threshold_modified_entropy")
    text = render(summary_of(*map(result, names)), width=width)
    assert max(map(len, text.splitlines())) <= width
    if width == 80:
        header = text.splitlines()[3:6]
        assert [line.split() for line in header] == [
            ["class_", "class_"], ["threshold_", "threshold_"], ["lr", "loss", "hinge", "attack_p"],
        ]
        assert header[2].index("loss") == header[1].index("threshold_")
    assert ("modified_\n" if width == 80 else "d_mo\n") in text


def test_many_distinct_reasons_share_the_last_mark() -> None:
    summary = as_dict(four())
    for i, (method, metric) in enumerate((m, k) for m in summary["methods"] for k in summary["methods"][m]["metrics"]):
        summary["methods"][method]["metrics"][metric]["reason"] = f"reason {i}"
    assert "& reason 35" in render(Summary.model_validate(summary))


def test_estimates_of_the_summary_are_those_of_the_metrics() -> None:
    each = result("lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summary_of(each)
    rows = each.evaluated
    expected = ranking.auc(each.member[rows], each.scores[rows])
    assert Estimate(**summary.methods["lr"].metrics["auc"].model_dump()) == expected


def test_a_new_metric_is_one_line_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = registry.Metric(lambda member, scores, *, level: Estimate(0.25, 0.2, level), of_scores=True, label="Toy")
    monkeypatch.setitem(registry.METRICS, "toy", toy)
    assert ReportConfig.model_validate({"metrics": ["toy", "recall"]}).metrics == ("toy", "recall")
    gate = GateConfig.model_validate({"metrics": ["toy"], "threshold": 0.2}).gate()
    summary = summary_of(result("lr"), gate=gate)
    assert summary.methods["lr"].metrics["toy"] == MetricSummary(value=0.25, low=0.2, high=0.95, reason=None)
    assert summary.verdict.leak is True
    assert "Toy             .250 .200-.950" in render(summary)
    assert "toy,0.25,0.2,0.95" in to_csv(summary)
    assert method_line(summary, "lr", ("toy", "recall")).endswith(",'toy': 0.2500}")
    assert "calls every sample a member passes this rule" in summary.verdict.cautions[0]


BEFORE = Path(__file__).parent / "files" / "summary_0_1.json"


def holds(new: Any, old: Any) -> bool:
    """Whether `new` has every key and value of `old`."""
    if isinstance(old, dict):
        return all(key in new and holds(new[key], value) for key, value in old.items())
    return type(new) is type(old) and new == old


def test_a_file_of_the_version_before_is_read_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    summary = read_summary(BEFORE)
    assert summary.verdict.outcome == OUTCOMES[summary.verdict.leak]
    assert holds(as_dict(summary), json.loads(BEFORE.read_text()))
    again = tmp_path / "summary.json"
    again.write_text(to_json(summary))
    assert read_summary(again) == summary
    assert again.read_text() == to_json(read_summary(again))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.update(schema=3), "schema: must be 1 or 2, got 3"),
        (lambda s: s["verdict"].pop("leak"), "verdict.leak: is required"),
        (lambda s: s["verdict"].update(leak="yes"), "verdict.leak: must be a valid boolean, got 'yes'"),
        (lambda s: s["verdict"]["rule"].update(bound="up"), "verdict.rule: gate.bound: must be one of point, lower"),
        (lambda s: s.update(methods=[]), "methods: must be a mapping, got []"),
        (lambda s: s["methods"]["lr"]["metrics"]["auc"].update(value=None), "methods.lr.metrics.auc: must have value"),
        (lambda s: s["methods"]["lr"]["metrics"]["auc"].update(low="x"), "methods.lr.metrics.auc.low: must be a valid"),
        (lambda s: s.update(level=math.nan), "level: must be a finite number, got nan"),
    ],
)
def test_a_damaged_summary_is_refused_in_one_line(tmp_path: Path, change: Callable[[Any], Any], line: str) -> None:
    raw, path = json.loads(BEFORE.read_text()), tmp_path / "summary.json"
    change(raw)
    path.write_text(json.dumps(raw))
    assert refusal(path).startswith(f"{path}: {line}")


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_summary(path)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def test_what_is_no_summary_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    assert refusal(path) == f"{path}: must be a summary that can be read, got: No such file or directory"
    for content, line in ((b"{", "must be JSON, got EOF"), (b"\xff", "must be JSON text"), (b"[]", "summary: must be")):
        path.write_bytes(content)
        assert refusal(path).startswith(f"{path}: {line}")


def failed(method: str, reason: str) -> AttackResult:
    none = np.full(200, np.nan), np.full(200, -1, dtype=np.int8), np.full(200, -1, dtype=np.int32)
    return AttackResult(method, *none, member=np.repeat([1, 0], 100).astype(np.int8), reason=reason)


def test_a_method_that_is_not_evaluable_is_there_with_its_reason() -> None:
    summary = summary_of(result("lr", strength=0.0), failed("mlp", "every candidate fails"))
    assert method_line(summary, "mlp", ("auc",)) == "Method: mlp, not evaluable: every candidate fails"
    raw = as_dict(summary)
    assert raw["verdict"]["leak"] is None
    assert raw["verdict"]["outcome"] == "inconclusive"
    assert raw["verdict"]["not_evaluable"] == {"mlp": "every candidate fails"}
    assert list(raw["verdict"]["methods"]) == ["lr"]
    found = raw["methods"]["mlp"]
    assert (found["reason"], found["n_eval"], found["cv_score"]) == ("every candidate fails", 0, None)
    assert found["cv_score_reason"] == "not evaluable: every candidate fails"
    assert raw["methods"]["lr"]["reason"] is None
    assert raw["samples"]["n_scored"] == 100
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(summary))) if row["method"] == "mlp"]
    assert {(row["value"], row["reason"]) for row in rows} == {("", "not evaluable: every candidate fails")}
    assert [row["metric"] for row in rows] == list(registry.METRICS)
    text = render(summary)
    (mark,) = next(line for line in text.splitlines() if line.startswith("accuracy")).rsplit("nan")[1]
    assert f"{mark} not evaluable: every candidate fails" in text


def test_nothing_is_evaluable() -> None:
    summary = summary_of(failed("lr", "A"), failed("mlp", "B"))
    assert summary.verdict.leak is None
    assert summary.verdict.sentence == "INCONCLUSIVE: lr is not evaluable (A); mlp is not evaluable (B)."
    assert (summary.samples.base_rate, summary.samples.base_rate_reason) == (None, "no attack is evaluable")
    assert "not evaluable: A" in render(summary)
    as_dict(summary)


def test_reading_summaries_does_not_wait_for_scipy() -> None:
    code = "import sys, mia_batch.commands.history; sys.exit('scipy' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_schema_describes_what_is_written() -> None:
    schema = json_schema()
    written = as_dict(summary_of(result("lr"), gate=GateConfig().gate()))
    assert set(written) == set(schema["properties"])
    optional = {"audited", "checks", "randomised", "claim", "records", "slices", SEAL}
    optional |= {"detectable", "facts", "not_tried", "files"}
    assert set(written) - set(schema["required"]) == optional
    verdict = schema["$defs"]["VerdictSummary"]["properties"]
    assert set(written["verdict"]) == set(verdict)
    assert "outcome" in verdict


def test_a_gate_of_bounds_is_written_and_read(tmp_path: Path) -> None:
    summary = summary_of(result("lr", strength=3.0), gate=GateConfig().gate())
    path = tmp_path / "summary.json"
    path.write_text(to_json(summary))
    assert read_summary(path) == summary
    verdict = json.loads(path.read_text())["verdict"]
    assert (verdict["outcome"], verdict["rule"], verdict["alpha"]) == ("leak", None, 0.05)
    assert [rule["metric"] for rule in verdict["rules"]] == ["balanced_accuracy", "tpr_at_fpr", "epsilon"]
    found = verdict["methods"]["lr"]["rules"][0]
    assert found["low"] < found["value"] < found["high"]
    assert found["outcome"] == "leak"
