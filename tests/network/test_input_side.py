"""Inputs of any kind on their way into a network: columns of MindSpore datasets, names, types, channels, training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import open_samples, select_all

ms = pytest.importorskip("mindspore")

from mindspore import dataset as ds  # noqa: E402
from mindspore import nn  # noqa: E402

from mia_batch.data.user_source import InputNames  # noqa: E402
from mia_batch.errors import InputError  # noqa: E402
from mia_batch.inputs import Inputs  # noqa: E402
from mia_batch.network import batches  # noqa: E402
from mia_batch.network.datasets import open_dataset  # noqa: E402
from mia_batch.network.forward import Predictor  # noqa: E402
from mia_batch.network.input_side import bind, float_type  # noqa: E402
from mia_batch.network.preprocess import Preprocess  # noqa: E402
from mia_batch.settings.schema import DataConfig  # noqa: E402

RNG = np.random.default_rng(0)
IDS, MASK = RNG.integers(0, 9, (6, 4)), RNG.integers(0, 2, (6, 4)) > 0
LABELS = np.arange(6) % 3


class Tokens(nn.Cell):
    """The mean of the embeddings that the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = nn.Embedding(9, 5), nn.Dense(5, 3)

    def construct(self, ids: Any, mask: Any, scale: Any = None) -> Any:
        x = self.embedding(ids) * mask.astype(ms.float32).expand_dims(-1)
        return self.dense(x.sum(axis=1) if scale is None else x.sum(axis=1) * scale.expand_dims(-1))


@pytest.fixture(scope="module")
def tokens() -> nn.Cell:
    ms.set_seed(1)
    return Tokens()


def naive(network: nn.Cell, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    table = network.embedding.embedding_table.asnumpy()
    sums = (table[ids] * mask[..., None]).sum(axis=1)
    return sums @ network.dense.weight.asnumpy().T + network.dense.bias.asnumpy()


# --- columns of a MindSpore dataset -----------------------------------------------------------------------------------


def dataset(**columns: Any) -> Any:
    return ds.NumpySlicesDataset(columns, shuffle=False)


@pytest.mark.parametrize(
    ("columns", "chosen", "expected"),
    [
        ({"image": MASK, "other": IDS, "label": LABELS}, InputNames(), MASK),
        ({"x": IDS, "label": LABELS}, InputNames(), IDS),
        ({"x": IDS, "who": LABELS, "label": LABELS}, InputNames(group="who"), IDS),
        ({"ids": IDS, "mask": MASK, "y": LABELS}, InputNames(("mask", "ids"), "y"), (MASK, IDS)),
        ({"ids": IDS, "mask": MASK, "y": LABELS}, InputNames("ids", "y"), IDS),
    ],
)
def test_columns_of_a_dataset(columns: dict[str, Any], chosen: InputNames, expected: Any) -> None:
    rows = open_dataset(dataset(**columns), "f", chosen)
    values, labels = zip(*rows.read(np.array([4, 1]), True), strict=True)
    assert [int(label) for label in labels] == [1, 1]
    for value, row in zip(values, (4, 1), strict=True):
        wanted = np.stack([each[row] for each in expected]) if isinstance(expected, tuple) else expected[row]
        np.testing.assert_array_equal(np.stack(value) if isinstance(value, tuple) else value, wanted)
    assert [int(label) for _, label in rows.read(np.array([5]), False)] == [2]


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        (InputNames(), "f: must have columns image and label, got ids, mask, y; data.columns says which are taken"),
        (InputNames(("ids", "maks"), "y"), "f: must have columns ids, maks and y, got ids, mask, y"),
        (InputNames("ids"), "f: must have columns ids and label, got ids, mask, y"),
    ],
)
def test_a_column_that_is_missing(chosen: InputNames, rule: str) -> None:
    with pytest.raises(InputError, match="^" + re.escape(rule)):
        open_dataset(dataset(ids=IDS, mask=MASK, y=LABELS), "f", chosen)


# --- arguments and types ----------------------------------------------------------------------------------------------


def test_a_dictionary_is_bound_by_name_and_a_tuple_by_place(tokens: nn.Cell) -> None:
    by_name = bind(Inputs("dict", ("ids", "mask"), (IDS, MASK)), tokens)
    assert [column is given for column, given in zip(by_name, (IDS, MASK), strict=True)] == [True, True]
    backwards = bind(Inputs("tuple", ("b", "a"), (MASK, IDS)), tokens, ("b", "a"))
    assert backwards[0] is MASK
    all_three = bind(Inputs("dict", ("ids", "mask", "scale"), (IDS, MASK, LABELS)), tokens)
    assert all_three[2] is LABELS


