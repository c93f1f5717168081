"""Samples of any kind from a user's source: what is taken, what form they are held to, how they are padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import open_samples

from mia_batch.data.forms import Form
from mia_batch.data.selection import Selection, form_of, read_inputs, select
from mia_batch.errors import InputError
from mia_batch.inputs import Inputs, describe_inputs
from mia_batch.settings.schema import DataConfig

CODE = """
import numpy as np

class Given(list):
    reads = []
    def __getitem__(self, i):
        if isinstance(i, int): Given.reads.append(i)
        return super().__getitem__(i)

ITEMS = {}
def make(split): return Given(ITEMS[split])

class Reused:
    def __init__(self): self.memory = np.zeros(3)
    def __len__(self): return 4
    def __getitem__(self, i):
        self.memory[:] = i
        return self.memory, 0
def reused(split): return Reused()
"""
Make = Callable[..., DataConfig]


@pytest.fixture
def given(tmp_path: Path) -> Make:
    """A config whose source gives these items for both splits: members are all, non-members the last."""

    def make(items: list[Any], function: str = "make", **keys: Any) -> DataConfig:
        file = tmp_path / "given.py"
        file.write_text(CODE)
        data = DataConfig.model_validate({
            "source": f"{file}:{function}", "members": {"split": "train"}, "nonmembers": {"split": "test"},
            "preprocess": "none", **keys,
        })  # fmt: skip
        from mia_batch.settings.user_code import resolve

        resolve(data.source, "data.source").__globals__["ITEMS"].update(train=items, test=items[-1:])
        return data

    return make


def look(data: DataConfig) -> tuple[Form, Selection, Inputs]:
    """The form, the samples, and the stacked inputs of all."""
    source = open_samples(data)
    selection = select(data, source)
    form = form_of(data, source, selection)
    return form, selection, form.stack(read_inputs(source, selection, np.arange(len(selection)), form))


def refused(data: DataConfig) -> str:
    with pytest.raises(InputError) as caught:
        look(data)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


VECTOR, IDS = np.arange(3.0), np.array([4, 5, 6, 7])
KINDS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "a vector": (VECTOR, "array", ("input",)),
    "a list": ([1.0, 2.0], "array", ("input",)),
    "a number": (1.5, "array", ("input",)),
    "a tuple": ((IDS, VECTOR), "tuple", ("input[0]", "input[1]")),
    "a dictionary": ({"mask": VECTOR > 1, "ids": IDS}, "dict", ("ids", "mask")),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds_of_samples(given: Make, case: str) -> None:
    value, kind, names = KINDS[case]
    form, selection, inputs = look(given([(value, 1), (value, 0), (value, 2)]))
    assert (form.kind, form.names, inputs.kind) == (kind, names, kind)
    assert selection.label.tolist() == [1, 0, 2, 2]
    several = list(value) if kind == "tuple" else [value[name] for name in names] if kind == "dict" else [value]
    for column, array in zip(inputs.columns, several, strict=True):
        assert isinstance(column, np.ndarray)
        assert column.dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(column, [array] * 4)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8", ">f4", ">i2"])
def test_types_stay_in_the_machines_byte_order(given: Make, dtype: str) -> None:
    _, _, inputs = look(given([(np.arange(3).astype(dtype), 0)] * 2))
    (column,) = inputs.columns
    assert np.asarray(column).dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(column, [np.arange(3).astype(dtype)] * 3)


ENTRY = {"ids": IDS, "mask": IDS > 5, "label": 1}
ITEMS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "image": ({"image": VECTOR, "other": 1, "label": 1}, {}, ("input",)),
    "the one other": ({"x": VECTOR, "label": 1}, {}, ("input",)),
    "but the group": ({"x": VECTOR, "label": 1, "person": 7}, {"group": "person"}, ("input",)),
    "one that is named": (ENTRY, {"columns": {"inputs": "ids"}}, ("input",)),
    "several": (ENTRY, {"columns": {"inputs": ["mask", "ids"]}}, ("mask", "ids")),
    "another label": ({"x": VECTOR, "y": 1}, {"columns": {"inputs": "x", "label": "y"}}, ("input",)),
    "a dictionary in a dictionary": ({"x": {"b": IDS, "a": IDS}, "label": 1}, {}, ("a", "b")),
}


@pytest.mark.parametrize("case", ITEMS)
def test_which_entries_of_a_dictionary_are_taken(given: Make, case: str) -> None:
    item, keys, names = ITEMS[case]
    form, selection, _ = look(given([item] * 2, **keys))
    assert form.names == names
    assert selection.label.tolist() == [1] * 3


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "several unnamed": (ENTRY, {}, "must have columns image and label, got ids, mask, label; data.columns says which"),
    "no such column": (ENTRY, {"columns": {"inputs": ["ids", "lenght"]}},
                       "must have columns ids, lenght and label, got ids, mask, label"),
    "no label": ({"x": VECTOR, "y": 1}, {}, "must have columns image and label, got x, y; data.columns says"),
    "columns of a pair": ((VECTOR, 1), {"columns": {"inputs": "x"}}, "a dictionary where data.columns names its"),
    "three": ((IDS, IDS, 1), {}, "must be (input, label), several arrays in one tuple, or a dictionary, got 3 values"),
    "regression": ((VECTOR, 0.5), {}, "got float 0.5; a regression has no classes to be audited by: import its losses"),
    "text": (("word", 1), {}, "train sample 0: input must be of bool, integers, float16, float32 or float64, got <U4"),
    "words": ((["a", "b"], 1), {}, "input must be of bool, integers"),
    "objects": ((np.array([None]), 1), {}, "got object of shape (1,)"),
    "complex": ((VECTOR * 1j, 1), {}, "got complex128 of shape (3,)"),
    "dates": ((np.zeros(2, "M8[s]"), 1), {}, "got datetime64[s] of shape (2,)"),
    "long": ((VECTOR.astype(np.longdouble), 1), {}, "got float128"),
    "empty": ((VECTOR[:0], 1), {}, "input must have at least one value, got shape (0,)"),
    "nan": (((IDS, np.array([1, np.nan])), 1), {}, "train sample 0: input[1] must have finite values, got nan"),
    "masked": ((np.ma.masked_array(VECTOR, VECTOR > 1), 1), {}, "give the mask as an array of its own, got a masked"),
    "ragged within": (([[1, 2], [3]], 1), {}, "input must be an array of numbers, got ValueError"),
    "no arrays": (((), 1), {}, "sample must have at least one array, got an empty tuple"),
    "numbers for names": (({1: VECTOR}, 1), {}, "must have names that are text, got 1"),
    "nested": (((VECTOR, (VECTOR, VECTOR)), 1), {}, "input[1] must be an array, got a tuple"),
    "image of two": (((IDS, IDS), 1), {"preprocess": "image"}, "image must be one array; data.preprocess: none or"),
    "image of bools": ((np.ones((4, 4), bool), 1), {"preprocess": "image"}, "must be uint8 or float; data.preprocess"),
    "vector as image": ((VECTOR, 1), {"preprocess": "image"}, "image must be (height, width, channels) or (height, "),
    "grey with three means": ((np.ones((4, 4), np.uint8), 1), {"preprocess": "image"},
                              "each of the image's 1 channels, its last axis, got 3 (CIFAR's, since none are stated)"),
    "channels first": ((np.ones((3, 8, 9), np.uint8), 1), {"preprocess": "image", "mean": [0, 0, 0], "std": [1, 1, 1]},
                       "must have one value for each of the image's 9 channels, its last axis, got 3 for train sample"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_sample_is_one_line(given: Make, case: str) -> None:
    item, keys, rule = WRONG[case]
    assert rule in refused(given([item] * 2, **keys))


OTHERS: dict[str, tuple[Any, Any, str]] = {
    "longer": (VECTOR, np.arange(4.0), "must have shape (3,), as the first sample's has; data.pad pads ragged ones"),
    "more axes": (VECTOR, np.ones((3, 1)), "input must have shape (3,), as the first sample's has"),
    "wider type": (VECTOR, VECTOR.astype("f4"), "input must be float64, as the first sample's is, got float32"),
    "other kind": (VECTOR, (VECTOR,), "sample must be one array, as the first is, got a tuple of 1 arrays"),
    "more arrays": ((IDS, IDS), (IDS, IDS, IDS), "must be a tuple of 2 arrays, as the first is, got a tuple of 3"),
    "other names": ({"a": IDS, "b": IDS}, {"a": IDS, "c": IDS}, "a dictionary of a, b, as the first is, got a diction"),
    "one of several": ((IDS, IDS), (IDS, IDS[:3]), "input[1] must have shape (4,), as the first sample's has"),
    "infinite": (VECTOR, np.full(3, np.inf), "input must have finite values, got "),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_sample_that_is_not_as_the_first_is_named(given: Make, case: str) -> None:
    first, other, rule = OTHERS[case]
    line = refused(given([(first, 0)] * 5 + [(other, 0)] + [(first, 0)]))
    assert ": train sample 5: " in line
    assert rule in line


def test_the_form_of_the_members_holds_for_non_members(given: Make) -> None:
    line = refused(given([(VECTOR, 0), (IDS, 0)], members={"split": "train", "num_samples": 1}))
    assert "test sample 0: input must be float64, as the first sample's is, got int64" in line


def test_images_of_any_size_but_of_one_type_and_number_of_channels(given: Make) -> None:
    thirteen = {"preprocess": "image", "mean": [0.5] * 13, "std": [1.0] * 13}
    images = [np.ones((5, 4 + i, 13), np.uint8) for i in range(3)]
    data = given([(image, 0) for image in images], **thirteen)
    source = open_samples(data)
    selection = select(data, source)
    form = form_of(data, source, selection)
    (column,) = read_inputs(source, selection, np.arange(4), form).columns
    assert [image.shape for image in column] == [(5, 4, 13), (5, 5, 13), (5, 6, 13), (5, 6, 13)]
    four, floats = images[0][..., :4], images[0] * 1.0
    for other, rule in ((four, "must have 13 channels"), (floats, "image must be uint8, as the first sample's is")):
        assert rule in refused_later(given([(images[0], 0), (other, 0)], **thirteen))
    grey = given([(np.ones((5, 4), np.uint8), 0)], preprocess="image", mean=[0.5], std=[1.0])
    (column,) = read_inputs(open_samples(grey), select(grey, open_samples(grey)), np.arange(1)).columns
    assert column[0].shape == (5, 4, 1)


def refused_later(data: DataConfig) -> str:
    source = open_samples(data)
    selection = select(data, source)
    form = form_of(data, source, selection)
    with pytest.raises(InputError) as caught:
        read_inputs(source, selection, np.arange(len(selection)), form)
    return str(caught.value)


def test_a_source_may_use_its_memory_again(given: Make) -> None:
    """All samples of a batch would be the last one, beside labels that are their own."""
    _, _, inputs = look(given([0], function="reused"))
    np.testing.assert_array_equal(np.asarray(inputs.columns[0])[:4, 0], np.arange(4))


# --- padding ---------------------------------------------------------------------------------------------------------


def ragged(*lengths: int) -> list[Any]:
    return [(np.arange(1, n + 1), 0) for n in lengths]


def test_padding_to_the_largest_of_all_samples(given: Make) -> None:
    form, _, inputs = look(given(ragged(2, 5, 3), pad=-1))
    np.testing.assert_array_equal(inputs.columns[0], [
        [1, 2, -1, -1, -1], [1, 2, 3, 4, 5], [1, 2, 3, -1, -1], [1, 2, 3, -1, -1],
    ])  # fmt: skip
    assert str(form) == "input int64 (2,) padded to (5,)"


def test_padding_to_a_length_reads_the_first_sample_alone(given: Make) -> None:
    data = given(ragged(2, 5, 3), pad=0, pad_to=7)
    source = open_samples(data)
    selection = select(data, source)
    from mia_batch.settings.user_code import resolve

    reads = resolve(data.source, "data.source").__globals__["Given"].reads
    reads.clear()
    form = form_of(data, source, selection)
    assert reads == [0]
    (column,) = form.stack(read_inputs(source, selection, np.arange(4), form)).columns
    np.testing.assert_array_equal(column, [[*range(1, n + 1), *[0] * (7 - n)] for n in (2, 5, 3, 3)])
    assert "input must have a shape of at most (4,) (data.pad_to), got (5,)" in refused(
        given(ragged(2, 5, 3), pad=0, pad_to=4)
    )


def test_axes_that_are_ragged_are_padded_and_no_others(given: Make) -> None:
    items = [(np.full((n, 3), n), 0) for n in (2, 4, 1)]
    form, _, inputs = look(given(items, pad=9))
    assert form.arrays[0].padded == (0,)
    assert np.asarray(inputs.columns[0]).shape == (4, 4, 3)
    assert (np.asarray(inputs.columns[0])[2, 1:] == 9).all()
    _, _, inputs = look(given(items, pad=9, pad_to=[4, 5]))
    assert np.asarray(inputs.columns[0]).shape == (4, 4, 5)
    form, _, _ = look(given(ragged(3, 3), pad=0))
    assert form.arrays[0].padded == ()


def test_every_ragged_array_is_padded_and_no_other(given: Make) -> None:
    items = [({"ids": np.arange(n), "mask": np.ones(n, bool), "age": np.arange(2.0)}, 0) for n in (2, 3, 1)]
    for keys, n in (({}, 3), ({"pad_to": 6}, 6)):
        form, _, inputs = look(given(items, pad=0, **keys))
        assert [np.asarray(column).shape for column in inputs.columns] == [(4, 2), (4, n), (4, n)]
        assert [np.asarray(column).dtype.name for column in inputs.columns] == ["float64", "int64", "bool"]
        np.testing.assert_array_equal(np.asarray(inputs.columns[2]).sum(axis=1), [2, 3, 1, 1])
        assert form.pad == 0
    rule = "data.pad_to: pads only arrays whose samples differ in length; here none do, got "
    assert rule in refused(given(items[:1], pad=0, pad_to=6))


@pytest.mark.parametrize(
    ("value", "pad", "rule"),
    [
        (IDS.astype(np.uint8), -1, "data.pad: must be a value of uint8, the type of input, got -1"),
        (IDS.astype(np.uint8), 256, "must be a value of uint8"), (IDS, 0.5, "must be a value of int64"),
        (IDS > 5, 2, "must be a value of bool"), (IDS.astype("f2"), 1e6, "must be a value of float16"),
    ],
)  # fmt: skip
def test_a_padding_that_the_type_does_not_have(given: Make, value: np.ndarray, pad: float, rule: str) -> None:
    assert rule in refused(given([(value, 0), (value[:2], 0)], pad=pad))
    assert rule in refused(given([(value, 0), (value[:2], 0)], pad=pad, pad_to=5))


def test_more_lengths_than_axes(given: Make) -> None:
    rule = "data.pad_to: must have a length for at most the 1 axes of input, got [5, 5]"
    assert refused(given(ragged(2, 3), pad=0, pad_to=[5, 5])) == rule


def test_what_is_kept_is_of_the_sample_before_padding(given: Make) -> None:
    data = given(ragged(2, 5, 3), pad=-1)
    source = open_samples(data)
    selection = select(data, source)
    found = describe_inputs(read_inputs(source, selection, np.arange(3), form_of(data, source, selection)))
    assert found["statistics"][:, 4].tolist() == [2, 5, 3]
    assert found["statistics"][:, 2].tolist() == [1, 1, 1]
