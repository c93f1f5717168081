"""CIFAR records, mapped from their files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mia_batch.data.forms import Form
from mia_batch.errors import InputError, did_you_mean
from mia_batch.files import open_bytes
from mia_batch.inputs import Inputs
from mia_batch.settings.schema import SOURCES

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


LABELS = {"cifar100": (("coarse", 20), ("fine", 100)), "cifar10": (("fine", 10),)}
FORMATS = {name: RecordFormat(name, LABELS[name]) for name in SOURCES}


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

    def read(self, split: str, index: np.ndarray, form: Form | None = None) -> tuple[Inputs, np.ndarray]:
        """Images, uint8 (n, 32, 32, 3), a channel-last view of channel-major bytes, and labels, int32 (n,).

        Any of them are of the same form.
        """
        pixels = self._rows(split, index, slice(len(self.format.labels), None))
        images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return Inputs("image", ("image",), (images,)), self.labels(split, index)

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
        rule = f"split must be one of {', '.join(SPLITS)} for {record_format.name}"
        raise InputError(f"data: {rule}, got {split!r}{did_you_mean(split, SPLITS)}")
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
    try:
        with open_bytes(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{path}: must hold at least one record of {width} bytes, got an empty file")
            if size % width:
                raise InputError(_not_whole(path, size, record_format))
            records = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, width)
    except IsADirectoryError:
        raise InputError(f"{path}: must be a file of {record_format.name} records, got a folder") from None
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
