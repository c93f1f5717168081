"""A user's MindSpore dataset, read by index."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.user_source import InputNames, SplitReader, pick
from mia_batch.errors import InputError, one_line

BY_DEFAULT = InputNames()
ONE_TO_ONE = ("MapDataset", "RenameDataset", "ProjectDataset")  # nodes that keep the source's order and number


def open_dataset(dataset: Any, field: str, chosen: InputNames = BY_DEFAULT) -> SplitReader:
    """Read a MindSpore dataset by index: a copy of its pipeline gets a sampler of just the wanted samples.

    Sample i is what the user's own sampler gives at position i: a SequentialSampler or SubsetSampler (a list), also of
    the output of another. The default, and `shuffle=True`, give all samples in no fixed order: there, i is the
    position in the source.

    Raises:
        InputError: columns, nodes or samplers that cannot be honoured exactly.
    """
    leaf = _leaf(dataset, field)
    columns, size = _columns_and_size(dataset, leaf, field)
    inputs = chosen.choose(columns, field)
    samples = _samples(leaf.sampler, np.arange(size), field)
    from mindspore.dataset import SequentialSampler, SubsetSampler  # loaded, since the dataset is there; else seconds

    bare = copy.deepcopy(dataset)  # the pipeline's nodes, not the source's data
    _leaf(bare, field).sampler = SequentialSampler()  # a long list of indices is not copied for each read

    def some_rows(index: np.ndarray, columns: list[str]) -> list[dict[str, Any]]:
        some = copy.deepcopy(bare)
        _leaf(some, field).sampler = SubsetSampler(samples[index].tolist())
        rows = list(some.project(columns).create_dict_iterator(num_epochs=1, output_numpy=True))
        if len(rows) != len(index):
            raise InputError(f"{field}: must give one row per sample, got {len(rows)} for {len(index)} indices")
        return rows

    def read(index: np.ndarray, with_inputs: bool) -> Iterator[tuple[Any, Any]]:
        names = ([inputs] if isinstance(inputs, str) else list(inputs)) if with_inputs else []
        rows = some_rows(index, [*names, chosen.label])
        return ((pick(row, inputs) if with_inputs else None, row[chosen.label]) for row in rows)

    def column(index: np.ndarray, name: str) -> list[Any]:
        if name not in columns:
            raise InputError(f"data.group: {name}: must be a column of {field}, which has {', '.join(columns)}")
        return [row[name] for row in some_rows(index, [name])]

    return SplitReader(len(samples), None, read, column)


def _leaf(dataset: Any, field: str) -> Any:
    while dataset.children:
        if type(dataset).__name__ not in ONE_TO_ONE or len(dataset.children) != 1:
            rule = "must be a source with map, rename or project only (no batch, shuffle, repeat, take, skip, ...)"
            raise InputError(f"{field}: {rule}, got {type(dataset).__name__}")
        dataset = dataset.children[0]
    # A file reader has no `source`; a GeneratorDataset's source may be a mere iterable.
    if not hasattr(dataset, "use_sampler") or not hasattr(getattr(dataset, "source", ()), "__getitem__"):
        raise InputError(f"{field}: must be a map-style dataset, got {type(dataset).__name__}")
    if getattr(dataset, "has_batch_sampler", False):
        raise InputError(f"{field}: must give one sample at a time, got a batch_sampler")
    return dataset


def _columns_and_size(dataset: Any, leaf: Any, field: str) -> tuple[list[str], int]:
    """Names of the columns, and number of samples in the source, whatever sampler there is."""
    from mindspore.dataset import SequentialSampler

    whole = copy.deepcopy(leaf)
    whole.sampler, whole.dataset_size = SequentialSampler(), None  # a size that is kept may be of an earlier sampler
    try:
        return dataset.get_col_names(), int(whole.get_dataset_size())
    except Exception as error:  # MindSpore's kinds are many
        raise InputError(f"{field}: must be a dataset that can be opened, got {one_line(error)}") from error


def _samples(sampler: Any, everything: NDArray[np.int64], field: str) -> NDArray[np.int64]:
    """Where in the source each sample of the dataset is, int64 (n,)."""
    from mindspore.dataset import RandomSampler

    # Where nothing is said, or shuffle=True: all samples in random order.
    by_default = type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples is None
    samples = everything if by_default and sampler.child_sampler is None else _sampled(sampler, everything, field)
    values, counts = np.unique(samples, return_counts=True)
    if not len(samples) or counts.max() > 1:  # MindSpore itself crashes on an empty list
        got = f"sample {values[counts.argmax()]} {counts.max()} times" if len(samples) else "none"
        raise InputError(f"{field}: sampler must give at least one sample, and each once, got {got}")
    return samples


def _sampled(sampler: Any, everything: NDArray[np.int64], field: str) -> NDArray[np.int64]:
    """What a sampler gives of its child's output, or of everything."""
    from mindspore.dataset import SequentialSampler, SubsetSampler

    child = sampler.child_sampler
    below = everything if child is None else _sampled(child, everything, field)
    if type(sampler) is SequentialSampler:
        return below[sampler.start_index or 0 :][: sampler.num_samples or None]  # MindSpore takes 0 for all
    if type(sampler) is not SubsetSampler:
        rule = "sampler must have a fixed order: SequentialSampler (shuffle=False), SubsetSampler or a list of indices"
        raise InputError(f"{field}: {rule}, got {type(sampler).__name__}")
    index = np.array(sampler.indices[: sampler.num_samples], dtype=np.int64)
    outside = index[(index < 0) | (index >= len(below))]
    if len(outside):
        raise InputError(f"{field}: sampler must have indices from 0 to {len(below) - 1}, got {outside[0]}")
    return below[index]
