"""Inclusion files: read for the audit's samples, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.data.inclusion import read_inclusion
from mia_batch.errors import InputError

SPLIT, INDEX = np.array(["train"] * 3 + ["test"] * 2), np.array([7, 2, 4, 2, 0])
INCLUDED = np.array([[1, 0, 1, 0, 1], [0, 0, 1, 1, 1]], dtype=bool)
NAMED: dict[str, Any] = {"included": INCLUDED, "split": SPLIT, "sample_index": INDEX}


def read(path: Path) -> np.ndarray:
    return read_inclusion(path, 2, SPLIT, INDEX)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_a_matrix_is_in_the_order_of_the_audit(tmp_path: Path, kind: type) -> None:
    np.save(tmp_path / "in.npy", INCLUDED.astype(kind))
    found = read(tmp_path / "in.npy")
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, INCLUDED.T)


@pytest.mark.parametrize("kind", ["U", "S"])
def test_a_file_that_names_its_samples_may_have_more_and_another_order(tmp_path: Path, kind: str) -> None:
    more = np.hstack([INCLUDED, [[1], [1]]])
    split, index = np.append(SPLIT, "test").astype(kind), np.append(INDEX, 7)
    for order in (np.arange(6), np.random.default_rng(1).permutation(6)):
        np.savez(tmp_path / "in.npz", included=more[:, order], split=split[order], sample_index=index[order])
        np.testing.assert_array_equal(read(tmp_path / "in.npz"), INCLUDED.T)


@pytest.mark.parametrize(("array", "said"), [
    (INCLUDED[:1], r"a row for each checkpoint and a column for each sample, shape \(2, 5\), got \(1, 5\)"),
    (INCLUDED.T, r"shape \(2, 5\), got \(5, 2\)"),
    (INCLUDED[0], r"shape \(2, 5\), got \(5,\)"),
    (INCLUDED * 2, r"must be bools, or 0 and 1, got 2 at \[0, 0\]"),
    (INCLUDED.astype(np.int8) - 1, r"must be bools, or 0 and 1, got -1 at \[0, 1\]"),
    (INCLUDED * 0.5, "must be bools, or 0 and 1, got float64"),
    (np.array(["a"]), "must be bools, or 0 and 1, got <U1"),
])  # fmt: skip
def test_a_matrix_that_cannot_be_right_is_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    path = tmp_path / "in.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=said) as found:
        read(path)
    (line,) = found.value.problems
    assert line.startswith(f"{path}: references.inclusion: must ")


@pytest.mark.parametrize(("changes", "said"), [
    ({"included": None}, "must have the arrays included, split, sample_index, got none of included"),
    ({"included": INCLUDED[:, :4]}, r"included: must have a row .*, shape \(2, 5\), got \(2, 4\)"),
    ({"split": np.arange(5)}, r"split: must be names of splits, \(M,\), got int64"),
    ({"sample_index": INDEX[:4]}, r"sample_index: must be integers of shape \(5,\), got int64 of shape \(4,\)"),
    ({"sample_index": INDEX / 2}, "sample_index: must be integers"),
    ({"sample_index": np.array([7, 7, 4, 2, 0])}, "must name each sample once, got train sample 7 again"),
    ({"sample_index": np.array([7, 3, 4, 2, 0])}, "every sample of the audit, got none of 1, as train sample 2"),
    ({"split": np.array(["a"] * 5), "sample_index": np.arange(5)}, "got none of 2, as test sample 2"),
])  # fmt: skip
def test_names_that_cannot_be_right_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "in.npz", **{name: array for name, array in (NAMED | changes).items() if array is not None})
    with pytest.raises(InputError, match=said) as found:
        read(tmp_path / "in.npz")
    assert len(found.value.problems) == 1


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.npy"
    for content in (b"", b"text", b"\x93NUMPY\x01\x00", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"must be a \.npy or \.npz file of arrays"):
            read(path)
    np.save(path, np.array([None]), allow_pickle=True)
    with pytest.raises(InputError, match=r"must be a \.npy or \.npz file of arrays"):
        read(path)
    with pytest.raises(InputError, match="must be a file that can be read"):
        read(tmp_path / "gone.npy")
