"""features.h5 and attacks/*.h5: what is written is read back, and nothing else is taken for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_files import change_and_seal, make_of_before
from hypothesis import given
from hypothesis import strategies as st

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.inputs import STATISTICS
from mia_batch.locks import in_use
from mia_batch.rundir.features import FeatureStore, block_dtype, features_progress, read_features
from mia_batch.rundir.hdf5 import check_room
from mia_batch.rundir.results import read_attack, write_attack
from mia_batch.rundir.row_store import contiguous_runs

N, C = 20, 3


def make(path: Path) -> FeatureStore:
    rows = {
        "sample_index": np.arange(N), "label": np.arange(N) % C, "member": np.repeat([1, 0], N // 2),
        "split": np.repeat(["train", "prüf"], N // 2), "group": np.arange(N) // 3,
    }
    return FeatureStore.create(path, rows, C, {"config": {"a": 1}, "run": "abc"})


def block(rows: list[int]) -> np.ndarray:
    made = np.zeros(len(rows), dtype=block_dtype(C))
    made["row"] = rows
    made["loss"] = np.array(rows) + 0.25
    made["logits"] = np.array(rows)[:, None] * 10 + np.arange(C)
    made["content"] = np.array(rows)[:, None] + np.arange(16)
    made["statistics"] = np.array(rows)[:, None] / 2 + np.arange(len(STATISTICS))
    return made


def in_another_process(function: str, path: Path) -> str:
    code = f"""
