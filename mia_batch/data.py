"""Samples by index: CIFAR records, a user's own source, and who is a member. Pure numpy."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mia_batch import factory
from mia_batch.config import DataConfig, SampleBlock
from mia_batch.errors import InputError
from mia_batch.provenance import sha256

SPLITS = ("train", "test")
SIDE = 32  # pixels of a record's image, each way
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class RecordFormat:
    """Layout of a binary record: label bytes, then 3,072 bytes of pixels, channel-major.

    Attributes:
        name: as in `data.source`.
        labels: name of each label byte and how many classes it may have.
    """

    name: str
    labels: tuple[tuple[str, int], ...]

    @property
    def width(self) -> int:
        """Bytes of a record."""
        return len(self.labels) + PIXELS


FORMATS = {
    "cifar100": RecordFormat("cifar100", (("coarse", 20), ("fine", 100))),
    "cifar10": RecordFormat("cifar10", (("fine", 10),)),
}


Images = np.ndarray | list[np.ndarray]


class Source(Protocol):
    """Samples of named splits, read by index."""

    def size(self, split: str) -> int:
        """Number of samples in `split`."""

    def labels(self, split: str, index: np.ndarray) -> np.ndarray:
        """Labels of the samples at `index`, int32 (n,)."""

    def images(self, split: str, index: np.ndarray) -> Images:
        """Images of the samples at `index`: n arrays (H, W, 3), uint8, or float in the same range 0 to 255."""


@dataclass(frozen=True)
class Selection:
    """The samples of an audit: members first, then non-members, each in the order configured.

    Attributes:
        sample_index: position within the split, int64 (N,).
        split: name of the split, str (N,).
        label: true class, int32 (N,).
        member: 1 for members, 0 for non-members, int8 (N,).
    """

    sample_index: np.ndarray
    split: np.ndarray
    label: np.ndarray
    member: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in (("sample_index", np.int64), ("label", np.int32), ("member", np.int8)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        object.__setattr__(self, "split", np.asarray(self.split, dtype=np.str_))
        shapes = {getattr(self, name).shape for name in ("sample_index", "split", "label", "member")}
        if len(shapes) != 1 or self.sample_index.ndim != 1:
            raise ValueError(f"sample_index, split, label and member must be 1-D of one length, got shapes {shapes}")

    def __len__(self) -> int:
        return len(self.sample_index)

    def rows(self, part: slice) -> Selection:
        """Some of the samples, as a selection of their own."""
        return Selection(self.sample_index[part], self.split[part], self.label[part], self.member[part])


# --- records ---------------------------------------------------------------------------------------------------------


class RecordSource:
    """CIFAR records mapped from `train.bin` and `test.bin`, or CIFAR-10's batches, of any whole number of records.

    Files are checked when their split is first used: whole records, and every label within the format's range.

    Args:
        folder: of the layouts `train.bin, test.bin` or `train/train.bin, test/test.bin`.
        record_format: a value of `FORMATS`.
        label: "fine" or "coarse".
    """

    def __init__(self, folder: Path, record_format: RecordFormat, label: str = "fine") -> None:
        names = [name for name, _ in record_format.labels]
        if label not in names:
            raise InputError(f"data.label: {record_format.name} records have {', '.join(names)}, got {label!r}")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"data.path: must be the folder of the records, got the file {folder}")
        self.folder = folder
        self.format = record_format
        self.column = names.index(label)
        self._records: dict[str, tuple[np.ndarray, ...]] = {}

    def files(self, split: str) -> tuple[Path, ...]:
        """The files of `split`, in record order."""
        return _record_files(self.folder, self.format, split)

    def size(self, split: str) -> int:
        return sum(len(records) for records in self._open(split))

    def labels(self, split: str, index: np.ndarray) -> np.ndarray:
        return self._rows(split, index, slice(self.column, self.column + 1))[:, 0].astype(np.int32)

    def images(self, split: str, index: np.ndarray) -> np.ndarray:
        """Images of the samples at `index`: uint8 (n, 32, 32, 3), a channel-last view of channel-major bytes."""
        pixels = self._rows(split, index, slice(len(self.format.labels), None))
        return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)

    def _open(self, split: str) -> tuple[np.ndarray, ...]:
        if split not in self._records:
            self._records[split] = tuple(_map_records(path, self.format) for path in self.files(split))
        return self._records[split]

    def _rows(self, split: str, index: np.ndarray, columns: slice) -> np.ndarray:
        files = self._open(split)
        if len(files) == 1:
            return files[0][index, columns]
        starts = np.cumsum([0] + [len(records) for records in files])
        which = np.searchsorted(starts, index, side="right") - 1
        rows = np.empty((len(index), len(range(*columns.indices(self.format.width)))), np.uint8)
        for number in np.unique(which):
            chosen = which == number
            rows[chosen] = files[number][index[chosen] - starts[number], columns]
        return rows


def _record_files(folder: Path, record_format: RecordFormat, split: str) -> tuple[Path, ...]:
    if split not in SPLITS:
        raise InputError(f"data: split must be one of {', '.join(SPLITS)} for {record_format.name}, got {split!r}")
    choices: list[tuple[Path, ...]] = [(folder / f"{split}.bin",), (folder / split / f"{split}.bin",)]
    if record_format.name == "cifar10":
        choices += [_cifar10_batches(where, split) for where in (folder, folder / split)]
    found = [files for files in choices if files and files[0].exists()]
    if not found:
        wanted = " or ".join(str(files[0]) for files in choices if files)
        raise InputError(f"data.path: must hold the records of split {split!r}, {wanted}, got neither")
    if len(found) > 1:
        raise InputError(f"data.path: must hold split {split!r} once, got {found[0][0]} and {found[1][0]}")
    return found[0]


def _cifar10_batches(folder: Path, split: str) -> tuple[Path, ...]:
    """CIFAR-10's own file names; a gap in the numbers would shift every index after it."""
    if split == "test":
        return (folder / "test_batch.bin",)
    numbers = sorted(
        int(match[1]) for path in folder.glob("data_batch_*.bin") if (match := re.search(r"_(\d+)\.bin$", path.name))
    )
    if numbers and numbers != list(range(1, len(numbers) + 1)):
        raise InputError(f"{folder}: data_batch_N.bin must be numbered from 1 without a gap, got {numbers}")
    return tuple(folder / f"data_batch_{number}.bin" for number in numbers or (1,))


