"""To whom a run directory belongs: who may go on in it, who is refused and in which words, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rundirs import a_manifest, a_writer, finish, make_run, write_result, write_rows, write_verdict

from mia_batch.errors import InputError
from mia_batch.rundir.claim import claim, in_force
from mia_batch.rundir.features import features_progress
from mia_batch.rundir.manifest import CheckpointOrigin, add_launch, read_manifest
from mia_batch.rundir.paths import RunPaths

OTHER_RUNS = [
    ({"data.image_size": [64, 64]}, "data.image_size was [32, 32] and is now [64, 64]"),
    ({"extract.batch_size": 32}, "extract.batch_size was 64 and is now 32"),
    ({"digests.model.checkpoint": "9" * 64}, "the content of model.checkpoint has changed"),
    ({"model.kwargs": {"num_classes": 11}}, "model.kwargs.num_classes was 10 and is now 11"),
]
SAME_RUN = [
    {"gate.threshold": 0.9}, {"report.metrics": ["auc"]}, {"attack.seed": 2}, {"attack.methods": []},
    {"train.epochs": 3}, {"model.checkpoint": "/moved.ckpt", "data.path": "/elsewhere"}, {"attack.memory_gib": 1.0},
]  # fmt: skip


def files(paths: RunPaths) -> dict[str, bytes]:
    return {str(file.relative_to(paths.root)): file.read_bytes() for file in paths.root.rglob("*") if file.is_file()}


@pytest.mark.parametrize("done", [1, 20])
@pytest.mark.parametrize(("change", "phrase"), OTHER_RUNS)
def test_rows_of_another_run_are_refused_in_words_and_kept(
    tmp_path: Path, done: int, change: dict[str, Any], phrase: str
) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    write_rows(paths, a_manifest(), done=done)
    before = files(paths)
    advice = "choose another --out, or remove that directory to audit anew"
    for refuse in (in_force, claim):
        with pytest.raises(InputError) as caught:
            refuse(paths, a_manifest(**change))
        assert caught.value.problems == (f"{paths.root}: --out: holds another run: {phrase}; {advice}",)
    assert files(paths) == before


@pytest.mark.parametrize("change", SAME_RUN)
def test_a_finished_run_takes_what_its_rows_do_not_depend_on(tmp_path: Path, change: dict[str, Any]) -> None:
    paths, first = make_run(RunPaths(tmp_path), a_manifest()), a_manifest()
    add_launch(paths, {"stage": "extract"})
    finish(paths, first)
    before = files(paths)
    later = a_manifest(created="2031-01-01T00:00:00+00:00", **change)
    found = claim(paths, later)
    assert found == read_manifest(paths)
    assert (found.config, found.config_file) == (later.config, later.config_file)
    assert (found.created, found.versions, found.launches) == (first.created, first.versions, ({"stage": "extract"},))
    assert {name: content for name, content in files(paths).items() if name != "run.json"} == {
        name: content for name, content in before.items() if name != "run.json"
    }


def test_a_copy_of_the_checkpoint_is_as_old_as_it_was(tmp_path: Path) -> None:
    first, later = (CheckpointOrigin(modified=f"203{year}-01-01T00:00:00+00:00", epoch_num=2) for year in (0, 1))
    paths = make_run(RunPaths(tmp_path), a_manifest())  # of a version that did not record it
    finish(paths, a_manifest())
    assert claim(paths, a_manifest().model_copy(update={"checkpoint": first})).checkpoint == first
    found = claim(paths, a_manifest().model_copy(update={"checkpoint": later}))
    assert found == read_manifest(paths)
    assert found.checkpoint == first


def test_the_same_run_writes_nothing(tmp_path: Path) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    finish(paths, a_manifest())
    before = paths.manifest.stat().st_mtime_ns
    assert claim(paths, a_manifest(created="2031")) == a_manifest()
    assert paths.manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize(("change", "_"), OTHER_RUNS)
def test_a_first_try_that_failed_locks_nothing(tmp_path: Path, change: dict[str, Any], _: str) -> None:
    paths, other = RunPaths(tmp_path / "run"), a_manifest(created="2031", **change)
    claim(paths, a_manifest())
    add_launch(paths, {"stage": "extract"})
    assert claim(paths, other) == other == read_manifest(paths)
    write_rows(paths, other, done=0)
    assert claim(paths, a_manifest()) == a_manifest()
    assert not paths.features.exists()


def test_rows_that_are_about_to_come_are_somebodys(tmp_path: Path) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    write_rows(paths, a_manifest(), done=0)
    with a_writer(paths), pytest.raises(InputError, match=r"holds another run: data\.label was fine"):
        claim(paths, a_manifest(**{"data.label": "coarse"}))
    assert features_progress(paths.features) == (0, 20)


def test_results_whose_rows_were_removed_are_somebodys_too(tmp_path: Path) -> None:
    for number, write in enumerate((write_verdict, lambda paths, run: write_result(paths, run, "lr"))):
        paths = make_run(RunPaths(tmp_path / str(number)), a_manifest())
        write(paths, a_manifest())
        with pytest.raises(InputError, match=r"holds another run: data\.label was fine and is now coarse"):
            claim(paths, a_manifest(**{"data.label": "coarse"}))
        assert claim(paths, a_manifest(**{"gate.threshold": 0.9})).config["gate"]["threshold"] == 0.9


def test_a_directory_is_whose_its_rows_are(tmp_path: Path) -> None:
    """Two that began at once in an empty directory: one has made the rows, the other has written run.json last."""
    paths = make_run(RunPaths(tmp_path), a_manifest(**{"data.label": "coarse"}))
    write_rows(paths, a_manifest())
    with pytest.raises(InputError, match=r"data\.label was fine and is now coarse"):
        claim(paths, a_manifest(**{"data.label": "coarse"}))
    assert claim(paths, a_manifest()) == a_manifest() == read_manifest(paths)


def test_a_run_of_the_version_before_goes_on(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.create()
    paths.manifest.write_text(json.dumps({**a_manifest().as_json(), "schema": 1}))
    write_rows(paths, a_manifest(), done=5, run="the digest of a whole run")
    rows = paths.features.read_bytes()
    with pytest.raises(InputError, match=r"data\.label was fine and is now coarse"):
        claim(paths, a_manifest(**{"data.label": "coarse"}))
    assert json.loads(paths.manifest.read_text())["schema"] == 1
    found = claim(paths, a_manifest(created="2031", **{"attack.seed": 3}))
    assert (found.created, found.config["attack"]["seed"]) == (a_manifest().created, 3)
    assert json.loads(paths.manifest.read_text())["schema"] == 2
    assert paths.features.read_bytes() == rows


def test_rows_without_a_manifest_are_refused(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.create()
    write_rows(paths, a_manifest())
    with pytest.raises(InputError, match=r"must be empty or a run of this config, got features\.h5 without run\.json"):
        claim(paths, a_manifest())
