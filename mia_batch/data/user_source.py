"""Samples of a user's own source, read by index and checked one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mia_batch.errors import InputError, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """One split of a user's source: how many samples, labels known without reading them, and how to read.

    `column` gives what an attribute or a column of that name has for some samples.
    """

    size: int
    labels: Any
    read: Callable[[np.ndarray, list[str]], list[tuple[Any, Any]]]
    column: Callable[[np.ndarray, str], list[Any]]


OpenDataset = Callable[[Any, str], Rows]  # from a MindSpore dataset and its name for messages


class ObjectSource:
    """A user's factory: one random-access object or map-style MindSpore dataset per split.

    Args:
        build: called with a split's name when that split is first used.
        field: the factory's name, for messages.
        open_dataset: reads a MindSpore dataset.
    """

    def __init__(self, build: Callable[[str], Any], field: str, open_dataset: OpenDataset) -> None:
        self._build, self._open_dataset = build, open_dataset
        self._field = field
        self._splits: dict[str, Rows] = {}
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
        return self._labels(split, index, values)

    def read(self, split: str, index: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        pairs = self._read(self._open(split), index, ["image", "label"])
        images = [self._image(split, position, image) for position, (image, _) in zip(index, pairs, strict=True)]
        return images, self._labels(split, index, [label for _, label in pairs])

    def groups(self, split: str, index: np.ndarray, name: str) -> list[str]:
        """The names of the samples' groups, from the source's attribute or column `name`."""
        rows = self._open(split)
        values = self._reading(index, lambda: rows.column(index, name))
        return [self._group(split, position, value) for position, value in zip(index, values, strict=True)]

    def _open(self, split: str) -> Rows:
        if self._failure:
            raise self._failure
        if split not in self._splits:
            try:
                field = f"{self._field}(split={split!r})"
                self._splits[split] = _open_rows(self._build(split), field, self._open_dataset)
            except InputError as error:
                self._failure = error
                raise
        return self._splits[split]

    def _read(self, rows: Rows, index: np.ndarray, columns: list[str]) -> list[tuple[Any, Any]]:
        return self._reading(index, lambda: rows.read(index, columns))

    def _reading(self, index: np.ndarray, read: Callable[[], T]) -> T:
        try:
            return read()
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            shown = f"sample {index[0]}" if len(index) == 1 else f"samples {index[0]} to {index[-1]}"
            raise InputError(f"{self._field}: reading {shown} raised {one_line(error)}") from error

    def _labels(self, split: str, index: np.ndarray, values: list[Any]) -> np.ndarray:
        checked = [self._label(split, position, value) for position, value in zip(index, values, strict=True)]
        return np.array(checked, dtype=np.int32)

    def _label(self, split: str, position: int, value: Any) -> int:
        label = np.asarray(value)
        if label.size != 1 or label.dtype.kind not in "iu" or not 0 <= label.item() < 2**31:
            shown = f"{type(value).__name__} {value!r}" if label.size == 1 else f"shape {label.shape}"
            raise InputError(f"{self._field}: {split} sample {position}: label must be an integer >= 0, got {shown}")
        return int(label.item())

    def _group(self, split: str, position: int, value: Any) -> str:
        name = np.asarray(value)
        if name.size != 1 or name.dtype.kind not in "iuU" or not str(name.item()):
            shown = f"{type(value).__name__} {value!r}" if name.size == 1 else f"shape {name.shape}"
            rule = "group must be an integer or a word"
            raise InputError(f"{self._field}: {split} sample {position}: {rule}, got {shown}")
        return str(name.item())

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


def _open_rows(rows: Any, field: str, open_dataset: OpenDataset) -> Rows:
    if hasattr(rows, "create_dict_iterator"):
        return open_dataset(rows, field)
    if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        rule = "must return a map-style MindSpore dataset or an object with __len__ and __getitem__"
        raise InputError(f"{field}: {rule}, got {type(rows).__name__}")
    size = len(rows)
    labels = next((found for name in ("labels", "targets") if (found := getattr(rows, name, None)) is not None), None)
    if labels is not None and (not hasattr(labels, "__len__") or len(labels) != size):
        raise InputError(f"{field}: labels or targets must have one entry per sample, {size}")

    def read(index: np.ndarray, _columns: list[str]) -> list[tuple[Any, Any]]:
        return [_pair(rows[int(position)], f"{field}[{position}]") for position in index]

    def column(index: np.ndarray, name: str) -> list[Any]:
        if (values := getattr(rows, name, None)) is None:
            return [_entry(rows[int(position)], name, f"{field}[{position}]") for position in index]
        if not hasattr(values, "__len__") or len(values) != size:
            raise InputError(f"{field}: {name} must have one entry per sample, {size}")
        return [values[int(position)] for position in index]

    return Rows(size, labels, read, column)


def _entry(item: Any, name: str, field: str) -> Any:
    if isinstance(item, dict) and name in item:
        return item[name]
    shown = f"a dictionary of {', '.join(map(str, item))}" if isinstance(item, dict) else type(item).__name__
    raise InputError(f"data.group: {name}: must be an attribute of the source or a key of {field}, got {shown}")


def _pair(item: Any, field: str) -> tuple[Any, Any]:
    if isinstance(item, dict) and {"image", "label"} <= item.keys():
        return item["image"], item["label"]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    shown = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
    raise InputError(f"{field}: must be (image, label), got {shown}")