def _map_records(path: Path, record_format: RecordFormat) -> np.ndarray:
    """Map the records of a file, uint8 (n, width), with every label checked.

    Raises:
        InputError: not a file, not a whole number of records, none, or a label out of range.
    """
    width = record_format.width
    if path.is_dir():
        raise InputError(f"{path}: must be a file of {record_format.name} records, got a folder")
    try:
        size = path.stat().st_size
        if size == 0:
            raise InputError(f"{path}: must hold at least one record of {width} bytes, got an empty file")
        if size % width:
            raise InputError(_not_whole(path, size, record_format))
        records = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, width)
    except OSError as error:
        raise InputError(f"{path}: must be readable, got {error.strerror}") from error
    for column, (name, classes) in enumerate(record_format.labels):
        _check_column(path, np.asarray(records[:, column]), name, classes, record_format)
    return records


def _not_whole(path: Path, size: int, record_format: RecordFormat) -> str:
    line = (
        f"{path}: must be a whole number of {record_format.name} records of {record_format.width} bytes, "
        f"got {size} bytes ({size // record_format.width} records and {size % record_format.width} bytes)"
    )
    others = [other for other in FORMATS.values() if other is not record_format and size % other.width == 0]
    hints = [f"; it is {size // other.width} records of {other.name}" for other in others]
    return line + "".join(hints)


