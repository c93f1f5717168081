"""Audits in a real MLflow store of files: the run is found, and gets every figure, the report and the pictures.

MLflow has an environment of its own: `make mlflow`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="needs an environment with MLflow: make mlflow")

from finished import finished_audit, mia_batch
from mlflow.tracking import MlflowClient

from mia_batch.report.summary import read_summary
from mia_batch.rundir.paths import RunPaths


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return finished_audit(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "mlruns").as_uri()


@pytest.fixture
def client(store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=store)


def a_training(client: MlflowClient, **tags: str) -> Any:
    return client.create_run("0", tags=tags)


def test_the_run_gets_every_figure_the_report_and_the_pictures(
    finished: RunPaths, client: MlflowClient, store: str
) -> None:
    run_id = a_training(client).info.run_id
    done = mia_batch("mlflow", finished.root, "--run-id", run_id, "--tracking-uri", store)
    assert done.returncode == 0, done.stderr
    summary = read_summary(finished.summary_json)
    run = client.get_run(run_id)
    for attack, method in summary.methods.items():
        for name, found in method.metrics.items():
            for end, value in (("", found.value), ("_low", found.low), ("_high", found.high)):
                assert run.data.metrics.get(f"mia/{attack}/{name}{end}") == value
    best = max(method.metrics["auc"].value or 0.0 for method in summary.methods.values())
    assert run.data.metrics["mia/best/auc"] == best
    assert run.data.metrics["mia/model/accuracy_members"] == summary.audited.members.accuracy
    assert run.data.tags["mia.outcome"] == "leak"
    assert run.data.tags["mia.sentence"] == summary.verdict.sentence[:5000]
    folder = done.stdout.rpartition(" ")[2].strip()
    names = {file.path for file in client.list_artifacts(run_id, folder)}
    wanted = {"summary.json", "summary.csv", "model_card.md", "figures"}
    assert {f"{folder}/{name}" for name in wanted} <= names
    assert (f"{folder}/report.html" in names) == finished.page.exists()
    pictures = {Path(file.path).name for file in client.list_artifacts(run_id, f"{folder}/figures")}
    assert {"roc.png", "roc.svg", "balanced_accuracy.png"} <= pictures
    local = client.download_artifacts(run_id, f"{folder}/summary.json")
    assert Path(local).read_bytes() == finished.summary_json.read_bytes()
    assert mia_batch("mlflow", finished.root, "--run-id", run_id, "--tracking-uri", store).returncode == 0
    assert {file.path for file in client.list_artifacts(run_id, folder)} == names


def test_the_run_is_found_by_the_checkpoints_hash_if_one_alone_has_it(
    finished: RunPaths, client: MlflowClient, store: str
) -> None:
    digest = json.loads(finished.manifest.read_text())["digests"]["data.files"]
    a_training(client, checkpoint_sha256="0" * 64)
    refused = mia_batch("mlflow", finished.root, "--tracking-uri", store)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "--run-id: must be given" in refused.stderr
    made = a_training(client, checkpoint_sha256=digest)
    done = mia_batch("mlflow", finished.root, "--tracking-uri", store)
    assert done.returncode == 0, done.stderr
    assert made.info.run_id in done.stdout
    a_training(client, checkpoint_sha256=digest)
    assert "got 2 for" in mia_batch("mlflow", finished.root, "--tracking-uri", store).stderr


def test_the_run_is_found_by_the_checkpoints_path(client: MlflowClient, store: str, tmp_path: Path) -> None:
    run = a_training(client)
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    paths = finished_audit(artifacts / "run")
    done = mia_batch("mlflow", paths.root, "--tracking-uri", store)
    assert done.returncode == 0, done.stderr
    assert run.info.run_id in done.stdout


@pytest.mark.parametrize("words", [("--run-id", "f" * 32), ("--run-id", "../x"), ("--tracking-uri", "gopher://x")])
def test_what_mlflow_does_not_have_is_one_line(
    finished: RunPaths, client: MlflowClient, store: str, words: tuple[str, str]
) -> None:
    given = ("--tracking-uri", store, *words)
    done = mia_batch("mlflow", finished.root, *given, env={**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
    assert done.returncode == 2
    assert f"mia-batch: {words[0]}: must be" in done.stderr
    assert "Traceback" not in done.stderr