import sys, pathlib
from mia_batch.locks import in_use
from mia_batch.rundir.features import features_progress
print({function}(pathlib.Path(sys.argv[1])))
"""
    return subprocess.check_output([sys.executable, "-c", code, path], text=True).strip()


def test_rows_written_in_any_order_come_back_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with make(path) as store:
        store.write(block([7, 3, 4, 19]))
        assert np.flatnonzero(store.done()).tolist() == [3, 4, 7, 19]
        store.write(block([i for i in range(N) if i not in (3, 4, 7, 19)]))
    features = read_features(path)
    np.testing.assert_array_equal(features.loss, np.arange(N) + 0.25)
    np.testing.assert_array_equal(features.logits, np.arange(N)[:, None] * 10 + np.arange(C))
    np.testing.assert_array_equal(features.content, np.arange(N)[:, None] + np.arange(16))
    np.testing.assert_array_equal(features.statistics, np.arange(N)[:, None] / 2 + np.arange(len(STATISTICS)))
    np.testing.assert_array_equal(features.group, np.arange(N) // 3)
    assert features.split.tolist() == ["train"] * 10 + ["prüf"] * 10
    assert features.attrs["config"] == {"a": 1}
    assert isinstance(features.logits, np.memmap)


def test_datasets_are_contiguous_and_on_disk_before_any_row(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    make(path).close()
    with h5py.File(path) as file:
        for name in ("content", "statistics", "logits", "loss", "done"):
            assert file[name].chunks is None
            assert file[name].compression is None
            assert file[name].id.get_offset() is not None
    assert os.path.getsize(path) >= N * (C * 4 + 8 + 1 + 16 + 4 * len(STATISTICS))


def test_an_incomplete_file_is_not_read_as_features(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with make(path) as store:
        store.write(block([0, 1]))
        assert in_another_process("features_progress", path) == f"(2, {N})"
        assert in_another_process("in_use", path) == "True"
    assert not in_use(path)
    with pytest.raises(InputError, match=r"rows: must all be done, got 2 of 20"):
        read_features(path)


def before(path: Path) -> Path:
    """A file as the version before has made it, with no row done."""
    make(path).close()
    make_of_before(path)
    return path


def test_a_half_finished_file_of_the_version_before_is_continued_and_read(tmp_path: Path) -> None:
    path = before(tmp_path / "features.h5")
    with FeatureStore(path) as store:
        store.write(block([0, 1, 2]))
    assert features_progress(path) == (3, N)
    with FeatureStore(path) as store:
        store.write(block(list(range(3, N))))
    features = read_features(path)
    assert features.content is features.statistics is features.group is None
    np.testing.assert_array_equal(features.loss, np.arange(N) + 0.25)


def test_creation_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    make(path).close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="another run"):
        make(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["features.h5"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    make(path).close()
    code = "import sys, pathlib as p; from mia_batch.rundir import features as f; f.FeatureStore(p.Path(sys.argv[1]))"
    with FeatureStore(path):
        other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert other.stderr.strip().endswith("is in use by another process")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_file_that_is_no_hdf5_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.h5"
    path.write_bytes(content)
    for reader in (read_features, FeatureStore, read_attack, features_progress):
        with pytest.raises(InputError) as caught:
            reader(path)
        assert len(caught.value.problems) == 1
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    make(path).close()
    change_and_seal(path, lambda file: file.attrs.modify("schema", json.dumps(99)))
    with pytest.raises(InputError, match=r"schema 1 or 2 or 3, got kind .*schema 99"):
        read_features(path)


def test_attributes_too_long_for_hdf5_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    rows = {"sample_index": [0], "label": [0], "member": [1], "split": ["train"], "group": [-1]}
    long = {"C": list(np.linspace(0, 1, 9000))}
    with FeatureStore.create(path, rows, C, {"config": long}) as store:
        assert store.attrs["config"] == long


def test_an_attack_comes_back_as_it_was(tmp_path: Path) -> None:
    evaluated = np.arange(N) % 5 == 0
    result = AttackResult(
        method="lr",
        scores=np.where(evaluated, np.linspace(0, 1, N), np.nan),
        predicted=np.where(evaluated, 1, -1).astype(np.int8),
        scored_by=np.where(evaluated, 0, -1).astype(np.int32),
        member=np.repeat([1, 0], N // 2).astype(np.int8),
        best_params={"C": 0.1, "hidden": [3, 4], "depth": None},
        best_score=0.75,
        cv_results={"params": ['{"C": 0.1}', '{"C": 1}'], "mean_test_score": [0.7, 0.75], "n_nonconverged": [0, 2]},
        provenance={"engine": "sklearn", "seconds": 1.5},
    )
    write_attack(tmp_path / "lr.h5", result)
    again = read_attack(tmp_path / "lr.h5")
    np.testing.assert_array_equal(again.scores, result.scores)
    np.testing.assert_array_equal(again.evaluated, evaluated)
    assert list(again.cv_results) == list(result.cv_results)
    assert again.cv_results == result.cv_results
    assert (again.best_params, again.best_score, again.provenance) == (
        result.best_params, result.best_score, result.provenance,
    )

    for damage, rule in (
        (lambda file: file["predicted"].write_direct(np.full(N, 32, np.int8)), "predicted must be 0 or 1"),
        (lambda file: file["scores"].write_direct(np.zeros(N)), "exactly the evaluated rows must have a score"),
        (lambda file: file.attrs.modify("provenance", "{"), "must be a readable HDF5 file"),
        (lambda file: file.attrs.__delitem__("best_params"), "must be a readable HDF5 file"),
    ):
        write_attack(tmp_path / "lr.h5", result)
        change_and_seal(tmp_path / "lr.h5", damage)
        with pytest.raises(InputError, match=rule) as caught:
            read_attack(tmp_path / "lr.h5")
        assert len(caught.value.problems) == 1

    write_attack(tmp_path / "lr.h5", result)
    content = (tmp_path / "lr.h5").read_bytes()
    for array in (result.scores, result.predicted, result.scored_by, result.member):
        assert content.count(array.tobytes()) >= 1
        (tmp_path / "lr.h5").write_bytes(content.replace(array.tobytes(), bytes(array.nbytes)))
        with pytest.raises(InputError, match="must have the bytes that were written"):
            read_attack(tmp_path / "lr.h5")


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the disk is full"):
        check_room(tmp_path, 2**62)
    assert list(tmp_path.iterdir()) == []


@given(st.sets(st.integers(0, 60)))
def test_runs_put_rows_back_where_they_came_from(rows: set[int]) -> None:
    ordered = np.array(sorted(rows), dtype=np.int64)
    target = np.full(61, -1)
    for here, there in contiguous_runs(ordered):
        target[there] = ordered[here]
    np.testing.assert_array_equal(np.flatnonzero(target >= 0), ordered)
    np.testing.assert_array_equal(target[ordered], ordered)


def test_consecutive_rows_are_one_run() -> None:
    assert list(contiguous_runs(np.arange(5, 69))) == [(slice(0, 64), slice(5, 69))]