def _check_column(path: Path, labels: np.ndarray, name: str, classes: int, record_format: RecordFormat) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        others = " or ".join(other.name for other in FORMATS.values() if other is not record_format)
        raise InputError(
            f"{path}: record {wrong[0]}: {name} label must be 0 to {classes - 1}, got {labels[wrong[0]]} "
            f"({len(wrong)} of {len(labels)} records; damaged or shifted, or records of {others})"
        )


# --- a user's own source ---------------------------------------------------------------------------------------------


class ObjectSource:
    """A user's factory: one random-access object or map-style MindSpore dataset per split.

    Args:
        build: called with a split's name when that split is first used.
        field: the factory's name, for messages.
    """

    def __init__(self, build: Callable[[str], Any], field: str) -> None:
        self._build = build
        self._field = field
        self._splits: dict[str, _Rows] = {}
        self._failure: InputError | None = None  # a function that has failed is not called again for another split

    def size(self, split: str) -> int:
        return self._open(split).size

    def labels(self, split: str, index: np.ndarray) -> np.ndarray:
        rows = self._open(split)
        if rows.labels is not None:
            values = [rows.labels[position] for position in index]
        else:
            # One at a time: an image that comes with its label is dropped again, so memory stays flat.
            values = [label for position in index for _, label in self._read(rows, np.array([position]), ["label"])]
        checked = [self._label(split, position, value) for position, value in zip(index, values, strict=True)]
        return np.array(checked, dtype=np.int32)

    def images(self, split: str, index: np.ndarray) -> list[np.ndarray]:
        pairs = self._read(self._open(split), index, ["image", "label"])
        return [self._image(split, position, image) for position, (image, _) in zip(index, pairs, strict=True)]

    def _open(self, split: str) -> _Rows:
        if self._failure:
            raise self._failure
        if split not in self._splits:
            try:
                self._splits[split] = _open_rows(self._build(split), f"{self._field}(split={split!r})")
            except InputError as error:
                self._failure = error
                raise
        return self._splits[split]

    def _read(self, rows: _Rows, index: np.ndarray, columns: list[str]) -> list[tuple[Any, Any]]:
        try:
            return rows.read(index, columns)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            shown = f"sample {index[0]}" if len(index) == 1 else f"samples {index[0]} to {index[-1]}"
            raise InputError(f"{self._field}: reading {shown} raised {factory.one_line(error)}") from error

    def _label(self, split: str, position: int, value: Any) -> int:
        label = np.asarray(value)
        if label.size != 1 or label.dtype.kind not in "iu" or not 0 <= label.item() < 2**31:
            shown = f"{type(value).__name__} {value!r}" if label.size == 1 else f"shape {label.shape}"
            raise InputError(f"{self._field}: {split} sample {position}: label must be an integer >= 0, got {shown}")
        return int(label.item())

    def _image(self, split: str, position: int, value: Any) -> np.ndarray:
        image = np.asarray(value)
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype.kind not in "uf":
            rule = "image must be (height, width, 3) of uint8, or of floats from 0 to 255"
            got = f"{image.dtype} of shape {image.shape}"
        elif image.dtype.kind == "u" and image.dtype != np.uint8:
            rule, got = "image must be uint8 or float", str(image.dtype)
        elif image.dtype.kind == "f" and not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255):
            rule, got = "float pixels must be 0 to 255", f"{image.min()} to {image.max()}"
        elif image.dtype.kind == "f" and image.max() <= 1 and (image % 1 != 0).any():
            rule, got = "float pixels must be 0 to 255, not 0 to 1", f"{image.min()} to {image.max()}"
        else:
            return image if image.dtype == np.uint8 else image.astype(np.float32)
        raise InputError(f"{self._field}: {split} sample {position}: {rule}, got {got}")


@dataclass(frozen=True)
class _Rows:
    """One split of a user's source: how many samples, labels known without reading them, and how to read."""

    size: int
    labels: Any
    read: Callable[[np.ndarray, list[str]], list[tuple[Any, Any]]]


