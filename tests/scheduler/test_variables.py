"""Environment variables that a config names go with its jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mia_batch.scheduler.variables import exported
from mia_batch.settings.loading import load_config


def test_each_variable_that_the_config_or_a_change_names_is_exported_once(
    tmp_path: Path, write_config: Callable[..., Path], records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDS", str(records))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("UNNAMED", "x")
    path = write_config({"data.path": "$RECORDS", "model.checkpoint": "${FOLDER}/net.ckpt"})
    path.write_text(path.read_text() + "# $UNNAMED is in a comment\n")
    config = load_config(path, changes=["data.path=${FOLDER}/data"])
    assert set(exported(config)) == {f"export=RECORDS={records}", f"export=FOLDER={tmp_path}"}
    assert exported(load_config(write_config())) == ()
