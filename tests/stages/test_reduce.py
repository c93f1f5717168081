"""jobs/reduce.py on real files: what it writes and prints, its exit codes, and what it refuses."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hdf5_files import change_and_seal, make_of_before
from running import run_job

from mia_batch import json_text
from mia_batch.attacks.base import BLIND, INCLUSION_DOUBT, AttackResult
from mia_batch.cli import main
from mia_batch.files import sha256
from mia_batch.metrics.epsilon import out_of_fold_decisions, out_of_fold_ranks
from mia_batch.metrics.registry import EPSILONS
from mia_batch.metrics.registry import METRICS as METRICS_OF_ALL
from mia_batch.process.exit_codes import run_main
from mia_batch.report.media import xml
from mia_batch.report.summary import read_summary
from mia_batch.rundir.claim import claim, in_force_with
from mia_batch.rundir.features import FeatureStore, block_dtype
from mia_batch.rundir.identity import attack_digest
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack, write_attack
from mia_batch.rundir.state import reduce_status
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.plan import make_manifest
from mia_batch.stages.reduce import ranked, reduce, scored
from mia_batch.verdict.gate import decide
from mia_batch.verdict.rules import Gate

N = 160  # rows of the `records` fixture: 90 members, 70 non-members
OF_COUNTS = [name for name, figure in EPSILONS.items() if figure.of_counts]
ALMOST_ONE = 1 - 1e-9  # a level that no attack here is shown to exceed
METHODS = [{"method": "lr", "params": {"C": [1.0]}}, {"method": "knn", "params": {"n_neighbors": [3]}}]


def reduce_main(arguments: list[str]) -> int:
    """jobs/reduce.py, in this process."""
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)
    args = parser.parse_args(arguments)
    return run_main(lambda: reduce(args))


@dataclass(frozen=True)
class Run:
    config_path: Path
    paths: RunPaths

    @property
    def arguments(self) -> list[str]:
        return [str(self.config_path), "--out", str(self.paths.root)]

    def attack(self, name: str, **fields: Any) -> None:
        """Replace fields of a result."""
        write_attack(self.paths.attack(name), replace(read_attack(self.paths.attack(name)), **fields))


def write_features(
    config: Config, paths: RunPaths, *, done: int = N, twins: int = 0
) -> tuple[np.ndarray, Manifest]:
    """`twins` non-members have the input of a member."""
    manifest = claim(paths, make_manifest(config))
    member = np.repeat([1, 0], [90, 70]).astype(np.int8)
    columns = {
        "sample_index": np.arange(N), "split": np.array(["train"] * N), "label": np.zeros(N), "member": member,
        "group": np.full(N, -1),
    }  # fmt: skip
    rows = np.zeros(done, dtype=block_dtype(10))
    rows["row"] = rows["content"][:, 0] = np.arange(done)
    rows["content"][90:90 + twins, 0] = np.arange(20, 20 + twins)
    rows["logits"] = np.random.default_rng(4).normal(size=(done, 10)) + 4 * (np.arange(10) == 0)
    with FeatureStore.create(paths.features, columns, 10, manifest.model_dump(include={"config", "digests"})) as store:
        store.write(rows)
    return member, manifest


def attack_result(name: str, member: np.ndarray, run: Manifest, signal: float) -> AttackResult:
    rng = np.random.default_rng(3)
    evaluated = np.arange(N) % 2 == 0
    score = 1 / (1 + np.exp(-rng.normal(signal * (member - 0.5))))
    return AttackResult(
        method=name,
        scores=np.where(evaluated, score, np.nan),
        predicted=np.where(evaluated, score > 0.5, -1).astype(np.int8),
        scored_by=np.where(evaluated, 0, -1).astype(np.int32),
        member=member,
        best_params={"C": 1.0},
        best_score=0.6,
        cv_results={"params": ["{}"], "mean_test_score": [0.6]},
        provenance={"identity": attack_digest(run, name), "n_nonconverged": 0, "seconds": 0.1},
    )


@pytest.fixture
def make_run(write_config: Callable[..., Path], tmp_path: Path) -> Callable[..., Run]:
    """A run whose attacks are done, with so much signal."""

    def make(signal: float, changes: dict[str, Any] | None = None, *, twins: int = 0) -> Run:
        config_path = write_config({"attack.methods": METHODS} | (changes or {}))
        config, paths = load_config(config_path), RunPaths(tmp_path / "out")
        member, run = write_features(config, paths, twins=twins)
        for method in config.attack.methods:
            write_attack(paths.attack(method.method), attack_result(method.method, member, run, signal))
        write_attack(paths.attack(BLIND), attack_result(BLIND, member, run, 0.0))
        return Run(config_path, paths)

    return make


def test_the_page_is_written_and_named_and_written_again(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture
) -> None:
    run = make_run(5.0)
    reduce_main([*run.arguments, "--set", "dossier.auditor=Nobody <b>"])
    assert capsys.readouterr().out.endswith(f"\nReport: {run.paths.page}\n")
    page = run.paths.page.read_text(encoding="utf-8")
    assert "Nobody &lt;b&gt;" in page
    assert html.escape(read_summary(run.paths.summary_json).verdict.sentence) in page
    run.paths.page.unlink()
    assert reduce_main(run.arguments) == 3
    assert "dossier.auditor in the config" in run.paths.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("wanted", [False, True])
def test_images_are_on_the_page_only_if_asked_for(make_run: Callable[..., Run], wanted: bool) -> None:
    run = make_run(5.0, {"report.thumbnails": wanted})
    reduce_main(run.arguments)
    exposed = read_summary(run.paths.summary_json).records.exposed  # type: ignore[union-attr]
    page = run.paths.page.read_text(encoding="utf-8")
    assert len(exposed) == 20
    assert page.count('src="data:image/png;base64,') == (20 if wanted else 0)
    for each in exposed:
        assert each.sample_index < 90  # members alone


def test_images_that_are_gone_do_not_cost_the_verdict(make_run: Callable[..., Run], records: Path) -> None:
    run = make_run(5.0, {"report.thumbnails": True, "report.metrics": ["auc"]})
    (records / "train.bin").unlink()
    assert reduce_main(run.arguments) == 3
    page = run.paths.page.read_text(encoding="utf-8")
    assert "Images are not shown: " in page
    assert "data:image" not in page


def test_a_leak_is_exit_code_3_with_all_outputs(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(5.0, {"report.metrics": ["precision", "accuracy", "recall"]})
    assert reduce_main(run.arguments) == 3
    printed = capsys.readouterr().out
    summary = json.loads(run.paths.summary_json.read_text())
    found = {name: numbers["value"] for name, numbers in summary["methods"]["lr"]["metrics"].items()}
    line = "Method: lr, {{'recall': {recall:.4f},'precision': {precision:.4f},'accuracy': {accuracy:.4f}}}".format(
        **found
    )
    lines = printed.splitlines()
    assert lines[0].startswith("The model itself is right on ")
    assert lines[lines.index(line) + 1].startswith("Method: knn, {'recall'")
    assert "LEAK FOUND: lr has balanced accuracy" in printed
    assert "one attack finds" in " ".join(printed.split())
    assert summary["audited"]["members"]["n"] == 90
    assert summary["verdict"]["methods"]["lr"]["rules"][0]["outcome"] == "leak"
    assert summary["verdict"]["leak"] is True
    assert summary["samples"] == {
        "n_fit": 80, "n_scored": 80, "n_members": 45, "n_nonmembers": 35, "base_rate": 0.5625,
        "base_rate_reason": None, "n_twins": 0, "n_groups": 160,
    }  # fmt: skip
    assert "56.2% of the scored samples are members" in " ".join(printed.split())
    assert set(summary["provenance"]["digests"]) >= {"model.checkpoint"}
    assert summary["provenance"]["config"]["attack"]["seed"] == summary["provenance"]["seeds"]["attack"] == 1
    assert summary["provenance"]["versions"]["python"]
    with open(run.paths.summary_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"lr", "knn"}
    assert [row["metric"] for row in rows] == 2 * [*METRICS_OF_ALL, *OF_COUNTS]
    assert sorted(path.name for path in run.paths.root.iterdir()) == [
        ".run.lock", "attacks", "features.h5", "records.csv", "report.html", "run.json", "summary.csv", "summary.json",
    ]  # fmt: skip
    beside = (run.paths.summary_csv, run.paths.records, run.paths.page)
    assert summary["files"] == {path.name: sha256(path) for path in beside}


def test_no_signal_is_exit_code_0(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(0.0, {"gate": {"metrics": ["auc"]}})
    assert reduce_main(run.arguments) == 0
    assert "No leak found" in capsys.readouterr().out
    assert json.loads(run.paths.summary_json.read_text())["verdict"]["leak"] is False


def test_twice_gives_the_same_bytes(make_run: Callable[..., Run]) -> None:
    run = make_run(1.0)
    code = reduce_main(run.arguments)
    first = run.paths.summary_json.read_bytes(), run.paths.summary_csv.read_bytes()
    assert reduce_main(run.arguments) == code
    assert (run.paths.summary_json.read_bytes(), run.paths.summary_csv.read_bytes()) == first


def test_an_undefined_metric_is_logged_with_its_method(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture
) -> None:
    run = make_run(5.0, {"gate": {"metrics": ["auc"], "threshold": ALMOST_ONE}})
    predicted = np.where(np.arange(N) % 2 == 0, 0, -1).astype(np.int8)
    for name in ("lr", "knn"):
        run.attack(name, predicted=predicted)
    assert reduce_main(run.arguments) == 0
    printed = capsys.readouterr()
    assert "'precision': nan" in printed.out
    assert "lr: precision is undefined: no sample is predicted a member" in printed.err
    assert "knn: precision is undefined" in printed.err


def refused(run: Run, capsys: pytest.CaptureFixture) -> list[str]:
    """Run into bad input; returns its lines. Nothing may have been written."""
    assert reduce_main(run.arguments) == 2
    assert not run.paths.summary_json.exists()
    assert not run.paths.summary_csv.exists()
    return capsys.readouterr().err.splitlines()


def test_missing_attacks_are_all_named_with_their_command(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture
) -> None:
    run = make_run(1.0)
    for name in ("lr", "knn"):
        run.paths.attack(name).unlink()
    lines = refused(run, capsys)
    assert len(lines) == 2
    for name, line in zip(("lr", "knn"), lines, strict=True):
        command = f"python jobs/attack.py {run.config_path} --out {run.paths.root} --method {name}"
        assert line == f"mia-batch: {run.paths.attack(name)}: must be there for method {name}; make it with: {command}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "rf"}, "method: must be knn, got rf"),
        ({"provenance": {"run": "of another checkpoint"}}, "got a result of another run"),
        ({"provenance": {"identity": "of another checkpoint"}}, "got a result of another run"),
        ({"provenance": {}}, "got a result of another run"),
        ({"member": np.zeros(N, dtype=np.int8)}, "got a result of another run"),
    ],
)
def test_results_of_another_run(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, fields: dict[str, Any], message: str
) -> None:
    run = make_run(1.0)
    run.attack("knn", **fields)
    (line,) = refused(run, capsys)
    assert line.startswith(f"mia-batch: {run.paths.attack('knn')}: ")
    assert message in line


def test_attacks_that_scored_other_rows(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(1.0)
    evaluated = np.arange(N) % 2 == 1
    run.attack(
        "knn",
        scored_by=np.where(evaluated, 0, -1).astype(np.int32),
        scores=np.where(evaluated, 0.5, np.nan),
        predicted=np.where(evaluated, 1, -1).astype(np.int8),
    )
    (line,) = refused(run, capsys)
    assert "evaluated: must be the rows that lr scores" in line


def test_another_extraction(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, write_config: Callable
) -> None:
    run = make_run(1.0)
    other = write_config({"attack.methods": METHODS, "extract.batch_size": 8}, name="other.yaml")
    (line,) = refused(replace(run, config_path=other), capsys)
    assert "--out: holds another run: extract.batch_size was 16 and is now 8" in line


def test_results_of_other_settings(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, write_config: Callable
) -> None:
    run = make_run(1.0)
    before = run.paths.manifest.read_bytes()
    for changes, names in (
        ({"attack.methods": METHODS, "attack.seed": 2}, ["lr", "knn"]),
        ({"attack.methods": [METHODS[0], {"method": "knn", "params": {"n_neighbors": [5]}}]}, ["knn"]),
    ):
        lines = refused(replace(run, config_path=write_config(changes, name="other.yaml")), capsys)
        rule = f"must come from {run.paths.features} and this config, got a result of another run or of other settings"
        assert [line.split(": ", 1)[1] for line in lines] == [
            f"{run.paths.attack(name)}: {rule}; run attack again" for name in names
        ]
    assert run.paths.manifest.read_bytes() == before


def test_a_verdict_is_by_the_gate_of_now(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, write_config: Callable
) -> None:
    run = make_run(5.0)
    assert reduce_main(run.arguments) == 3
    high = {"attack.methods": METHODS, "gate": {"metrics": ["auc"], "threshold": ALMOST_ONE}, "report.metrics": ["auc"]}
    capsys.readouterr()
    assert reduce_main(replace(run, config_path=write_config(high, name="other.yaml")).arguments) == 0
    assert "\nMethod: lr, {'auc': " in capsys.readouterr().out
    assert json.loads(run.paths.manifest.read_text())["config"]["gate"]["threshold"] == ALMOST_ONE
    alone = {"attack.methods": METHODS[1:]}
    assert reduce_main(replace(run, config_path=write_config(alone, name="other.yaml")).arguments) == 3
    assert list(json.loads(run.paths.summary_json.read_text())["methods"]) == ["knn"]
    assert run.paths.attack("lr").exists()


def test_features_of_another_run_unfinished_or_missing(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, tmp_path: Path, write_config: Callable
) -> None:
    run = make_run(1.0)
    run.paths.features.unlink()
    (line,) = refused(run, capsys)
    assert line == f"mia-batch: {run.paths.features}: does not exist"
    other = RunPaths(tmp_path / "elsewhere")
    write_features(load_config(run.config_path), other, done=5)
    other.features.rename(run.paths.features)
    (line,) = refused(run, capsys)
    assert "must all be done, got 5 of 160" in line
    run.paths.features.unlink()
    third = RunPaths(tmp_path / "third")
    write_features(load_config(write_config({"extract.batch_size": 8}, name="other.yaml")), third)
    third.features.rename(run.paths.features)
    (line,) = refused(run, capsys)
    assert "--out: holds another run: extract.batch_size was 8 and is now 16" in line


def test_a_damaged_result(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(1.0)
    run.paths.attack("knn").write_bytes(b"text, not HDF5")
    (line,) = refused(run, capsys)
    assert line.startswith(f"mia-batch: {run.paths.attack('knn')}: must be a readable HDF5 file")


def test_as_the_scheduler_runs_it(make_run: Callable[..., Run]) -> None:
    run = make_run(5.0)
    done = run_job("reduce", *run.arguments)
    assert done.returncode == 3, done.stderr
    assert "\nMethod: lr, {'recall': " in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if not line.startswith(("Method: ", "Report: "))) <= 80
    assert done.stderr == ""


def make_not_evaluable(run: Run, name: str, reason: str = "no candidate\ncould be fitted") -> None:
    none = {
        "scores": np.full(N, np.nan), "predicted": np.full(N, -1, dtype=np.int8), "scored_by": np.full(N, -1, np.int32),
    }
    run.attack(name, **none, best_score=np.nan, best_params={}, cv_results={}, reason=reason)


@pytest.mark.parametrize(("signal", "code", "outcome"), [(5.0, 3, "leak"), (0.0, 4, "inconclusive")])
@pytest.mark.parametrize("name", ["lr", "knn"])
def test_an_attack_that_is_not_evaluable(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, signal: float, code: int, outcome: str, name: str
) -> None:
    """Another's leak is a leak all the same; without one the audit is no clean bill."""
    run = make_run(signal)
    make_not_evaluable(run, name)
    assert reduce_main(run.arguments) == code
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Method: {name}, not evaluable: no candidate could be fitted" in printed
    assert re.search(r"nan\S .*\S not evaluable: no candidate could be fitted", printed)
    assert f"{name} (no candidate" in printed or f"{name} is not evaluable (no candidate" in printed
    summary = read_summary(run.paths.summary_json)
    assert (summary.verdict.outcome, summary.methods[name].reason) == (outcome, "no candidate could be fitted")
    assert summary.samples.n_scored == 80