def _open_rows(rows: Any, field: str) -> _Rows:
    if hasattr(rows, "create_dict_iterator"):
        return _open_dataset(rows, field)
    if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        rule = "must return a map-style MindSpore dataset or an object with __len__ and __getitem__"
        raise InputError(f"{field}: {rule}, got {type(rows).__name__}")
    size = len(rows)
    labels = next((found for name in ("labels", "targets") if (found := getattr(rows, name, None)) is not None), None)
    if labels is not None and (not hasattr(labels, "__len__") or len(labels) != size):
        raise InputError(f"{field}: labels or targets must have one entry per sample, {size}")

    def read(index: np.ndarray, _columns: list[str]) -> list[tuple[Any, Any]]:
        return [_pair(rows[int(position)], f"{field}[{position}]") for position in index]

    return _Rows(size, labels, read)


def _pair(item: Any, field: str) -> tuple[Any, Any]:
    if isinstance(item, dict) and {"image", "label"} <= item.keys():
        return item["image"], item["label"]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    shown = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
    raise InputError(f"{field}: must be (image, label), got {shown}")


ONE_TO_ONE = ("MapDataset", "RenameDataset", "ProjectDataset")  # nodes that keep the source's order and number


def _open_dataset(dataset: Any, field: str) -> _Rows:
    """Read a MindSpore dataset by index: a copy of its pipeline gets a sampler of just the wanted indices."""
    leaf = _leaf(dataset, field)
    if leaf.is_sharded():
        raise InputError(f"{field}: must not be sharded: ranks are given their samples by index")
    missing = {"image", "label"} - set(dataset.get_col_names())
    if missing:
        raise InputError(f"{field}: must have columns image and label, got {', '.join(dataset.get_col_names())}")
    subset_sampler = sys.modules["mindspore.dataset"].SubsetSampler  # there, since the dataset is

    def read(index: np.ndarray, columns: list[str]) -> list[tuple[Any, Any]]:
        some = copy.deepcopy(dataset)  # the pipeline's nodes, not the source's data
        _leaf(some, field).use_sampler(subset_sampler([int(position) for position in index]))
        rows = list(some.project(columns).create_dict_iterator(num_epochs=1, output_numpy=True))
        if len(rows) != len(index):
            raise InputError(f"{field}: must give one row per sample, got {len(rows)} for {len(index)} indices")
        return [(row.get("image"), row["label"]) for row in rows]

    return _Rows(int(dataset.get_dataset_size()), None, read)


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


# --- selection -------------------------------------------------------------------------------------------------------


def open_source(data: DataConfig) -> Source:
    """The samples that `data` names. Files are opened when a split is first used.

    Raises:
        InputError: the folder or the factory cannot be used.
    """
    if data.source in FORMATS:
        if data.path is None:
            raise InputError(f"data.path: is required for source {data.source}")
        return RecordSource(data.path, FORMATS[data.source], data.label)
    optional = {} if data.path is None else {"path": data.path}

    def build(split: str) -> Any:
        return factory.call(data.source, "data.source", {"split": split, **optional, **data.kwargs})

    return ObjectSource(build, data.source)


def select(data: DataConfig, source: Source | None = None) -> Selection:
    """The members and non-members of `data`.

    Args:
        data: the configuration.
        source: what `open_source(data)` gave, where the caller has it already.

    Raises:
        InputError: a block outside its split, a bad index file, a sample given twice, or on both sides.
    """
    source = source or open_source(data)
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
    return gather(sides[0], sides[1], source)


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
            raise InputError(f"{where}: split must be one of {', '.join(SPLITS)}, got {block.split!r}")
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


