"""A user's MindSpore dataset, read by index."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from mia_batch.data.user_source import Rows
from mia_batch.errors import InputError

ONE_TO_ONE = ("MapDataset", "RenameDataset", "ProjectDataset")  # nodes that keep the source's order and number


def open_dataset(dataset: Any, field: str) -> Rows:
    """Read a MindSpore dataset by index: a copy of its pipeline gets a sampler of just the wanted indices."""
    leaf = _leaf(dataset, field)
    if leaf.is_sharded():
        raise InputError(f"{field}: must not be sharded: ranks are given their samples by index")
    missing = {"image", "label"} - set(dataset.get_col_names())
    if missing:
        raise InputError(f"{field}: must have columns image and label, got {', '.join(dataset.get_col_names())}")
    from mindspore.dataset import SubsetSampler  # loaded, since the dataset is there; else seconds

    def some_rows(index: np.ndarray, columns: list[str]) -> list[dict[str, Any]]:
        some = copy.deepcopy(dataset)  # the pipeline's nodes, not the source's data
        _leaf(some, field).use_sampler(SubsetSampler([int(position) for position in index]))
        rows = list(some.project(columns).create_dict_iterator(num_epochs=1, output_numpy=True))
        if len(rows) != len(index):
            raise InputError(f"{field}: must give one row per sample, got {len(rows)} for {len(index)} indices")
        return rows

    def read(index: np.ndarray, columns: list[str]) -> list[tuple[Any, Any]]:
        return [(row.get("image"), row["label"]) for row in some_rows(index, columns)]

    def column(index: np.ndarray, name: str) -> list[Any]:
        if name not in (columns := dataset.get_col_names()):
            raise InputError(f"data.group: {name}: must be a column of {field}, which has {', '.join(columns)}")
        return [row[name] for row in some_rows(index, [name])]

    return Rows(int(dataset.get_dataset_size()), None, read, column)


def _leaf(dataset: Any, field: str) -> Any:
    while dataset.children:
        if type(dataset).__name__ not in ONE_TO_ONE or len(dataset.children) != 1:
            rule = "must be a source with map, rename or project only (no batch, shuffle, repeat, ...)"
            raise InputError(f"{field}: {rule}, got {type(dataset).__name__}")
        dataset = dataset.children[0]
    # A file reader has no `source`; a GeneratorDataset's source may be a mere iterable.
    if not hasattr(dataset, "use_sampler") or not hasattr(getattr(dataset, "source", ()), "__getitem__"):
        raise InputError(f"{field}: must be a map-style dataset, got {type(dataset).__name__}")
    return dataset
