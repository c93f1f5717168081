"""What every sample of an audit has: which arrays, and the shape and type of each. The first sample sets it for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.inputs import Column, Inputs
from mia_batch.settings.schema import DataConfig

INPUT = "input"  # what messages call an array without a name
TYPES = "bool, integers, float16, float32 or float64"
Refuse = Callable[[str, Any], NoReturn]  # rule, what was given instead
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Sample:
    """One sample's input, as its source gives it.

    Attributes:
        kind: what the input is, as `Inputs.kind` says it.
        names: a name for each array; those of a dictionary are its keys, ascending.
        arrays: an array of any shape for each name, in the machine's byte order; none shares memory with the source.
    """

    kind: str
    names: tuple[str, ...]
    arrays: Arrays


@dataclass(frozen=True)
class ArrayForm:
    """One array of every sample.

    Attributes:
        name: for messages, and a dictionary's key.
        dtype: numpy's name of the type, such as "int64".
        shape: length of each axis, after padding; None where any will do.
        first: shape that the array has in the first sample, before padding.
        padded: axes that may be shorter, and are padded at their ends.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    first: tuple[int, ...]
    padded: tuple[int, ...] = ()

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an array may have this shape."""
        if len(shape) != len(self.shape):
            return False
        pairs = enumerate(zip(shape, self.shape, strict=True))
        return all(most is None or n == most or (axis in self.padded and n < most) for axis, (n, most) in pairs)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.first}{f' padded to {self.shape}' if self.padded else ''}"


@dataclass(frozen=True)
class Form:
    """What every sample of an audit has.

    Attributes:
        kind: as of `Inputs`.
        arrays: in the order of `Inputs.columns`.
        pad: value that shorter arrays are filled with.
    """

    kind: str
    arrays: tuple[ArrayForm, ...]
    pad: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays' names."""
        return tuple(array.name for array in self.arrays)

    @classmethod
    def of(cls, sample: Sample) -> Form:
        """That of the first sample; an image may have any height and width."""
        free = 2 if sample.kind == "image" else 0
        return cls(sample.kind, tuple(
            ArrayForm(name, array.dtype.name, (None,) * free + array.shape[free:], array.shape)
            for name, array in zip(sample.names, sample.arrays, strict=True)
        ))  # fmt: skip

    def of_any_length(self) -> Form:
        """The same for any length of any axis."""
        return replace(self, arrays=tuple(replace(each, shape=(None,) * len(each.shape)) for each in self.arrays))

    def check(self, sample: Sample, refuse: Refuse) -> None:
        """Refuse a sample of another form."""
        if (sample.kind, sample.names) != (self.kind, self.names):
            refuse(f"sample must be {_kind_words(self)}, as the first is", _kind_words(Form.of(sample)))
        for array, form in zip(sample.arrays, self.arrays, strict=True):
            if array.dtype.name != form.dtype:
                refuse(f"{form.name} must be {form.dtype}, as the first sample's is", array.dtype.name)
            if not form.takes(array.shape):
                refuse(self._shape_rule(form), f"{array.shape}")

    def _shape_rule(self, form: ArrayForm) -> str:
        if self.kind == "image":
            return f"{form.name} must have {form.shape[-1]} channels, as the first sample's has"
        if form.padded:
            return f"{form.name} must have a shape of at most {form.shape} (data.pad_to)"
        hint = "" if self.pad is not None else "; data.pad pads ragged ones"
        return f"{form.name} must have shape {form.shape}, as the first sample's has{hint}"

    def stack(self, inputs: Inputs) -> Inputs:
        """Samples of this form with each column in one array, (n, ...), short ones padded."""
        forms = self.arrays if inputs.kind != "image" else (None,)
        columns = (self._stacked(column, form) for column, form in zip(inputs.columns, forms, strict=True))
        return replace(inputs, columns=tuple(columns))

    def _stacked(self, column: Column, form: ArrayForm | None) -> NDArray[Any]:
        if isinstance(column, np.ndarray):
            return np.ascontiguousarray(column)
        if form is None or not form.padded:
            return np.stack(column)
        stacked = np.full((len(column), *(n or 0 for n in form.shape)), self.pad, form.dtype)
        for row, array in zip(stacked, column, strict=True):
            row[tuple(slice(n) for n in array.shape)] = array
        return stacked

    def __str__(self) -> str:
        kinds = {"tuple": "a tuple of ", "dict": "a dictionary of "}
        return f"{kinds.get(self.kind, '')}{', '.join(map(str, self.arrays))}"


def _kind_words(form: Form) -> str:
    if form.kind in ("image", "array"):
        return "one array"
    if form.kind == "tuple":
        return f"a tuple of {len(form.arrays)} arrays"
    return f"a dictionary of {', '.join(form.names)}"


def as_sample(value: Any, refuse: Refuse, *, image: bool, names: tuple[str, ...] = ()) -> Sample:
    """One sample's input: an array, or what numpy makes one of, or a tuple or a dictionary of them.

    Args:
        value: what a source gives.
        refuse: raises an InputError that names the sample.
        image: whether it must be one image.
        names: of a tuple's arrays, if they have names.
    """
    several = isinstance(value, tuple | dict)
    if image and not several:
        return Sample("image", ("image",), (_image(value, refuse),))
    if image:
        rule = "image must be one array; data.preprocess: none or a function takes several"
        refuse(rule, f"a {'tuple' if isinstance(value, tuple) else 'dictionary'} of {len(value)}")
    if not several:
        return _of([value], (INPUT,), "array", refuse)
    if not value:
        refuse("sample must have at least one array", f"an empty {type(value).__name__}")
    if isinstance(value, tuple):
        return _of(value, names or tuple(f"{INPUT}[{i}]" for i in range(len(value))), "tuple", refuse)
    if not all(isinstance(name, str) for name in value):
        refuse("a dictionary of arrays must have names that are text", ", ".join(map(repr, value)))
    names = tuple(sorted(value))
    return _of([value[name] for name in names], names, "dict", refuse)