def read_indices(path: Path) -> np.ndarray:
    """Read sample indices, int64 (n,): a `.npy` of 1-D integers, or text with one integer a line (`#` comments).

    Raises:
        InputError: unreadable, empty, not integers, negative, or one given twice; with the position.
    """
    if path.is_dir():
        raise InputError(f"{path}: must be a file of indices, got a folder")
    try:
        index, positions = _read_npy(path) if path.suffix == ".npy" else _read_text(path)
    except OSError as error:
        raise InputError(f"{path}: must be a readable file of indices, got {error.strerror or error}") from error
    if len(index) == 0:
        raise InputError(f"{path}: must hold at least one index, got none")
    if index.min() < 0:
        bad = int(np.argmax(index < 0))
        raise InputError(f"{path}: {positions(bad)}: index must be >= 0, got {index[bad]}")
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(len(index)))
    if len(repeated):
        bad = int(repeated[0])
        count = f"{len(repeated)} repeated" if len(repeated) > 1 else f"first at {positions(int(first[inverse[bad]]))}"
        raise InputError(f"{path}: {positions(bad)}: each index must be given once, got {index[bad]} again ({count})")
    return index


_Positions = Callable[[int], str]


def _read_npy(path: Path) -> tuple[np.ndarray, _Positions]:
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)  # a header that promises too much takes no memory
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: must be a .npy file of integers, got {factory.one_line(error)}") from error
    if not isinstance(index, np.ndarray) or index.ndim != 1 or index.dtype.kind not in "iu":
        shown = f"{index.dtype} of shape {index.shape}" if isinstance(index, np.ndarray) else type(index).__name__
        hint = "; numpy.flatnonzero turns a mask into indices" if shown.startswith("bool") else ""
        raise InputError(f"{path}: must be a 1-D array of integers, got {shown}{hint}")
    if len(index) and int(index.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{path}: indices must be below 2**63, got {index.max()}")
    return index.astype(np.int64), lambda position: f"entry {position}"


def _read_text(path: Path) -> tuple[np.ndarray, _Positions]:
    values: list[int] = []
    lines: list[int] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be text with one integer a line, or .npy, got other bytes") from error
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.split("#", 1)[0].strip()
        if not word:
            continue
        if not re.fullmatch(r"[+-]?\d{1,18}", word):
            raise InputError(f"{path}: line {number}: must be one integer, got {word[:40]!r}")
        values.append(int(word))
        lines.append(number)
    return np.array(values, dtype=np.int64), lambda position: f"line {lines[position]}"


def _check_range(path: Path, index: np.ndarray, size: int, split: str) -> None:
    outside = np.flatnonzero(index >= size)
    if len(outside):
        bad = outside[0]
        raise InputError(
            f"{path}: entry {bad} (from 0): index must be below {size}, the size of split {split!r}, got {index[bad]}"
            + (f" ({len(outside)} such)" if len(outside) > 1 else "")
        )


def gather(members: Side, nonmembers: Side, source: Source) -> Selection:
    """The samples of both sides, with their labels."""
    pairs = [*members, *nonmembers]
    return Selection(
        sample_index=np.concatenate([index for _, index in pairs]),
        split=np.concatenate([np.full(len(index), split) for split, index in pairs]),
        label=np.concatenate([source.labels(split, index) for split, index in pairs]),
        member=np.repeat([1, 0], [sum(len(index) for _, index in side) for side in (members, nonmembers)]),
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


# --- provenance ------------------------------------------------------------------------------------------------------


def data_digests(data: DataConfig) -> dict[str, str]:
    """SHA-256 of the files that hold the samples: the record files of the splits in use, or a source's single file.

    Keys do not depend on where the folder is: "train.bin", "path". A user's folder of images is not read for this.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    if data.path is None or (data.source not in FORMATS and not data.path.is_file()):
        return {}
    if data.source not in FORMATS:
        return {"path": sha256(data.path)}
    source = RecordSource(data.path, FORMATS[data.source], data.label)
    splits = sorted({block.split for block in (*data.members, *data.nonmembers)})
    files = [file for split in splits for file in source.files(split)]
    return {file.relative_to(data.path).as_posix(): sha256(file) for file in files}
