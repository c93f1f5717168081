"""Slices of a run: from classes, columns of imports and index files to the summary, its CSV and the printed lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import finish

from mia_batch.attacks.base import AttackResult, not_evaluable
from mia_batch.data.slices import slice_columns
from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.metrics.registry import METRICS, evaluate
from mia_batch.process.exit_codes import run_main
from mia_batch.report.summary import SlicesSummary, json_schema, plain
from mia_batch.report.text import slices_lines
from mia_batch.rundir.claim import claim
from mia_batch.rundir.features import SPLIT, Features
from mia_batch.rundir.identity import attack_identity, differences, features_digest, verdict_identity
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import reduce_status
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import ReportConfig
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.plan import make_manifest, make_plan
from mia_batch.stages.reduce import reduce
from mia_batch.stages.slices import look_at_slices

N = 400  # half are members
MEMBER = np.repeat([1, 0], N // 2).astype(np.int8)
LABEL = np.arange(N) % 4


def features(**columns: Any) -> Features:
    known: dict[str, Any] = {
        "sample_index": np.arange(N) % 200, "split": np.repeat(["train", "test"], 200), "label": LABEL,
        "member": MEMBER, "logits": None, "loss": np.zeros(N), "attrs": {},
    }  # fmt: skip
    return Features(**known | columns)


def result(name: str, *, splits: int = 1, scored: Any = True) -> AttackResult:
    """Class 2 leaks."""
    there = np.broadcast_to(scored, N)
    scores = np.random.default_rng(0).normal(3.0 * MEMBER * (LABEL == 2))
    return AttackResult(
        name, np.where(there, scores, np.nan), np.where(there, scores > 1.5, -1).astype(np.int8),
        np.where(there, np.arange(N) % splits, -1).astype(np.int32), MEMBER,
    )  # fmt: skip


def found_of(slices: dict[str, Any], found: Features | None = None, **results: AttackResult) -> SlicesSummary:
    report = ReportConfig(slices=slices, metrics=("recall", "auc"))
    summary = look_at_slices(report, found or features(), results or {"lr": result("lr")})
    assert summary is not None
    return summary


def test_each_class_and_the_worst() -> None:
    found = found_of({"class": True})
    assert [each.name for each in found.slices] == ["class=0", "class=1", "class=2", "class=3"]
    assert {(each.n_members, each.n_nonmembers, each.reason) for each in found.slices} == {(50, 50, None)}
    lr, rows = result("lr"), LABEL == 1
    expected = evaluate(MEMBER[rows], lr.predicted[rows], lr.scores[rows])
    numbers = found.slices[1].metrics["lr"]
    assert list(numbers) == list(METRICS)
    assert {name: each.model_dump() for name, each in numbers.items()} == {
        name: plain(asdict(each)) for name, each in expected.items()
    }
    assert set(found.worst["lr"]) == set(METRICS)
    for name in ("balanced_accuracy", "recall", "auc", "tpr_at_fpr_0.1"):
        assert found.worst["lr"][name].slice == "class=2"
    own = found.slices[2].metrics["lr"]["auc"]
    worst = found.worst["lr"]["auc"]
    assert own.low is not None
    assert worst.value == own.value
    assert worst.low < own.low  # allows for four


def test_how_many_attacks_there_are_is_allowed_for_too() -> None:
    one = found_of({"class": True}).worst["lr"]["auc"]
    two = found_of({"class": True}, lr=result("lr"), knn=result("knn"), rf=not_evaluable("rf", MEMBER, "failed"))
    assert (two.n_slices, two.n_attacks, list(two.worst)) == (4, 2, ["lr", "knn"])
    assert two.worst["lr"]["auc"].low < one.low


def test_cross_fitted_scores_count_half() -> None:
    one, crossed = (found_of({"class": True}, lr=result("lr", splits=n)).slices[1].metrics["lr"]["auc"] for n in (1, 2))
    assert one.value == crossed.value
    widths = [(each.high or 0) - (each.low or 0) for each in (one, crossed)]
    assert widths[1] > 1.2 * widths[0]


def test_too_few_samples_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("0\n1\n2\n")
    found = found_of({"class": True, "few": {"train": tmp_path / "few.txt"}})
    few = found.slices[-1]
    assert (few.name, few.n_members, few.n_nonmembers) == ("few", 3, 0)
    assert few.reason == "3 members and 0 non-members, fewer than 10 of one"
    assert {each.reason for each in few.metrics["lr"].values()} == {few.reason}
    assert {each.value for each in few.metrics["lr"].values()} == {None}
    assert found.n_slices == 4
    assert slices_lines(found)[-1] == "1 of 5 slices have too few samples."
    alone = found_of({"few": {"train": tmp_path / "few.txt"}})
    assert (alone.n_slices, alone.worst) == (0, {"lr": {}})
    assert slices_lines(alone) == ["1 of 1 slices have too few samples."]


def test_files_name_samples_of_several_splits(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.arange(30))
    (tmp_path / "out.txt").write_text("\n".join(map(str, range(100, 125))) + "\n500\n")  # 500 is not audited
    found = found_of({"young": {"train": tmp_path / "in.npy", "test": tmp_path / "out.txt"}})
    assert [(each.name, each.n_members, each.n_nonmembers) for each in found.slices] == [("young", 30, 25)]
    holdout = found_of(
        {"young": {"train": tmp_path / "in.npy", "test": tmp_path / "out.txt"}},
        lr=result("lr", scored=np.arange(N) % 2 == 0),
    )
    assert [(each.n_members, each.n_nonmembers) for each in holdout.slices] == [(15, 13)]


def test_columns_of_imports_are_slices(caplog: pytest.LogCaptureFixture) -> None:
    numbers = (np.arange(N) % 2).astype(np.int32)
    imported = features(slices={"sex": (numbers, ("f", "m"))}, split=np.broadcast_to(SPLIT, N), label=None)
    found = found_of({"class": True}, imported)
    assert [each.name for each in found.slices] == ["sex=f", "sex=m"]
    assert "there are no slices by class, because these samples have no labels" in caplog.text


def found_by(files: dict[str, Path], found: Features | None = None) -> SlicesSummary | None:
    report = ReportConfig(slices_by={"ward": {split: str(file) for split, file in files.items()}})
    return look_at_slices(report, found or features(), {"lr": result("lr")})


def write_wards(folder: Path) -> dict[str, Path]:
    """A value for each of 210 samples of train, and of 200 of test."""
    np.save(folder / "train.npy", np.where(np.arange(210) < 80, "Süd 1", "n"))
    rows = "".join(f"{i},{'Süd 1' if i < 30 else 'n'}\n" for i in range(200))
    (folder / "test.csv").write_text(f"id,ward\n{rows}", encoding="utf-8")
    return {"train": folder / "train.npy", "test": folder / "test.csv"}


def test_a_name_for_each_sample_is_a_slice_for_each_value(tmp_path: Path) -> None:
    found = found_by(write_wards(tmp_path))
    assert found is not None
    counts = [(each.name, each.n_members, each.n_nonmembers) for each in found.slices]
    assert counts == [("ward=Süd 1", 80, 30), ("ward=n", 120, 170)]
    member, scores = MEMBER, result("lr").scores
    rows = np.r_[np.arange(80), 200 + np.arange(30)]
    naive = evaluate(member[rows], (scores > 1.5)[rows], scores[rows])
    assert found.slices[0].metrics["lr"].keys() == naive.keys() == METRICS.keys()
    for name, each in naive.items():
        assert found.slices[0].metrics["lr"][name].value == pytest.approx(each.value, nan_ok=True), name


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"test": None}, "report.slices_by.ward: must have a file for each split, got none for test"),
        ({"valid": "x.txt"}, "report.slices_by.ward.valid: must be a split that samples are of: test, train"),
        ({"test": "x.txt"}, "must have a value for each sample of the split, at least 200, got 2"),
        ({"test": "other.csv"}, "must have a column ward, got id, name"),
        ({"test": "empty.csv"}, "ward: line 3: must be there, got nothing"),
        ({"test": "gone.txt"}, "must be a readable file of names, got"),
    ],
)
def test_a_bad_file_of_names_is_refused(change: dict[str, str | None], rule: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\nb\n")
    (tmp_path / "other.csv").write_text("id,name\n1,a\n")
    (tmp_path / "empty.csv").write_text("id,ward\n1,a\n2,\n")
    files: dict[str, Path] = write_wards(tmp_path)
    files |= {split: tmp_path / name for split, name in change.items() if name}
    files = {split: file for split, file in files.items() if change.get(split, "") is not None}
    with pytest.raises(InputError, match=rule):
        found_by(files)


def test_a_column_of_too_many_values_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.arange(1001))
    split, index = np.array(["train"] * 1001), np.arange(1001)
    with pytest.raises(InputError, match=r"report\.slices_by\.ward: must have at most 1000 different values, got 1001"):
        slice_columns({"ward": {"train": tmp_path / "many.npy"}}, split, index)


def test_where_the_sizes_of_splits_are_known_more_names_are_refused_too(tmp_path: Path) -> None:
    files, known = write_wards(tmp_path), features()
    slice_columns({"ward": files}, known.split, known.sample_index, {"train": 210, "test": 200})
    with pytest.raises(InputError, match="must have a value for each sample of the split, 205, got 210"):
        slice_columns({"ward": files}, known.split, known.sample_index, {"train": 205, "test": 200})


def test_none_are_asked_for() -> None:
    assert look_at_slices(ReportConfig(), features(), {"lr": result("lr")}) is None
    report = ReportConfig(slices={"class": True})
    assert look_at_slices(report, features(), {"rf": not_evaluable("rf", MEMBER, "failed")}) is None


@pytest.mark.parametrize(
    ("split", "text", "rule"),
    [
        ("valid", "1", "report.slices.a.valid: must be a split that samples are of: test, train"),
        ("train", "999", "report.slices.a.train: must name a sample of split 'train', got none in"),
        ("train", "x", "line 1: must be one integer, got 'x'"),
    ],
)
def test_files_that_name_nothing_are_refused(tmp_path: Path, split: str, text: str, rule: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError) as refused:
        found_of({"a": {split: tmp_path / "a.txt"}})
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("slices", "rule"),
    [
        ([], "report.slices: must be a mapping: {class: true, NAME: {SPLIT: FILE}}"),
        ({"class": "yes"}, "report.slices.class: must be true or false"),
        ({"young": "f.npy"}, "report.slices.young: must be a file of indices for each split: {train: FILE}"),
        ({"a b": {"train": "f.npy"}}, "report.slices: must have names of letters, digits and _, not 'a b'"),
        ({"young": {"train": "f.npy"}}, "report.slices.young.train: must be a file that can be read, got"),
    ],
)
def test_keys_that_say_nothing_are_refused(write_config: Callable[..., Path], slices: Any, rule: str) -> None:
    with pytest.raises(InputError) as refused:
        load_config(write_config({"report.slices": slices}))
    assert rule in str(refused.value)


def test_only_the_verdict_depends_on_them(write_config: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("1\n2\n")
    plain = make_manifest(load_config(write_config({})))
    none = make_manifest(load_config(write_config({"report.slices": {"class": False}})))
    assert differences(verdict_identity(plain), verdict_identity(none)) == []
    some = make_manifest(load_config(write_config({"report.slices": {"young": {"train": "s.txt"}}})))
    assert features_digest(some) == features_digest(plain)
    method = plain.methods[0]
    assert attack_identity(some, method) == attack_identity(plain, method)
    (tmp_path / "s.txt").write_text("1\n3\n")
    other = make_manifest(load_config(write_config({"report.slices": {"young": {"train": "s.txt"}}})))
    assert differences(verdict_identity(some), verdict_identity(other)) == [
        "the content of report.slices.young.train has changed"
    ]


def test_the_reducer_writes_and_prints_them(
    write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    methods = [{"method": "lr", "params": {"C": [1.0]}}, {"method": "knn", "params": {"n_neighbors": [3]}}]
    config = write_config({"attack.methods": methods, "report.slices": {"class": True}})
    paths = RunPaths(tmp_path / "out")
    finish(paths, claim(paths, make_manifest(load_config(config))))
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)
    run_main(lambda: reduce(parser.parse_args([str(config), "--out", str(paths.root)])))
    said = json.loads(paths.summary_json.read_text())["slices"]
    assert [each["name"] for each in said["slices"]] == ["class=0"]
    assert "1 of 1 slices have too few samples." in capsys.readouterr().out
    lines = paths.summary_csv.read_text().splitlines()
    assert lines[0] == "method,metric,value,low,high,reason,slice"
    assert [line for line in lines if line.endswith(",class=0")] == lines[-2 * len(METRICS) :]  # of 2 attacks
    assert lines[1].endswith(",")
    assert "slices" in json_schema()["properties"]


def test_the_reducer_alone_notes_which_files_of_slices_it_has_read(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "s.txt").write_text("1\n2\n")
    methods = [{"method": "lr", "params": {"C": [1.0]}}]
    config = write_config({"attack.methods": methods, "report.slices": {"young": {"train": "s.txt"}}})
    paths = RunPaths(tmp_path / "out")
    finish(paths, claim(paths, make_manifest(load_config(config))))
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)
    for text in ("1\n2\n", "1\n3\n4\n"):
        (tmp_path / "s.txt").write_text(text)
        run_main(lambda: reduce(parser.parse_args([str(config), "--out", str(paths.root)])))
        digests = json.loads(paths.summary_json.read_text())["provenance"]["digests"]
        assert digests["report.slices.young.train"] == sha256(tmp_path / "s.txt")
        assert reduce_status(paths, make_manifest(load_config(config))).state == "done"


def test_what_is_printed() -> None:
    found = found_of({"class": True}, lr=result("lr"), knn=result("knn"))
    worst = found.worst["lr"]["balanced_accuracy"]
    assert slices_lines(found) == [
        f"Worst slice: class=2 by lr, balanced accuracy {worst.value:.4f} ({worst.low:.4f} to {worst.high:.4f}, "
        "which allows for 4 slices and 2 attacks)."
    ]


def test_a_file_that_names_no_sample_is_refused_before_anything_is_queued(
    write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "s.txt").write_text("1000000\n")
    config = load_config(write_config({"report.slices": {"young": {"train": "s.txt"}}}))
    with pytest.raises(InputError) as refused:
        make_plan(config, whole_checkpoint=False)
    assert "report.slices.young.train: must name a sample of split 'train', got none in" in str(refused.value)