def _of(values: Sequence[Any], names: tuple[str, ...], kind: str, refuse: Refuse) -> Sample:
    return Sample(kind, names, tuple(_array(value, name, refuse) for name, value in zip(names, values, strict=True)))


def _array(value: Any, name: str, refuse: Refuse) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        refuse(f"{name} must have all its values; give the mask as an array of its own", "a masked array")
    if isinstance(value, dict | tuple | set):
        refuse(f"{name} must be an array", f"a {type(value).__name__}")
    try:
        array = np.array(value, order="C")  # a copy: a source may fill the same memory again for its next sample
    except (ValueError, TypeError) as error:
        refuse(f"{name} must be an array of numbers", one_line(error))
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        refuse(f"{name} must be of {TYPES}", f"{array.dtype} of shape {array.shape}")
    if array.size == 0:
        refuse(f"{name} must have at least one value", f"shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        refuse(f"{name} must have finite values", array[~np.isfinite(array)][0])
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _image(value: Any, refuse: Refuse) -> NDArray[Any]:
    """(height, width, channels), uint8 or float32."""
    image = np.array(value, order="C")
    image = image[..., np.newaxis] if image.ndim == 2 else image
    if fault := image_fault(image):
        refuse(*fault)
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def image_fault(array: NDArray[Any]) -> tuple[str, str] | None:
    """Which rule of images an array breaks, and what it has instead; None for (height, width, channels) of pixels."""
    others = "; data.preprocess: none or a function takes other arrays"
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "buif":
        rule = "image must be (height, width, channels) or (height, width), of uint8 or of floats from 0 to 255"
        return f"{rule}{others}", f"{array.dtype} of shape {array.shape}"
    if array.dtype.kind in "bui":
        return None if array.dtype == np.uint8 else (f"image must be uint8 or float{others}", f"{array.dtype}")
    found = f"{array.min()} to {array.max()}"
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 255):
        return "float pixels must be 0 to 255", found
    if array.max() <= 1 and (array % 1 != 0).any():
        return "float pixels must be 0 to 255, not 0 to 1", found
    return None


def check_channels(form: Form, data: DataConfig, where: str) -> None:
    """Refuse images that `data.mean` and `data.std` are not made for.

    Raises:
        InputError: another number of channels.
    """
    channels = form.arrays[0].shape[-1]
    if channels != len(data.mean):
        unstated = " (CIFAR's, since none are stated)" if "mean" in data.borrowed else ""
        rule = f"must have one value for each of the image's {channels} channels, its last axis"
        raise InputError(f"data.mean, data.std: {rule}, got {len(data.mean)}{unstated} for {where}")


def padded_form(first: Form, data: DataConfig, shapes: Iterator[Sequence[Sequence[int]]]) -> Form:
    """`first` with the lengths that `data.pad` and `data.pad_to` give its arrays.

    Args:
        first: of the first sample.
        data: with a `pad`.
        shapes: of each sample in turn, a shape for each array; not drawn from where nothing depends on it.

    Raises:
        InputError: a value that an array cannot have, more lengths than axes, or nothing to pad.
    """
    assert data.pad is not None
    if data.pad_to is not None and len(first.arrays) == 1:
        arrays = [_pad_to(first.arrays[0], data.pad_to)]
    else:
        arrays = _pad_to_largest(first.arrays, data.pad_to, shapes)
    for array in arrays:
        if array.padded:
            _check_pad(data.pad, array)
    return replace(first, arrays=tuple(arrays), pad=data.pad)


def _pad_to_largest(
    forms: Sequence[ArrayForm], pad_to: tuple[int, ...] | None, shapes: Iterator[Sequence[Sequence[int]]]
) -> list[ArrayForm]:
    largest = [list(form.shape) for form in forms]
    ragged: list[set[int]] = [set() for _ in forms]
    for sample in shapes:
        for shape, most, axes in zip(sample, largest, ragged, strict=True):
            axes |= {axis for axis, (n, known) in enumerate(zip(shape, most, strict=True)) if n != known}
            most[:] = map(max, zip(shape, most, strict=True))  # type: ignore[arg-type]
    if pad_to is None:
        found = zip(forms, largest, ragged, strict=True)
        return [replace(form, shape=tuple(most), padded=tuple(sorted(axes))) for form, most, axes in found]
    if not any(ragged):
        rule = "pads only arrays whose samples differ in length; here none do"
        raise InputError(f"data.pad_to: {rule}, got {', '.join(map(str, forms))}")
    return [_pad_to(form, pad_to) if axes else form for form, axes in zip(forms, ragged, strict=True)]


def _pad_to(form: ArrayForm, pad_to: tuple[int, ...]) -> ArrayForm:
    if len(pad_to) > len(form.shape):
        rule = f"must have a length for at most the {len(form.shape)} axes of {form.name}"
        raise InputError(f"data.pad_to: {rule}, got {list(pad_to)}")
    return replace(form, shape=pad_to + form.shape[len(pad_to) :], padded=tuple(range(len(pad_to))))


def _check_pad(pad: float, form: ArrayForm) -> None:
    kind = np.dtype(form.dtype)
    with np.errstate(all="ignore"):
        there = np.array(pad).astype(kind)
    if kind.kind == "f" and np.isfinite(there):
        return  # rounded, as every value of that type
    if float(there) != pad:
        raise InputError(f"data.pad: must be a value of {form.dtype}, the type of {form.name}, got {pad:g}")
