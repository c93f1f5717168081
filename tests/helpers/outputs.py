"""Outputs of a made-up model, and files of them in every format."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Arrays = Mapping[str, np.ndarray]


def made_up(n: int = 300, n_classes: int = 4, *, surer: float = 2.0, seed: int = 0) -> dict[str, np.ndarray]:
    """float32 logits of a model that is surer of members by `surer`, as PyTorch's `.numpy()` gives them."""
    rng = np.random.default_rng(seed)
    member, label = rng.permutation(n) % 2, rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)).astype(np.float32)
    logits[np.arange(n), label] += np.float32(2) + np.float32(surer) * member
    return {"logits": logits, "label": label, "member": member}


def softmax(z: np.ndarray) -> np.ndarray:
    """Probabilities in float64."""
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def flat(arrays: Arrays) -> dict[str, np.ndarray]:
    """A column for each number: logit_0, logit_1, ..."""
    columns = {}
    for name, array in arrays.items():
        singular = {"logits": "logit", "probabilities": "probability"}.get(name, name)
        wide = array.ndim == 2
        columns |= {f"{singular}_{i}": column for i, column in enumerate(array.T)} if wide else {name: array}
    return columns


def write_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def write_npz_by_columns(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), **{name: np.asfortranarray(array) for name, array in arrays.items()})
    return path.with_suffix(".npz")


def write_csv(path: Path, arrays: Arrays) -> Path:
    columns = flat(arrays)
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path.with_suffix(".csv")


def write_hdf5(path: Path, arrays: Arrays) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, array in arrays.items():
            text = array.dtype.kind in "UO"
            chunks = (min(7, len(array)), *array.shape[1:]) if array.ndim else None
            file.create_dataset(name, data=array.astype(object) if text else array, dtype=h5py.string_dtype() if text
                                else None, chunks=chunks)  # fmt: skip
    return path.with_suffix(".h5")


def write_parquet(path: Path, arrays: Arrays) -> Path:
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = flat(arrays)
    pyarrow.parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"), row_group_size=50)
    return path.with_suffix(".parquet")


WRITERS: dict[str, Callable[[Path, Arrays], Path]] = {
    "npz": write_npz, "npz_by_columns": write_npz_by_columns, "csv": write_csv, "hdf5": write_hdf5,
    "parquet": write_parquet,
}  # fmt: skip


def a_raw_config(files: Any, *methods: str, **data: Any) -> dict[str, Any]:
    """A configuration as YAML gives it, of attacks without a grid, made in this process."""
    named = [{"method": name} for name in (methods or ("threshold_loss",))]
    attack = {"backend": "serial", "methods": named}
    return {"data": {"source": "outputs", "files": files, **data}, "attack": attack}