@pytest.mark.parametrize(
    ("inputs", "order", "rule"),
    [
        (Inputs("dict", ("ids", "msk"), (IDS, MASK)), (),
         "model: must have inputs named ids, msk, got construct(ids, mask, scale) without msk"),
        (Inputs("dict", ("ids",), (IDS,)), (), "construct(ids, mask, scale) must have an input for mask, got ids"),
        (Inputs("dict", ("ids", "scale"), (IDS, LABELS)), (), "must have an input for mask, got ids, scale"),
        (Inputs("tuple", ("mask", "ids"), (MASK, IDS)), ("mask", "ids"),
         "data.columns.inputs: must be in the order of the network's parameters, ids, mask, got mask, ids"),
    ],
)  # fmt: skip
def test_names_that_the_network_does_not_have(
    tokens: nn.Cell, inputs: Inputs, order: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(InputError, match=re.escape(rule)):
        bind(inputs, tokens, order)


def test_several_inputs_run_at_their_places(tokens: nn.Cell) -> None:
    predictor, rows = Predictor(tokens, 8), np.array([3, 9, 10, 14, 15, 16])
    np.testing.assert_allclose(predictor.logits((IDS, MASK), rows), naive(tokens, IDS, MASK), rtol=1e-5, atol=1e-6)


def test_inputs_that_the_network_does_not_take(tokens: nn.Cell) -> None:
    for inputs, shown in (((IDS,), r"int64 \(6, 4\)"), ((IDS, MASK[:, :2]), r"int64 \(6, 4\), bool \(6, 2\)")):
        with pytest.raises(InputError, match=f"^model: must take inputs {shown}, got ") as caught:
            Predictor(tokens, 6).logits(inputs)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("given", ["f2", "f4", "f8"])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_floats_are_given_in_the_networks_own_type(given: str, kind: str) -> None:
    ms.set_seed(1)
    network = nn.Dense(4, 3)
    weight, bias = (parameter.asnumpy().copy() for parameter in network.trainable_params())
    for parameter in network.trainable_params():
        parameter.set_dtype(getattr(ms, kind))
    x = RNG.normal(size=(5, 4)).astype(given)
    logits = Predictor(network, 5).logits((x,))
    assert logits.dtype == np.float32
    tolerance = 2e-2 if "f2" in given or kind == "float16" else 1e-5
    np.testing.assert_allclose(logits, x.astype(float) @ weight.T + bias, rtol=tolerance, atol=tolerance)


def test_cells_that_cast_themselves_take_float32() -> None:
    assert float_type(nn.Dense(4, 3).to_float(ms.float16)) == ms.float32
    half = nn.Dense(4, 3)
    half.weight.set_dtype(ms.float16)
    assert float_type(half) == ms.float32  # of two types
    half.bias.set_dtype(ms.float16)
    assert float_type(half) == ms.float16
    assert float_type(nn.Flatten()) == ms.float32


def test_a_number_that_the_type_does_not_hold() -> None:
    with pytest.raises(InputError, match=r"inputs must be within the range of the network.s Float32, got 1e\+300"):
        Predictor(nn.Dense(4, 3), 5).logits((np.full((5, 4), 1e300),))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_number_of_channels_is_the_formula(channels: int, dtype: type) -> None:
    images = (RNG.random((3, 6, 5, channels)) * 255).astype(dtype)
    mean, std = RNG.random(channels), RNG.random(channels) + 0.5
    preprocess = Preprocess((6, 5), mean.tolist(), std.tolist())
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    for given in (images, list(images)):
        np.testing.assert_allclose(preprocess(given), expected, rtol=1e-5, atol=1e-6)
    resized = Preprocess((12, 9), mean.tolist(), std.tolist())(images)
    for channel in range(channels):  # each channel as if it were alone
        alone = Preprocess((12, 9), [mean[channel]], [std[channel]])(images[..., channel : channel + 1])
        np.testing.assert_array_equal(resized[:, channel], alone[:, 0])


# --- from a source to the network -------------------------------------------------------------------------------------

SOURCE = """
import numpy as np
class Items:
    def __init__(self, kind, n): self.kind, self.n, self.labels = kind, n, np.arange(n) % 3
    def __len__(self): return self.n
    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        ids = rng.integers(1, 9, rng.integers(2, 6))
        item = {"vector": rng.normal(size=4), "tuple": (ids, ids > 0), "dict": {"mask": ids > 0, "ids": ids}}
        return item[self.kind], i % 3
def make(split, kind, n=20): return Items(kind, n)
def shift(x): return x + 1
def swap(pair): return {"ids": pair[0], "mask": pair[1]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DataConfig]:
    (tmp_path / "items.py").write_text(SOURCE)

    def make(kind: str, preprocess: str = "none", **keys: Any) -> DataConfig:
        change = preprocess if preprocess == "none" else f"{tmp_path}/items.py:{preprocess}"
        sides = {"members": {"split": "train"}, "nonmembers": {"split": "test", "num_samples": 9}}
        source = {"source": f"{tmp_path}/items.py:make", "kwargs": {"kind": kind}, "preprocess": change}
        return DataConfig.model_validate(source | sides | keys)

    return make


@pytest.mark.parametrize(
    ("kind", "preprocess", "keys"),
    [("vector", "none", {}), ("vector", "shift", {}), ("tuple", "none", {"pad": 0}), ("tuple", "swap", {"pad": 0}),
     ("dict", "none", {"pad": 0, "pad_to": 7})],
)  # fmt: skip
def test_batches_of_any_kind_do_not_depend_on_which_rows_are_asked_for(
    config: Callable[..., DataConfig], tokens: nn.Cell, kind: str, preprocess: str, keys: dict[str, Any]
) -> None:
    data = config(kind, preprocess, **keys)
    selection, network = select_all(data), nn.Dense(4, 3) if kind == "vector" else tokens

    def collect(rows: np.ndarray) -> list[np.ndarray]:
        parts = list(batches.batches(data, selection, rows, 8, network=network))
        return [np.concatenate(column) for column in zip(*((*part[1], part[3]) for part in parts), strict=True)]

    whole, rows = collect(np.arange(29)), np.array([2, 3, 11, 20, 28])
    for one, all_rows in zip(collect(rows), whole, strict=True):
        np.testing.assert_array_equal(one, all_rows[rows])
    source = open_samples(data)
    raw = source.read("train", np.array([11]), batches.form_of(data, source, selection))[0].columns
    if kind == "vector":
        np.testing.assert_array_equal(whole[0][11], raw[0][0] + (preprocess == "shift"))
    for column, (value,) in zip(whole, raw if kind != "vector" else (), strict=False):
        n = len(value)  # ids, then mask
        np.testing.assert_array_equal(column[11, :n], value)
        assert (column[11, n:] == 0).all()
        assert column.shape[1] == (7 if "pad_to" in keys else 5)
