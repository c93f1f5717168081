"""Which samples are members and which are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from mia_batch.data.forms import Form, Sample, check_channels, padded_form
from mia_batch.data.groups import declared_groups
from mia_batch.data.index_files import read_indices
from mia_batch.data.records import SPLITS, RecordSource
from mia_batch.data.sources import Source
from mia_batch.errors import InputError, did_you_mean
from mia_batch.inputs import HASH_BYTES, NO_GROUP, Column, Inputs, content_of
from mia_batch.settings.schema import DataConfig, SampleBlock

HASHED_TOGETHER = 1024  # records whose images are in memory
READ_TOGETHER = 16  # samples of a user's source, of any size


@dataclass(frozen=True)
class Selection:
    """The samples of an audit: members first, then non-members, each in the order configured.

    Attributes:
        sample_index: position within the split, int64 (N,).
        split: name of the split, str (N,).
        label: true class, int32 (N,).
        member: 1 for members, 0 for non-members, int8 (N,).
        group: number of the declared group, `NO_GROUP` without one, int64 (N,).
        group_name: its name, "" without one, str (N,); None for none at all.
    """

    sample_index: np.ndarray
    split: np.ndarray
    label: np.ndarray
    member: np.ndarray
    group: np.ndarray
    group_name: np.ndarray | None = None

    def __post_init__(self) -> None:
        kinds = {"sample_index": np.int64, "label": np.int32, "member": np.int8, "group": np.int64}
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        names = np.full(len(self.group), "") if self.group_name is None else self.group_name
        for name, texts in (("split", self.split), ("group_name", names)):
            object.__setattr__(self, name, np.asarray(texts, dtype=np.str_))
        shapes = {getattr(self, name).shape for name in (*kinds, "split", "group_name")}
        if len(shapes) != 1 or self.sample_index.ndim != 1:
            raise ValueError(f"split, {', '.join(kinds)} must be 1-D of one length, got shapes {shapes}")

    def __len__(self) -> int:
        return len(self.sample_index)

    def describe(self, row: int) -> str:
        """The sample of a row, for messages."""
        return f"{self.split[row]} sample {self.sample_index[row]}"

    def rows(self, part: slice) -> Selection:
        """Some of the samples, as a selection of their own."""
        return Selection(*(getattr(self, field.name)[part] for field in fields(self)))


def select(data: DataConfig, source: Source) -> Selection:
    """The members and non-members of `data`.

    Args:
        data: the configuration.
        source: of `data`.

    Raises:
        InputError: a block outside its split, a bad index file, a sample given twice, or on both sides, or groups that
            cannot be read.
    """
    sides: list[Side] = []
    problems: list[str] = []
    for field, chosen in (("data.members", data.members), ("data.nonmembers", data.nonmembers)):
        try:
            sides.append(select_side(chosen, field, source))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(dict.fromkeys(problems))
    _check_disjoint(*sides)
    selection = gather(sides[0], sides[1], source)
    canaries(data.canaries, selection.split, selection.sample_index)
    group, name = declared_groups(data, [*sides[0], *sides[1]], source)
    return replace(selection, group=group, group_name=name)


def contents(selection: Selection, source: Source, form: Form | None = None) -> np.ndarray:
    """Hash of each sample's input, uint8 (N, HASH_BYTES), as extract stores it.

    Args:
        selection: the samples.
        source: of the selection.
        form: what every sample must have; None for what the first of each block of them has.
    """
    together = HASHED_TOGETHER if isinstance(source, RecordSource) else READ_TOGETHER
    found = np.empty((len(selection), HASH_BYTES), np.uint8)
    for split in np.unique(selection.split):
        rows = np.flatnonzero(selection.split == split)
        for part in np.array_split(rows, -(-len(rows) // together)):
            found[part] = content_of(source.read(str(split), selection.sample_index[part], form)[0])
    return found


def canaries(blocks: Sequence[SampleBlock], split: np.ndarray, sample_index: np.ndarray) -> np.ndarray:
    """Which samples the blocks of `data.canaries` name, bool (n_samples,).

    All of them must be members or non-members: one that left some out could choose which coins count.

    Args:
        blocks: of the configuration; one without a choice means all of its split that are there.
        split: of each sample, (n_samples,).
        sample_index: position in its split, (n_samples,).

    Raises:
        InputError: a bad index file, or a canary that is neither.
    """
    found = np.zeros(len(split), dtype=bool)
    for i, block in enumerate(blocks):
        there = split == block.split
        if block.indices:
            wanted = read_indices(block.indices)
        elif block.range or block.num_samples:
            wanted = np.arange(*(block.range or (0, block.num_samples)))
        else:
            wanted = sample_index[there]
        missing = np.setdiff1d(wanted, sample_index[there])
        if len(missing) or not len(wanted):
            what = f", got {len(missing)} that are neither, the first {missing[0]}" if len(missing) else ", got none"
            raise InputError(f"data.canaries[{i}]: must be members or non-members of split {block.split!r}{what}")
        found |= there & np.isin(sample_index, wanted)
    return found


Side = list[tuple[str, np.ndarray]]


def select_side(blocks: Sequence[SampleBlock], field: str, source: Source) -> Side:
    """(split, indices int64 (n,)) of each block of one side.

    Raises:
        InputError: a block outside its split, a bad index file, or a sample given twice.
    """
    side: Side = []
    for number, block in enumerate(blocks):
        where = field if len(blocks) == 1 else f"{field}[{number}]"
        if isinstance(source, RecordSource) and block.split not in SPLITS:
            near = did_you_mean(block.split, SPLITS)
            raise InputError(f"{where}: split must be one of {', '.join(SPLITS)}, got {block.split!r}{near}")
        side.append((block.split, _block_index(block, where, source.size(block.split))))
    _check_once(side, field)
    return side


def _block_index(block: SampleBlock, field: str, size: int) -> np.ndarray:
    """Indices of a block, int64 (n,), each within the split's `size`."""
    if block.indices is not None:
        index = read_indices(block.indices)
        _check_range(block.indices, index, size, block.split)
        return index
    first, end = block.range or (0, block.num_samples or size)
    if end > size:
        given = f"range: {list(block.range)}" if block.range else f"num_samples: {block.num_samples}"
        raise InputError(f"{field}: must stay within split {block.split!r} of {size} samples, got {given}")
    return np.arange(first, end, dtype=np.int64)


