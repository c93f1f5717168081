"""records.csv beside the summary: which samples and attacks are in it, and what the summary says of it."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rundirs import finish
from running import REPO

from mia_batch.attacks.base import AttackResult, not_evaluable
from mia_batch.errors import InputError
from mia_batch.metrics.records import conformal_p_values
from mia_batch.process.exit_codes import run_main
from mia_batch.report.summary import RecordsSummary, json_schema
from mia_batch.report.text import records_lines
from mia_batch.rundir.claim import claim
from mia_batch.rundir.features import SPLIT, Features
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import ReportConfig
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.plan import make_manifest
from mia_batch.stages.records import make_records
from mia_batch.stages.reduce import reduce

N = 400  # half are members
MEMBER = np.repeat([1, 0], N // 2).astype(np.int8)


def features(**columns: Any) -> Features:
    known: dict[str, Any] = {
        "sample_index": np.arange(N) * 2, "split": np.broadcast_to(SPLIT, N), "label": np.arange(N) % 3,
        "member": MEMBER, "logits": None, "loss": np.zeros(N), "attrs": {},
    }  # fmt: skip
    return Features(**known | columns)


def result(name: str, exposed: int = 0, *, scored: Any = True, seed: int = 0) -> AttackResult:
    """Cross-fitted in two splits; so many members are far up."""
    there = np.broadcast_to(scored, N)
    scores = np.random.default_rng(seed).normal(size=N) + 9 * (np.arange(N) < exposed)
    return AttackResult(
        name, np.where(there, scores, np.nan), np.where(there, scores > 0, -1).astype(np.int8),
        np.where(there, np.arange(N) % 2, -1).astype(np.int32), MEMBER,
    )  # fmt: skip


def made(
    path: Path, results: Mapping[str, AttackResult], found: Features | None = None, **report: Any
) -> tuple[RecordsSummary, list[dict[str, str]]]:
    summary = make_records(ReportConfig(**report), path, found or features(), results)
    assert summary is not None
    with open(path, newline="", encoding="utf-8") as file:
        return summary, list(csv.DictReader(file))


def test_every_sample_with_what_each_attack_says(tmp_path: Path) -> None:
    lr, knn = result("lr", 120), result("knn", seed=1)
    summary, rows = made(tmp_path / "r.csv", {"lr": lr, "knn": knn})
    assert [int(row["sample_index"]) for row in rows] == list(range(0, 2 * N, 2))
    assert [row["class"] for row in rows] == [str(i % 3) for i in range(N)]
    assert {row["group"] for row in rows} == {""}
    assert "sample_id" not in rows[0]
    assert [int(row["member"]) for row in rows] == MEMBER.tolist()
    assert [float(row["lr_score"]) for row in rows] == lr.scores.tolist()
    for i in (0, 1, 150, 151):  # members: compared with the non-members of their own split
        others = lr.scores[(MEMBER == 0) & (np.arange(N) % 2 == i % 2)]
        assert float(rows[i]["lr_p"]) == pytest.approx(conformal_p_values(others, [lr.scores[i]])[0])
    assert sorted(int(row["lr_rank"]) for row in rows) == list(range(1, N + 1))
    assert all(row["lr_claimed"] == "1" for row in rows[:120])
    n_false = sum(row["lr_claimed"] == "1" for row in rows[200:])
    n_claimed = sum(row["lr_claimed"] == "1" for row in rows)
    assert summary.claimed["lr"].members == n_claimed - n_false
    assert summary.claimed["lr"].nonmembers == n_false <= 0.1 * n_claimed
    assert {row["knn_claimed"] for row in rows} == {"0"}
    assert (summary.fdr, summary.n_rows, summary.n_samples, summary.fewest) == (0.1, N, N, 40)


def test_groups_and_names_of_samples(tmp_path: Path) -> None:
    group, names = np.where(np.arange(N) < 4, 7, -1), np.array([f"s{i}".encode() for i in range(N)])
    _, rows = made(tmp_path / "r.csv", {}, features(group=group, sample_id=names, label=None))
    assert [row["group"] for row in rows[:5]] == ["7", "7", "7", "7", ""]
    assert [row["sample_id"] for row in rows[:2]] == ["s0", "s1"]
    assert rows[0]["class"] == ""
    assert list(rows[0]) == ["sample_index", "split", "class", "group", "sample_id", "member"]


def test_groups_have_their_names_and_exposure_a_column(tmp_path: Path) -> None:
    group = np.where(np.arange(N) < 4, 7, -1)
    named = np.char.encode(np.where(group == 7, "Familie Ö", ""), "utf-8")
    known, exposure = features(group=group, group_name=named), {"lt_iqr": np.arange(N) / 8}
    make_records(ReportConfig(records=100), tmp_path / "r.csv", known, {"lr": result("lr", 120)}, exposure)
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["Familie Ö" if int(row["sample_index"]) < 8 else "" for row in rows]
    assert [float(row["lt_iqr"]) for row in rows] == [int(row["sample_index"]) / 16 for row in rows]
    assert len(rows) == 100


def test_what_no_attack_scores_has_empty_fields(tmp_path: Path) -> None:
    """As with `holdout`; and an attack without any score has no columns."""
    there = np.arange(N) % 4 < 2
    broken = not_evaluable("rf", MEMBER, "it failed")
    summary, rows = made(tmp_path / "r.csv", {"lr": result("lr", 120, scored=there), "rf": broken})
    assert [row["lr_p"] != "" for row in rows] == there.tolist()
    assert [row["lr_rank"] != "" for row in rows] == there.tolist()
    assert summary.claimed.keys() == {"lr"}
    assert not any(name.startswith("rf") for name in rows[0])
    nothing, rows = made(tmp_path / "r.csv", {"rf": broken})
    assert (nothing.fewest, nothing.claimed, len(rows)) == (None, {}, N)
    assert records_lines(nothing) == []


def test_above_the_limit_the_highest_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = {"lr": result("lr", 120), "knn": result("knn", seed=1)}
    _, everything = made(tmp_path / "all.csv", results)
    with caplog.at_level(logging.INFO):
        summary, rows = made(tmp_path / "r.csv", results, records=30)
    assert f"the 30 samples of the highest scores of {N} (report.records)" in caplog.text
    assert len(rows) == summary.n_rows == 30
    assert summary.n_samples == N
    assert [row for row in everything if row in rows] == rows  # as they stand there, in the same order
    for name in results:
        ranks = {int(row[f"{name}_rank"]) for row in rows}
        assert ranks >= set(range(1, 16))
    assert summary.claimed == made(tmp_path / "all.csv", results)[0].claimed  # of all samples
    assert "has the 30 samples of the highest scores, not all 400" in records_lines(summary)[-1]


def test_attacks_of_few_different_scores_do_not_fill_it(tmp_path: Path) -> None:
    """Of `correctness` most samples have the highest score."""
    coarse = replace(result("correctness"), scores=np.where(np.arange(N) < 300, 1.0, 0.0))
    _, rows = made(tmp_path / "r.csv", {"correctness": coarse, "lr": result("lr")}, records=20)
    assert {int(row["lr_rank"]) for row in rows} == set(range(1, 21))


def test_no_rows_no_file(tmp_path: Path) -> None:
    made(tmp_path / "r.csv", {"lr": result("lr")})
    assert make_records(ReportConfig(records=0), tmp_path / "r.csv", features(), {"lr": result("lr")}) is None
    assert list(tmp_path.iterdir()) == []
    assert make_records(ReportConfig(records=0), tmp_path / "r.csv", features(), {}) is None


def test_what_is_printed(tmp_path: Path) -> None:
    summary, _ = made(tmp_path / "r.csv", {"knn": result("knn", seed=1), "lr": result("lr", 120)}, fdr=0.2)
    found = summary.claimed["lr"]
    assert records_lines(summary) == [
        f"At a false discovery rate of 0.2 lr claims {found.members} members, "
        f"and {found.nonmembers} samples that are none."
    ]
    none, _ = made(tmp_path / "r.csv", {"knn": result("knn", seed=1)})
    assert records_lines(none) == [
        "At a false discovery rate of 0.1 no sample is claimed to be a member: 40 at once would have to be."
    ]


def test_the_reducer_writes_it_and_says_so(
    write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    methods = [{"method": "lr", "params": {"C": [1.0]}}, {"method": "knn", "params": {"n_neighbors": [3]}}]
    config, paths = write_config({"attack.methods": methods}), RunPaths(tmp_path / "out")
    finish(paths, claim(paths, make_manifest(load_config(config))))
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)

    def run(*more: str) -> None:
        run_main(lambda: reduce(parser.parse_args([str(config), "--out", str(paths.root), *more])))

    run()
    first = paths.records.read_bytes()
    assert first.startswith(b"sample_index,split,class,group,member,lr_score,lr_p,lr_claimed,lr_rank,knn_score")
    assert first.count(b"\n") == 1 + 20
    assert "At a false discovery rate of 0.1 no sample is claimed" in " ".join(capsys.readouterr().out.split())
    said = json.loads(paths.summary_json.read_text())["records"]
    assert said["claimed"] == {"lr": {"members": 0, "nonmembers": 0}, "knn": {"members": 0, "nonmembers": 0}}
    run()
    assert paths.records.read_bytes() == first
    run("--set", "report.records=0")
    assert not paths.records.exists()
    assert json.loads(paths.summary_json.read_text())["records"] is None


def test_keys_are_in_shipped_configs_and_schemas() -> None:
    assert "records" in json_schema()["properties"]
    report = json.loads((REPO / "configs" / "schema.json").read_text())["$defs"]["ReportConfig"]["properties"]
    assert {"fdr", "records"} <= set(report)
    for name in ("demo", "outputs", "vgg16_cifar100"):
        assert {"fdr", "records"} <= set(yaml.safe_load((REPO / "configs" / f"{name}.yaml").read_text())["report"])


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [("fdr", 0, "greater than 0"), ("fdr", 1, "less than 1"), ("records", -1, "greater than or equal to 0")],
)
def test_keys_out_of_range_are_refused(write_config: Callable[..., Path], key: str, value: float, rule: str) -> None:
    with pytest.raises(InputError) as refused:
        load_config(write_config({f"report.{key}": value}))
    assert f"report.{key}: must be {rule}, got {value}" in str(refused.value)