def test_no_attack_is_evaluable(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(5.0)
    for name in ("lr", "knn"):
        make_not_evaluable(run, name)
    assert reduce_main(run.arguments) == 4
    printed = " ".join(capsys.readouterr().out.split())
    assert "INCONCLUSIVE: no attack is shown to leak, but lr is not evaluable" in printed


def test_mia_batch_run_passes_the_code_on(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(0.0)
    make_not_evaluable(run, "knn")
    plan = SimpleNamespace(manifest=read_manifest(run.paths), selection=None)  # the fixture's checkpoint is no real one
    monkeypatch.setattr("mia_batch.commands.run.make_plan", lambda _config: plan)
    monkeypatch.setattr("mia_batch.commands.run.run_stage", lambda *_: 0)  # it would try the attack again
    assert main(["run", *run.arguments]) == 4


def write_logits(run: Run, logits: np.ndarray) -> None:
    change_and_seal(run.paths.features, lambda file: file["logits"].__setitem__(slice(None), logits))


def test_no_signal_in_few_samples_is_inconclusive(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(0.0)
    assert reduce_main(run.arguments) == 4
    printed = " ".join(capsys.readouterr().out.split())
    assert "INCONCLUSIVE: no attack is shown to leak, but lr may have balanced accuracy up to" in printed
    assert "Passing proves neither anonymity nor differential privacy" in printed
    verdict = json.loads(run.paths.summary_json.read_text())["verdict"]
    assert (verdict["leak"], verdict["outcome"], verdict["rule"]) == (None, "inconclusive", None)


@pytest.mark.parametrize("gate", [{}, "tutorial", {"rule": "any_above"}])
def test_a_model_that_is_not_evaluable_has_no_verdict(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, gate: Any
) -> None:
    run = make_run(5.0, {"gate": gate})
    write_logits(run, np.random.default_rng(1).normal(size=(N, 10)))
    file = run.paths.root.parent / "verdict.xml"
    assert reduce_main([*run.arguments, "--junit", str(file)]) == 4
    assert ElementTree.parse(file).getroot().get("failures") == "0"
    printed = " ".join(capsys.readouterr().out.split())
    assert "NOT EVALUABLE: the model is right on" in printed
    assert printed.index("NOT EVALUABLE") < printed.index("Method: lr")
    summary = read_summary(run.paths.summary_json)
    assert summary.verdict.leak is None
    assert summary.audited is not None
    assert len(summary.audited.reasons) == 1


def test_a_weak_model_is_audited_on_purpose(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(5.0, {"gate": {"weak_model": True}})
    write_logits(run, np.random.default_rng(1).normal(size=(N, 10)))
    assert reduce_main(run.arguments) == 3
    assert "on purpose (gate.weak_model)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("signal", "gate", "failures", "errors"),
    [(5.0, {}, 3, 0), (0.0, {}, 0, 3), (0.0, {"metrics": ["auc"]}, 0, 0), (5.0, {"metrics": ["auc"]}, 3, 0)],
)
def test_the_verdict_as_junit(
    make_run: Callable[..., Run], tmp_path: Path, signal: float, gate: Any, failures: int, errors: int
) -> None:
    run = make_run(signal, {"gate": gate})
    file = tmp_path / "verdict.xml"
    reduce_main([*run.arguments, "--junit", str(file)])
    suite = ElementTree.parse(file).getroot()
    assert [case.get("name") for case in suite] == ["verdict", "lr", "knn"]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", str(failures), str(errors))
    assert len(suite.findall("testcase/failure")) == failures


def test_junit_holds_what_xml_cannot(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(5.0)
    make_not_evaluable(run, "knn", "a \x1b[31m<red> & \"quoted\" \uffff word")
    file = tmp_path / "verdict.xml"
    assert reduce_main([*run.arguments, "--junit", str(file)]) == 3
    suite = ElementTree.parse(file).getroot()
    error = suite.find("testcase[@name='knn']/error")
    assert error is not None
    assert error.text == 'not evaluable: a [31m<red> & "quoted"  word'
    assert (suite.get("failures"), suite.get("errors")) == ("2", "1")
    assert xml("\ud800\t\n\x07\U0001f512") == "\t\n\U0001f512"


def test_the_issues_example_is_not_a_clean_audit(make_run: Callable[..., Run]) -> None:
    """100 members against 800 others: the attack calls nobody a member, though its scores tell them apart."""
    run = make_run(1.7, {"gate": "tutorial"})
    for name in ("lr", "knn"):
        run.attack(name, predicted=np.where(np.arange(N) % 2 == 0, 0, -1).astype(np.int8))
    assert reduce_main(run.arguments) == 4


def test_inputs_on_both_sides_are_counted_and_marked_in_the_records(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """3 of 70 non-members: under 5 %."""
    run = make_run(5.0, twins=3)
    assert reduce_main(run.arguments) == 3
    samples = read_summary(run.paths.summary_json).samples
    assert (samples.n_twins, samples.n_groups) == (6, 154)
    said = "Caution: 3 members and 3 non-members have an input that is on both sides, and are left out."
    assert said in " ".join(capsys.readouterr().out.split())
    with open(run.paths.records, newline="", encoding="utf-8") as file:
        marked = [int(row["sample_index"]) for row in csv.DictReader(file) if row["twin"] == "1"]
    assert marked == [20, 21, 22, 90, 91, 92]


@pytest.mark.parametrize(("limit", "code"), [(0.05, 4), (0.06, 3)])
def test_more_of_them_than_allowed_are_no_audit(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str], limit: float, code: int
) -> None:
    run = make_run(5.0, {"data.max_duplicates": limit}, twins=4)
    assert reduce_main(run.arguments) == code
    printed = " ".join(capsys.readouterr().out.split())
    reason = "NOT EVALUABLE: 4 of 70 non-members (5.7%) have their input on the other side too, more than"
    assert (reason in printed) == (code == 4)


def test_another_limit_is_judged_without_extracting(make_run: Callable[..., Run]) -> None:
    run = make_run(5.0, twins=4)
    assert reduce_main(run.arguments) == 4
    config = yaml.safe_load(run.config_path.read_text())
    config["data"]["max_duplicates"] = 0.1
    run.config_path.write_text(yaml.safe_dump(config))
    assert reduce_main(run.arguments) == 3


def test_features_of_the_version_before_are_judged_with_a_caution(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(5.0)
    make_of_before(run.paths.features)
    assert reduce_main(run.arguments) == 3
    assert "inputs that are on both sides were not looked for" in " ".join(capsys.readouterr().out.split())
    samples = read_summary(run.paths.summary_json).samples
    assert samples.n_twins is samples.n_groups is None


CLEAN = {"gate": {"metrics": ["auc"], "threshold": ALMOST_ONE}}  # no leak by the gate, whatever the attacks find
COINS = {"data.randomised": True}


def claims(epsilon: float) -> dict[str, Any]:
    return {"audit": {"claimed_epsilon": epsilon, "delta": 1e-5}}


@pytest.mark.parametrize(
    ("signal", "changes", "code", "outcome", "said"),
    [
        (5.0, CLEAN, 0, "no leak", "inclusion was not randomised, so that none says anything of the training"),
        (5.0, CLEAN | COINS, 0, "no leak", "'one run' bounds the training algorithm's epsilon"),
        (5.0, CLEAN | COINS | claims(0.5), 3, "leak", "CLAIM CONTRADICTED: epsilon is at least 1."),
        (5.0, CLEAN | COINS | claims(8.0), 0, "no leak", "The claim of epsilon 8 at delta 1e-05 is not contradicted"),
        (0.0, CLEAN | COINS | claims(0.5), 0, "no leak", "is not contradicted: epsilon is at least 0.0000 by lr"),
        (5.0, CLEAN | claims(0.5), 4, "inconclusive", "cannot be judged: inclusion was not randomised"),
        (5.0, COINS | claims(0.5), 3, "leak", "CLAIM CONTRADICTED"),
        (0.0, COINS | claims(0.5), 4, "inconclusive", "is not contradicted"),
    ],
)
def test_a_claim_of_epsilon(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, signal: float, changes: dict[str, Any], code: int,
    outcome: str, said: str,
) -> None:  # fmt: skip
    run = make_run(signal, changes)
    assert reduce_main(run.arguments) == code
    assert said in " ".join(capsys.readouterr().out.split())
    summary = read_summary(run.paths.summary_json)
    assert summary.verdict.outcome == outcome
    assert (summary.claim is None) == ("audit" not in changes)
    assert (summary.randomised is None) == (changes.get("data.randomised") is None)
    figures = summary.methods["lr"].epsilon
    assert figures is not None
    assert ("epsilon_one_run" in figures.figures) == ("data.randomised" in changes)
    assert main(["history", str(run.paths.root.parent)]) == code


def test_a_claim_is_judged_by_the_configuration_of_now_and_a_verdict_by_another_is_stale(
    make_run: Callable[..., Run], write_config: Callable, tmp_path: Path
) -> None:
    """Without extracting or attacking again: rows do not depend on what is said of coins."""
    run = make_run(5.0, CLEAN)
    assert reduce_main(run.arguments) == 0
    rows = run.paths.features.read_bytes(), run.paths.attack("lr").read_bytes()
    file = tmp_path / "canaries.txt"
    file.write_text("\n".join(map(str, range(10, 150))))
    base = {"attack.methods": METHODS} | CLEAN | claims(0.5)
    canaries = {"data.canaries": {"split": "train", "indices": str(file)}}

    def after(changes: dict[str, Any]) -> int:
        again = replace(run, config_path=write_config(base | changes, name="other.yaml"))
        code = reduce_main(again.arguments)
        manifest = read_manifest(run.paths)
        assert manifest is not None
        assert reduce_status(run.paths, manifest).state == "done"
        return code

    assert after({}) == 4
    assert after(COINS) == 3
    assert after(canaries) == 3
    found = read_summary(run.paths.summary_json)
    assert found.randomised is not None
    assert (found.randomised.n_members, found.randomised.n_nonmembers, found.randomised.n_scored) == (80, 60, 70)
    before = read_manifest(run.paths)
    file.write_text("\n".join(map(str, range(20, 140))))
    here = in_force_with(run.paths, load_config(write_config(base | canaries, name="other.yaml")))
    assert before is not None
    assert reduce_status(run.paths, here).state == "stale"
    assert "content of data.canaries[0].indices has changed" in reduce_status(run.paths, here).detail
    assert after({"data.canaries": {"split": "train", "range": [0, 90]}}) == 4  # members alone: by no fair coin
    assert (run.paths.features.read_bytes(), run.paths.attack("lr").read_bytes()) == rows


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"split": "train", "range": [100, 170]}, "of split 'train', got 10 that are neither, the first 160"),
        ({"split": "other"}, "of split 'other', got none"),
    ],
)
def test_a_canary_that_is_not_in_the_audit(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, block: dict[str, Any], message: str
) -> None:
    run = make_run(5.0, {"data.canaries": block})
    (line,) = refused(run, capsys)
    assert line == f"mia-batch: {run.config_path}: data.canaries[0]: must be members or non-members {message}"


def test_a_model_that_is_not_evaluable_contradicts_nothing(make_run: Callable[..., Run]) -> None:
    run = make_run(5.0, COINS | claims(0.5))
    write_logits(run, np.random.default_rng(1).normal(size=(N, 10)))
    assert reduce_main(run.arguments) == 4
    claim = read_summary(run.paths.summary_json).claim
    assert claim is not None
    assert (claim.contradicted, "the audit is not evaluable" in claim.sentence) == (None, True)


def test_epsilon_in_the_table_and_in_the_files(make_run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    run = make_run(5.0, COINS)
    reduce_main(run.arguments)
    printed = capsys.readouterr().out
    figures = json.loads(run.paths.summary_json.read_text())["methods"]["lr"]["epsilon"]
    assert figures["delta"] == 1e-5
    assert list(figures["figures"]) == [name for name, figure in EPSILONS.items() if not figure.of_ranks]
    assert figures["guesses"] == {"n_canaries": 80, "n_guesses": 16, "n_right": 16}
    for label, name in (("one run", "epsilon_one_run"), ("epsilon", "epsilon"), ("mu-GDP: mu", "mu")):
        low = figures["figures"][name]["low"]
        assert re.search(rf"^{label} +>= {low:.3f} ", printed, re.MULTILINE), label
    credible = figures["figures"]["epsilon_credible"]
    assert f"credible eps.   {credible['low']:.2f}-{credible['high']:.2f}" in printed
    with open(run.paths.summary_csv, newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["method"] == "lr"}
    assert float(rows["epsilon_one_run"]["low"]) == figures["figures"]["epsilon_one_run"]["low"]
    assert rows["epsilon_one_run"]["value"] == rows["epsilon_one_run"]["high"] == ""


# --- what is said of the data ----------------------------------------------------------------------------------------


def test_the_verdict_says_which_attacks_are_by_an_inclusion_that_references_do_not_bear_out(
    make_run: Callable[..., Run],
) -> None:
    run, doubt = make_run(3.0), "the references' phi tells what they were trained on with AUC 0.5012 at most"

    def said() -> list[str]:
        reduce_main(run.arguments)
        return [each for each in read_summary(run.paths.summary_json).verdict.cautions if doubt in each]

    assert said() == []
    run.attack("knn", provenance={**read_attack(run.paths.attack("knn")).provenance, INCLUSION_DOUBT: doubt})
    (caution,) = said()
    assert caution.startswith(doubt)
    assert caution.endswith("whatever the model leaks, such attacks find nothing: knn.")


@pytest.mark.parametrize(
    ("used_for", "said"),
    [
        (None, "it is not stated whether non-members were used for early stopping or tuning"),
        ("unknown", "it is not stated whether non-members were used for early stopping or tuning"),
        ("selection", "non-members were used for early stopping or tuning: the model is tuned to them too"),
        ("none", None),
    ],
)
def test_the_verdict_says_what_nonmembers_were_used_for(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, used_for: str | None, said: str | None
) -> None:
    run = make_run(5.0, {"data.nonmembers_used_for": used_for} if used_for else {})
    assert reduce_main(run.arguments) == 3
    found = [text for text in read_summary(run.paths.summary_json).verdict.cautions if "early stopping" in text]
    assert len(found) == (said is not None)
    if said:
        assert found[0].startswith(said)
        assert found[0].endswith("understated.")
        assert " ".join(f"Caution: {found[0]}".split()) in " ".join(capsys.readouterr().out.split())


def test_what_they_were_used_for_may_be_stated_when_all_is_done(
    make_run: Callable[..., Run], write_config: Callable[..., Path]
) -> None:
    run = make_run(5.0)
    assert reduce_main(run.arguments) == 3
    stated = write_config({"attack.methods": METHODS, "data.nonmembers_used_for": "none"}, name="stated.yaml")
    assert reduce_main(replace(run, config_path=stated).arguments) == 3
    summary = read_summary(run.paths.summary_json)
    assert not any("early stopping" in text for text in summary.verdict.cautions)
    assert summary.provenance["config"]["data"]["nonmembers_used_for"] == "none"


def test_a_run_of_the_version_before_is_judged_as_unknown(make_run: Callable[..., Run]) -> None:
    run = make_run(5.0)
    manifest = json_text.parse(run.paths.manifest.read_text())
    del manifest["config"]["data"]["nonmembers_used_for"]
    run.paths.manifest.write_text(json.dumps(manifest))
    assert reduce_main(run.arguments) == 3
    assert any(text.startswith("it is not stated") for text in read_summary(run.paths.summary_json).verdict.cautions)


@pytest.mark.parametrize("stated", [False, True])
def test_preprocessing_that_is_not_stated_is_said_by_the_verdict(make_run: Callable[..., Run], stated: bool) -> None:
    keys = {"image_size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]} if stated else {}
    own = {"data.source": "tests.nowhere:make", "data.path": None}  # the reducer reads no sample
    run = make_run(5.0, own | {f"data.{key}": value for key, value in keys.items()})
    assert reduce_main(run.arguments) == 3
    cautions = read_summary(run.paths.summary_json).verdict.cautions
    said = [text for text in cautions if "CIFAR's values are used" in text]
    assert [text.partition(":")[0] for text in said] == (
        [] if stated else ["data.image_size, data.mean and data.std are not stated"]
    )


def test_of_cross_fitted_scores_the_gate_looks_at_the_extremes() -> None:
    """An attack that knows 30 % of the members for sure, and decides by a coin."""
    rng, n = np.random.default_rng(7), 2000
    member, part = np.repeat([1, 0], n // 2).astype(np.int8), np.arange(n) % 5
    scores = rng.normal(size=n) + 6 * (member & (rng.random(n) < 0.3))
    result = AttackResult("lr", scores, rng.integers(0, 2, n).astype(np.int8), part.astype(np.int32), member)
    found = scored(result, {}, Gate())
    assert np.array_equal(found.extreme, out_of_fold_decisions(member == 1, scores, part, delta=1e-5))
    assert np.array_equal(ranked(found, result).ranks, out_of_fold_ranks(member == 1, scores, part))
    assert np.array_equal(found.one_split, part == 0)
    assert found.effects == (2.0, 2.0)  # counts that are pooled over models of shared rows are halved before any bound
    verdict = decide({"lr": found}, Gate(), methods=["lr"])
    assert verdict.outcome == "leak"
    assert [rule.outcome for rule in verdict.methods["lr"].rules if rule.rule == "epsilon"] == ["leak"]
    alone = scored(replace(result, scored_by=np.zeros(n, np.int32)), {}, Gate())
    assert (alone.extreme, alone.one_split, alone.effects) == (None, None, (1.0, 1.0))


@pytest.mark.parametrize("lost", ["features.h5", "attacks/lr.h5", "attacks"])
def test_verify_misses_what_the_verdict_came_from(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture, lost: str
) -> None:
    run = make_run(5.0)
    assert reduce_main(run.arguments) == 3
    assert main(["verify", str(run.paths.root)]) == 0
    (run.paths.root / lost).rename(run.paths.root / "moved")
    capsys.readouterr()
    assert main(["verify", str(run.paths.root)]) == 2
    name = "attacks/knn.h5" if lost == "attacks" else lost
    assert f"bad      {name}: must be there, as its verdict is" in capsys.readouterr().out