def _check_range(path: Path, index: np.ndarray, size: int, split: str) -> None:
    outside = np.flatnonzero(index >= size)
    if len(outside):
        bad = outside[0]
        raise InputError(
            f"{path}: entry {bad} (from 0): index must be below {size}, the size of split {split!r}, got {index[bad]}"
            + (f" ({len(outside)} such)" if len(outside) > 1 else "")
        )


def gather(members: Side, nonmembers: Side, source: Source) -> Selection:
    """The samples of both sides, with their labels and without groups."""
    pairs = [*members, *nonmembers]
    sizes = [sum(len(index) for _, index in side) for side in (members, nonmembers)]
    return Selection(
        sample_index=np.concatenate([index for _, index in pairs]),
        split=np.concatenate([np.full(len(index), split) for split, index in pairs]),
        label=np.concatenate([source.labels(split, index) for split, index in pairs]),
        member=np.repeat([1, 0], sizes),
        group=np.full(sum(sizes), NO_GROUP),
    )


def _by_split(side: Side) -> dict[str, np.ndarray]:
    splits = {split: [index for other, index in side if other == split] for split, _ in side}
    return {split: np.concatenate(parts) for split, parts in splits.items()}


def _check_once(side: Side, field: str) -> None:
    for split, index in _by_split(side).items():
        values, counts = np.unique(index, return_counts=True)
        repeated = values[counts > 1]
        if len(repeated):
            what = f"{len(repeated)} of split {split!r} twice, the first {repeated[0]}"
            raise InputError(f"{field}: must give each sample once, got {what}")


def _check_disjoint(members: Side, nonmembers: Side) -> None:
    others = _by_split(nonmembers)
    for split, index in _by_split(members).items():
        both = np.intersect1d(index, others.get(split, np.empty(0, np.int64)))
        if len(both):
            what = f"{len(both)} samples of split {split!r} on both sides, the first {both[0]}"
            raise InputError(f"data.nonmembers: must not overlap data.members, got {what}")


def form_of(data: DataConfig, source: Source, selection: Selection) -> Form:
    """What every sample of an audit has: what its first sample has, and, where `data.pad` says so, padded.

    Without `data.pad_to`, this reads every sample, to find the largest.

    Args:
        data: the configuration.
        source: of `data`.
        selection: of `data`.

    Raises:
        InputError: a sample that cannot be read, images of another number of channels than `data.mean`, or a padding
            that does not fit.
    """
    form = first_form(source, selection)
    if data.is_image:
        check_channels(form, data, f"{selection.split[0]} sample {selection.sample_index[0]}")
    return form if data.pad is None else padded_form(form, data, _shapes(form.of_any_length(), source, selection))


def first_form(source: Source, selection: Selection) -> Form:
    """Of the first sample."""
    inputs, _ = source.read(str(selection.split[0]), selection.sample_index[:1])
    return Form.of(Sample(inputs.kind, inputs.names, tuple(np.asarray(column[0]) for column in inputs.columns)))


def _shapes(form: Form, source: Source, selection: Selection) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(selection), READ_TOGETHER):
        rows = np.arange(start, min(start + READ_TOGETHER, len(selection)))
        for sample in zip(*read_inputs(source, selection, rows, form).columns, strict=True):
            yield [array.shape for array in sample]


def read_inputs(source: Source, selection: Selection, rows: np.ndarray, form: Form | None = None) -> Inputs:
    """The inputs of the rows, at least one, in their order.

    Args:
        source: of the selection.
        selection: what row numbers mean.
        rows: row numbers wanted.
        form: what every sample must have; None for what the first of each split has.

    Raises:
        InputError: a sample cannot be read, is of another form, or comes with another label than the selection has:
            `labels` or `targets` may lack a transform of the label, and a label may depend on time or chance.
    """
    splits = selection.split[rows]
    if (splits == splits[0]).all():
        return _read_split(source, selection, rows, form)
    places = [np.flatnonzero(splits == split) for split in np.unique(splits)]
    parts = [_read_split(source, selection, rows[chosen], form) for chosen in places]
    order = np.argsort(np.concatenate(places), kind="stable")
    columns = tuple(_in_order(columns, order) for columns in zip(*(part.columns for part in parts), strict=True))
    return replace(parts[0], columns=columns)


def _in_order(columns: Sequence[Column], order: np.ndarray) -> Column:
    arrays = [array for column in columns for array in column]
    return [arrays[place] for place in order]


def _read_split(source: Source, selection: Selection, rows: np.ndarray, form: Form | None) -> Inputs:
    split, index, known = str(selection.split[rows[0]]), selection.sample_index[rows], selection.label[rows]
    inputs, labels = source.read(split, index, form)
    other = np.flatnonzero(labels != known)
    if len(other):
        first = other[0]
        rule = "the label read with the input must equal the one in labels or targets, or read alone"
        raise InputError(
            f"data.source: {split} sample {index[first]}: {rule}, got {labels[first]} and {known[first]}"
        )
    return inputs
