"""A finished audit shown again: the same figures in every form, and never a verdict that is not this run's."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from rundirs import a_manifest, finish, make_run
from running import REPO

from mia_batch.commands import show
from mia_batch.errors import InputError
from mia_batch.report.summary import read_summary
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack, write_attack


def shown(capsys: pytest.CaptureFixture[str], paths: RunPaths, *words: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    show.add_arguments(parser)
    code = show.run(parser.parse_args([str(paths.root), *words]))
    return code, capsys.readouterr().out


def test_the_table_is_that_of_the_run_and_the_exit_code_the_verdict(
    finished: RunPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = shown(capsys, finished)
    log = finished.local_log("reduce").read_text()
    assert log.splitlines()[-1] == "reduce ended with exit code 3"
    assert code == 3
    summary = read_summary(finished.summary_json)
    assert " ".join(summary.verdict.sentence.split()) in " ".join(text.split())
    accuracy = summary.methods["lr"].metrics["accuracy"].value
    assert f"Method: lr, {{'recall': {summary.methods['lr'].metrics['recall'].value:.4f}" in text
    assert f"'accuracy': {accuracy:.4f}}}" in text


def test_json_is_the_file_and_of_an_attack_its_part(finished: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, finished, "--json")[1] == finished.summary_json.read_text()
    part = json.loads(shown(capsys, finished, "--attack", "lr", "--json")[1])
    whole = json.loads(finished.summary_json.read_text())
    assert part.pop("attack") == "lr"
    assert part.pop("verdict") == whole["verdict"]["methods"]["lr"]
    assert part == whole["methods"]["lr"]


def test_an_attack_has_every_figure_and_rule(finished: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, finished, "--attack", "threshold_loss")[1]
    method = read_summary(finished.summary_json).methods["threshold_loss"]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for name, found in method.metrics.items():
        if "_prior_" not in name and found.value is not None:
            label = name.replace("tpr_at_fpr_", "TPR at FPR ").replace("_", " ")
            assert any(line.startswith(f"{label} {found.value:.4f} {found.low:.4f}") for line in lines), name
    assert any(line.startswith("balanced accuracy 0.6 ") and line.endswith("leak") for line in lines)
    assert f"samples: {method.n_fit} fitted, {method.n_eval} scored" in lines


@pytest.mark.parametrize("name", ["lx", "", "LR"])
def test_an_unknown_attack_is_one_line(finished: RunPaths, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(InputError, match="--attack: must be one of correctness, threshold_loss, lr, got"):
        shown(capsys, finished, "--attack", name)


def test_a_verdict_of_another_gate_is_not_shown(
    finished: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(finished.root, paths.root)
    raw = json.loads(paths.manifest.read_text())
    raw["config"]["gate"]["alpha"] = 0.01
    del raw["content_sha256"]
    paths.manifest.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"must hold a finished audit, got a verdict that is stale: .*alpha"):
        shown(capsys, paths)
    paths.summary_json.unlink()
    with pytest.raises(InputError, match="got a verdict that is missing"):
        shown(capsys, paths)
    paths.summary_json.write_text("{")
    with pytest.raises(InputError, match="must be JSON"):
        shown(capsys, paths)
    with pytest.raises(InputError, match="must be a run directory"):
        shown(capsys, RunPaths(tmp_path))


def test_a_file_of_the_version_before_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    finish(paths, a_manifest())
    for words in ((), ("--markdown",), ("--model-card",), ("--attack", "rf"), ("--json",)):
        code, text = shown(capsys, paths, *words)
        assert (code, "rf" in text) == (0, True)


def test_figures_are_pictures_and_drawings_with_text(
    finished: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [Path(line) for line in shown(capsys, finished, "--figures", str(tmp_path / "a" / "b"))[1].splitlines()]
    assert sorted(file.name for file in files) == sorted(
        f"{name}.{form}" for name in ("roc", "balanced_accuracy", "tpr_at_fpr_0.01") for form in ("png", "svg")
    )
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert len(picture.convert("L").getcolors(256) or []) > 3
        else:
            texts = [each.text or "" for each in ElementTree.parse(file).iter() if each.tag.endswith("text")]
            assert any("threshold_loss" in text for text in texts)
    value = read_summary(finished.summary_json).methods["lr"].metrics["tpr_at_fpr_0.01"].value
    assert f"lr (TPR {value:.3f} at 0.01" in (tmp_path / "a" / "b" / "roc.svg").read_text()


def test_figures_of_other_results_than_the_summarys_are_refused(
    finished: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(finished.root, paths.root)
    result = read_attack(paths.attack("lr"))
    result.provenance["identity"] = "0" * 64
    write_attack(paths.attack("lr"), result)
    with pytest.raises(InputError, match=r"lr.h5: must be the result that summary.json is of"):
        shown(capsys, paths, "--figures", str(tmp_path / "figures"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--figures: must be a directory that can be written"):
        shown(capsys, finished, "--figures", str(tmp_path / "file" / "x"))


def test_a_real_summary_is_what_the_published_schema_says(finished: RunPaths) -> None:
    schema = Draft202012Validator(json.loads((REPO / "configs" / "summary.schema.json").read_text()))
    written = json.loads(finished.summary_json.read_text())
    assert list(schema.iter_errors(written)) == []
    leak = {**written["verdict"], "leak": "yes"}
    for wrong in ({"level": "0.95"}, {"verdict": leak}, {"schema": 3}, {"methods": []}):
        assert list(schema.iter_errors({**written, **wrong})), wrong
    del written["verdict"]
    assert list(schema.iter_errors(written))
