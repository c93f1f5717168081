"""run.json: typed, of two schemas, and one clear line where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rundirs import a_manifest, make_run

from mia_batch.errors import InputError
from mia_batch.rundir.manifest import SCHEMA, add_launch, end_launch, read_manifest, write_manifest
from mia_batch.rundir.paths import RunPaths


def test_it_comes_back_as_it_was_and_cannot_be_changed(tmp_path: Path) -> None:
    paths, manifest = RunPaths(tmp_path), a_manifest()
    assert read_manifest(paths) is None
    write_manifest(paths, manifest)
    assert json.loads(paths.manifest.read_text())["schema"] == SCHEMA
    assert read_manifest(paths) == manifest
    assert manifest.methods == ["lr", "knn"]
    with pytest.raises(ValidationError, match="frozen"):
        manifest.created = "now"  # type: ignore[misc]


def test_that_of_the_version_before_is_read(tmp_path: Path) -> None:
    paths, manifest = RunPaths(tmp_path), a_manifest()
    paths.manifest.write_text(json.dumps({**manifest.as_json(), "schema": 1}))
    assert read_manifest(paths) == manifest


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"schema": 3}, "schema: must be 1 or 2, got 3"),
        ({"schema": None}, "schema: must be 1 or 2, got None"),
        ({"digests": 3}, "digests: must be a mapping, got 3"),
        ({"digests": {"model.checkpoint": 3}}, "digests.model.checkpoint: must be text, got 3"),
        ({"config": []}, "config: must be a mapping, got []"),
        ({"config": {"attack": 3}}, "config.attack: must be a mapping, got 3"),
        ({"config": {"attack": {"methods": [{}]}}}, "config: attack.methods must be a list of methods"),
        ({"launches": {}}, "launches: must be a list, got {}"),
        ({"created": ...}, "created: is required"),
    ],
)  # fmt: skip
def test_a_damaged_one_is_a_line_with_field_rule_and_value(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    paths = RunPaths(tmp_path)
    raw = {key: value for key, value in {**a_manifest().as_json(), **change}.items() if value is not ...}
    paths.manifest.write_text(json.dumps(raw))
    with pytest.raises(InputError) as caught:
        read_manifest(paths)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{paths.manifest}: {line}")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"schema": 1}', '{"schema": 1, "config": 3, "digests": {}}', "\udce4"]
)
def test_what_is_no_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, errors="surrogateescape")
    rules = "must be a run's manifest|schema: must be|created: is required"
    with pytest.raises(InputError, match=rf"run\.json: ({rules})") as caught:
        read_manifest(RunPaths(tmp_path))
    assert len(caught.value.problems) == 1


def test_a_launch_gets_its_measurements(tmp_path: Path) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    assert add_launch(paths, {"stage": "x"}).launches == ({"stage": "x"},)
    add_launch(paths, {"stage": "extract"}, [{"stage": "x"}, {"stage": "shadows"}])
    add_launch(paths, {"stage": "of another task"})
    end_launch(paths, {"stage": "extract"}, {"seconds": 1.5})
    found = read_manifest(paths)
    assert found is not None
    ended = {"stage": "extract", "seconds": 1.5}
    assert found.launches == ({"stage": "x"}, {"stage": "shadows"}, ended, {"stage": "of another task"})
    paths.manifest.unlink()
    with pytest.raises(InputError, match="must stay there"):
        end_launch(paths, ended, {})
