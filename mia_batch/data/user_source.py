"""Samples of a user's own source, read by index and checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

import numpy as np

from mia_batch.data.forms import Form, Refuse, Sample, as_sample
from mia_batch.errors import InputError, one_line
from mia_batch.inputs import Inputs
from mia_batch.settings.schema import DataConfig

T = TypeVar("T")
ADVICE = "; a regression has no classes to be audited by: import its losses (data.source: outputs)"


@dataclass(frozen=True)
class SplitReader:
    """One split of a user's source: how many samples, labels known without reading them, and how to read.

    `read` gives the input and the label of samples, one by one; the inputs may be None where they are not wanted.
    `column` gives what an attribute or a column of that name has for some samples.
    """

    size: int
    labels: Any
    read: Callable[[np.ndarray, bool], Iterable[tuple[Any, Any]]]
    column: Callable[[np.ndarray, str], list[Any]]


# From a MindSpore dataset, its name for messages, and which of its columns are what.
OpenDataset = Callable[[Any, str, "InputNames"], SplitReader]


@dataclass(frozen=True)
class InputNames:
    """Which names of a sample are its inputs and its label.

    Attributes:
        inputs: None for `image`, or for the one name that is left.
        label: of the true class.
        group: of the declared group, which is no input.
    """

    inputs: str | tuple[str, ...] | None = None
    label: str = "label"
    group: str | None = None

    @staticmethod
    def of(data: DataConfig) -> InputNames:
        """The names that the section `data` of a configuration gives."""
        group = data.group if isinstance(data.group, str) else None
        if data.columns is None:
            return InputNames(group=group)
        named = data.columns.named()
        return InputNames(named if len(named) > 1 else next(iter(named), None), data.columns.label, group)

    def choose(self, there: Collection[str], field: str) -> str | tuple[str, ...]:
        """The name of the one input, or the names of several in the network's order.

        Args:
            there: the names that there are.
            field: who has them, for messages.

        Raises:
            InputError: one that is not there, or several that may be meant.
        """
        wanted = self.inputs
        if wanted is None:
            others = [name for name in there if name not in (self.label, self.group)]
            wanted = others[0] if "image" not in there and len(others) == 1 else "image"
        names = (wanted,) if isinstance(wanted, str) else wanted
        missing = [name for name in (*names, self.label) if name not in there]
        if missing:
            advice = "" if self.inputs else "; data.columns says which are taken: {inputs: [NAME, ...], label: NAME}"
            rule = f"must have columns {', '.join(names)} and {self.label}"
            raise InputError(f"{field}: {rule}, got {', '.join(map(str, there)) or 'none'}{advice}")
        return wanted


class ObjectSource:
    """A user's factory: one random-access object or map-style MindSpore dataset per split.

    Args:
        build: called with a split's name when that split is first used.
        field: the factory's name, for messages.
        open_dataset: reads a MindSpore dataset.
        columns: which of a sample's names are what.
        image: whether a sample's input must be an image.
    """

    def __init__(
        self, build: Callable[[str], Any], field: str, open_dataset: OpenDataset, columns: InputNames, *,
        image: bool = True,
    ) -> None:  # fmt: skip
        self._build, self._open_dataset = build, open_dataset
        self._field, self._columns, self._image = field, columns, image
        self._splits: dict[str, SplitReader] = {}
        self._failure: InputError | None = None  # a function that has failed is not called again for another split

    def size(self, split: str) -> int:
        return self._open(split).size

    def labels(self, split: str, index: np.ndarray) -> np.ndarray:
        rows = self._open(split)

        def read(position: int) -> list[int]:
            # One at a time: an input that comes with its label is dropped again, so memory stays flat.
            one = np.array([position])
            return [self._label(split, position, label) for _, label in rows.read(one, False)]

        if rows.labels is not None:
            found = [self._label(split, position, rows.labels[position]) for position in index]
        else:
            found = [label for position in index for label in self._reading([position], partial(read, position))]
        return np.array(found, dtype=np.int32)

    def read(self, split: str, index: np.ndarray, form: Form | None = None) -> tuple[Inputs, np.ndarray]:
        rows = self._open(split)

        def read() -> list[tuple[Sample, int]]:
            pairs = zip(index, rows.read(index, True), strict=True)
            return [
                (self._sample(split, position, value), self._label(split, position, label))
                for position, (value, label) in pairs
            ]

        samples, labels = zip(*self._reading(index, read), strict=True)
        held = form or Form.of(samples[0])
        for position, sample in zip(index, samples, strict=True):
            held.check(sample, self._refusal(split, position))
        columns = tuple(list(column) for column in zip(*(sample.arrays for sample in samples), strict=True))
        return Inputs(held.kind, held.names, columns), np.array(labels, dtype=np.int32)

    def groups(self, split: str, index: np.ndarray, name: str) -> list[str]:
        """The names of the samples' groups, from the source's attribute or column `name`."""
        rows = self._open(split)
        values = self._reading(index, lambda: rows.column(index, name))
        return [self._group(split, position, value) for position, value in zip(index, values, strict=True)]

    def _open(self, split: str) -> SplitReader:
        if self._failure:
            raise self._failure
        if split not in self._splits:
            try:
                field = f"{self._field}(split={split!r})"
                self._splits[split] = _open_split(self._build(split), field, self._open_dataset, self._columns)
            except InputError as error:
                self._failure = error
                raise
        return self._splits[split]

    def _reading(self, index: Sequence[int] | np.ndarray, read: Callable[[], T]) -> T:
        try:
            return read()
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            shown = f"sample {index[0]}" if len(index) == 1 else f"samples {index[0]} to {index[-1]}"
            raise InputError(f"{self._field}: reading {shown} raised {one_line(error)}") from error

    def _refusal(self, split: str, position: int) -> Refuse:
        """What names the sample in a message."""

        def refuse(rule: str, got: Any) -> NoReturn:
            raise InputError(f"{self._field}: {split} sample {position}: {rule}, got {got}")

        return refuse

    def _sample(self, split: str, position: int, value: Any) -> Sample:
        names = self._columns.inputs if isinstance(self._columns.inputs, tuple) else ()
        return as_sample(value, self._refusal(split, position), image=self._image, names=names)

    def _label(self, split: str, position: int, value: Any) -> int:
        label = np.asarray(value)
        if label.size != 1 or label.dtype.kind not in "iu" or not 0 <= label.item() < 2**31:
            shown = f"{type(value).__name__} {value!r}" if label.size == 1 else f"shape {label.shape}"
            advice = ADVICE if label.dtype.kind == "f" else ""
            self._refusal(split, position)("label must be an integer >= 0", shown + advice)
        return int(label.item())

    def _group(self, split: str, position: int, value: Any) -> str:
        name = np.asarray(value)
        if name.size != 1 or name.dtype.kind not in "iuU" or not str(name.item()):
            shown = f"{type(value).__name__} {value!r}" if name.size == 1 else f"shape {name.shape}"
            self._refusal(split, position)("group must be an integer or a word", shown)
        return str(name.item())


def _open_split(rows: Any, field: str, open_dataset: OpenDataset, columns: InputNames) -> SplitReader:
    if hasattr(rows, "create_dict_iterator"):
        return open_dataset(rows, field, columns)
    if not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        rule = "must return a map-style MindSpore dataset or an object with __len__ and __getitem__"
        raise InputError(f"{field}: {rule}, got {type(rows).__name__}")
    size = len(rows)
    labels = next((found for name in ("labels", "targets") if (found := getattr(rows, name, None)) is not None), None)
    if labels is not None and (not hasattr(labels, "__len__") or len(labels) != size):
        raise InputError(f"{field}: labels or targets must have one entry per sample, {size}")

    def read(index: np.ndarray, _inputs: bool) -> Iterator[tuple[Any, Any]]:
        return (_pair(rows[int(position)], f"{field}[{position}]", columns) for position in index)

    def column(index: np.ndarray, name: str) -> list[Any]:
        if (values := getattr(rows, name, None)) is None:
            return [_entry(rows[int(position)], name, f"{field}[{position}]") for position in index]
        if not hasattr(values, "__len__") or len(values) != size:
            raise InputError(f"{field}: {name} must have one entry per sample, {size}")
        return [values[int(position)] for position in index]

    return SplitReader(size, labels, read, column)


def _entry(item: Any, name: str, field: str) -> Any:
    if isinstance(item, dict) and name in item:
        return item[name]
    shown = f"a dictionary of {', '.join(map(str, item))}" if isinstance(item, dict) else type(item).__name__
    raise InputError(f"data.group: {name}: must be an attribute of the source or a key of {field}, got {shown}")


def _pair(item: Any, field: str, columns: InputNames) -> tuple[Any, Any]:
    """Input and label of a source's item."""
    if isinstance(item, dict):
        return pick(item, columns.choose(item, field)), item[columns.label]
    if columns.inputs is not None:
        rule = "must be a dictionary where data.columns names its entries"
        raise InputError(f"{field}: {rule}, got {type(item).__name__}")
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    shown = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
    raise InputError(f"{field}: must be (input, label), several arrays in one tuple, or a dictionary, got {shown}")


def pick(row: Mapping[str, Any], names: str | tuple[str, ...]) -> Any:
    """One entry of a row, or a tuple of several."""
    return row[names] if isinstance(names, str) else tuple(row[name] for name in names)
