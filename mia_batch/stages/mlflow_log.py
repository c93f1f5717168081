"""A finished audit in MLflow, with the run that made its checkpoint: metrics, tags, figures, report."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_batch.errors import InputError, one_line
from mia_batch.report.best import AREA, AT_ONE_PERCENT, BALANCED, best_of
from mia_batch.report.markdown import model_card_text
from mia_batch.report.summary import Summary
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.trainings import audited_file, name_of
from mia_batch.stages.figures import draw_figures

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MADE_BY = "checkpoint_sha256"  # a tag by which a training may say what it has made
FOLDER = "mia_batch"  # of the artifacts
TAG_LENGTH = 5000  # characters that MLflow takes at least
IN_PATH = re.compile(r"/([0-9a-f]{32})/artifacts/")
LIMIT = 1000  # metrics at once


def client_of(tracking_uri: str | None) -> MlflowClient:
    """MLflow's client; None is what MLflow itself would take.

    Raises:
        InputError: MLflow is not installed, or does not take the address.
    """
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError("mlflow: must be installed: pip install 'mia_batch[mlflow]'") from error
    try:
        return MlflowClient(tracking_uri=tracking_uri)
    except Exception as error:  # any of many libraries' own
        raise InputError(f"--tracking-uri: must be one that MLflow takes, got {one_line(error)}") from error


def maker_of(client: MlflowClient, manifest: Manifest, run_id: str | None) -> Run:
    """The MLflow run that made the checkpoint.

    Args:
        client: of the tracking server.
        manifest: of the audit.
        run_id: the run; None looks for its id in the checkpoint's path, then for a run whose tag has its SHA-256.

    Raises:
        InputError: there is none, or several, or MLflow does not answer.
    """
    path, digest = audited_file(manifest)
    found = IN_PATH.search(str(path))
    if run_id is None and found is None:
        return _tagged(client, digest, path)
    wanted = run_id or (found[1] if found else "")
    try:
        return client.get_run(wanted)
    except Exception as error:
        where = "--run-id" if run_id else f"{path}: its run"
        raise InputError(f"{where}: must be a run that MLflow has, got {wanted}: {one_line(error)}") from error


def _tagged(client: MlflowClient, digest: str, path: Path) -> Run:
    try:
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments, filter_string=f"tags.{MADE_BY} = '{digest}'")
    except Exception as error:
        raise InputError(f"--tracking-uri: must be a store that answers, got {one_line(error)}") from error
    if len(runs) != 1:
        rule = f"--run-id: must be given, as no path names it and not one run alone has the tag {MADE_BY}"
        raise InputError(f"{rule}, got {len(runs)} for {path}")
    return runs[0]


def log_audit(client: MlflowClient, run: Run, paths: RunPaths, manifest: Manifest, summary: Summary) -> str:
    """Log the audit; returns the folder of its artifacts. The same audit again takes the same place.

    Raises:
        InputError: MLflow or a file refuses.
    """
    folder = f"{FOLDER}/{audited_file(manifest)[1][:12]}"
    with tempfile.TemporaryDirectory() as made:
        figures = draw_figures(paths, summary, Path(made) / "figures")
        card = Path(made) / "model_card.md"
        card.write_text(model_card_text(summary), encoding="utf-8", errors="replace")
        files = [card, *(each for each in (paths.page, paths.summary_json, paths.summary_csv) if each.is_file())]
        try:
            _log_numbers(client, run.info.run_id, manifest, summary)
            for file in files:
                client.log_artifact(run.info.run_id, str(file), folder)
            for file in figures:
                client.log_artifact(run.info.run_id, str(file), f"{folder}/figures")
        except Exception as error:
            raise InputError(f"{paths.root}: must be logged to MLflow, got {one_line(error)}") from error
    return folder


def _log_numbers(client: MlflowClient, run_id: str, manifest: Manifest, summary: Summary) -> None:
    from mlflow.entities import Metric, RunTag

    now, step = int(time.time() * 1000), step_of(manifest)
    metrics = [Metric(name, value, now, step) for name, value in figures_of(summary)]
    tags = [RunTag(name, value[:TAG_LENGTH]) for name, value in tags_of(manifest, summary).items()]
    for first in range(0, len(metrics), LIMIT):
        client.log_batch(run_id, metrics=metrics[first : first + LIMIT])
    client.log_batch(run_id, tags=tags)


def step_of(manifest: Manifest) -> int:
    """Of the training, as the checkpoint or its name tells it; 0 where neither does."""
    origin, named = manifest.checkpoint, name_of(audited_file(manifest)[0])
    told = (origin.step_num, origin.epoch_num, *(reversed(named.step) if named.sure else ()))
    return next((number for number in told if number is not None), 0)


def figures_of(summary: Summary) -> Iterator[tuple[str, float]]:
    """Every value and interval by name, such as mia/lr/auc and mia/lr/auc_low; of the best attacks as mia/best/auc."""
    for attack, method in summary.methods.items():
        for name, found in method.metrics.items():
            yield from _named(f"mia/{attack}/{name}", found)
    for name in (BALANCED, AREA, AT_ONE_PERCENT):
        if best := best_of(summary, name):
            yield from _named(f"mia/best/{name}", best.metric)
    if summary.audited:
        for side in ("members", "nonmembers"):
            accuracy = getattr(summary.audited, side).accuracy
            if accuracy is not None:
                yield f"mia/model/accuracy_{side}", accuracy


def _named(name: str, found: Any) -> Iterator[tuple[str, float]]:
    for end in ("", "_low", "_high"):
        value = getattr(found, end.removeprefix("_") or "value")
        if value is not None:
            yield f"{name}{end}", value


def tags_of(manifest: Manifest, summary: Summary) -> dict[str, str]:
    """What the audit says in words."""
    return {
        "mia.outcome": summary.verdict.outcome, "mia.sentence": summary.verdict.sentence,
        "mia.checkpoint_sha256": audited_file(manifest)[1], "mia.audited": manifest.created,
    }  # fmt: skip
