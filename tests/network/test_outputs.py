"""What networks of many kinds give becomes logits: run by MindSpore, in graph mode and step by step."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from scipy.special import expit, softmax

from mia_batch.errors import InputError
from mia_batch.network.forward import Predictor
from mia_batch.network.outputs import LogitsInGraph, Output, as_arrays
from mia_batch.network.train import Ranks, TrainStep
from mia_batch.settings.schema import ModelConfig

N, CLASSES = 6, 4
INPUTS = np.random.default_rng(4).standard_normal((N, 3, 4, 4)).astype(np.float32)


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request: pytest.FixtureRequest) -> Any:
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=before)


@pytest.fixture
def graph() -> Any:
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


# --- networks of many kinds ------------------------------------------------------------------------------------------


class Residual(nn.Cell):
    """A block whose input is added to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm, self.relu, self.head = nn.BatchNorm2d(8), nn.ReLU(), nn.Dense(8, CLASSES)

    def construct(self, x: Any) -> Any:
        x = self.relu(self.stem(x))
        return self.head((x + self.norm(self.conv(x))).mean((2, 3)))


class Recurrent(nn.Cell):
    """The last state of a recurrent network; a channel is a step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = (nn.LSTM if kind == "lstm" else nn.GRU)(16, 5, batch_first=True)
        self.head = nn.Dense(5, CLASSES)

    def construct(self, x: Any) -> Any:
        sequence, _ = self.rnn(x.reshape((-1, 3, 16)))
        return self.head(sequence[:, -1])


class Attention(nn.Cell):
    """A layer of an encoder, and the mean over its places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True), nn.Dense(16, CLASSES)

    def construct(self, x: Any) -> Any:
        return self.head(self.layer(x.reshape((-1, 3, 16))).mean(1))


class Plain(nn.Cell):
    """Flatten and dense, with outputs in the form that `kind` names."""

    def __init__(self, kind: str = "", width: int = CLASSES) -> None:
        super().__init__()
        self.flatten, self.dense, self.kind = nn.Flatten(), nn.Dense(48, width), kind

    def construct(self, x: Any) -> Any:
        hidden = self.flatten(x)
        z = self.dense(hidden)
        if self.kind == "dict":
            return {"logits": z, "hidden": hidden}
        if self.kind == "nested":
            return {"heads": (z, hidden), "n": 3, "nothing": None}
        if self.kind == "tuple":
            return z, hidden
        if self.kind == "list":
            return [hidden, z]
        if self.kind == "sequence":
            return ops.stack((z, z + 1, z + 2), axis=1)
        if self.kind == "flat":
            return z[:, 0]
        if self.kind == "sigmoid":
            return ops.sigmoid(z)
        if self.kind == "softmax":
            return ops.softmax(z)
        if self.kind == "classes":
            return z.argmax(axis=1)
        if self.kind == "bools":
            return z > 0
        if self.kind == "bfloat16":
            return z.astype(ms.bfloat16)
        return z


def made(network: nn.Cell) -> nn.Cell:
    """The network with seeded weights of size one."""
    rng = np.random.default_rng(1)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape) * 0.3, parameter.dtype))
    return network


def z_of(network: nn.Cell) -> np.ndarray:
    """What `Plain` computes, by NumPy in float64."""
    weight, bias = (each.asnumpy().astype(float) for each in (network.dense.weight, network.dense.bias))
    return INPUTS.reshape(N, -1) @ weight.T + bias


def run(network: nn.Cell, n: int = N, batch_size: int = N, **output: Any) -> np.ndarray:
    """Through the predictor, as an extraction does."""
    logits = Predictor(network, batch_size, output=Output(**output)).logits(INPUTS[:n])
    assert logits.dtype == np.float32
    assert len(logits) == n
    return logits


@pytest.mark.parametrize(
    "make", [Residual, lambda: Recurrent("lstm"), lambda: Recurrent("gru"), Attention],
    ids=["residual", "lstm", "gru", "attention"],
)  # fmt: skip
def test_networks_of_many_kinds(graph: None, make: Any) -> None:
    network = made(make())
    found = run(network)
    assert found.shape == (N, CLASSES)
    np.testing.assert_array_equal(run(network, n=2), found[:2])  # whatever fills the batch up
    ms.set_context(mode=ms.PYNATIVE_MODE)
    np.testing.assert_allclose(network(Tensor(INPUTS)).asnumpy(), found, rtol=1e-4, atol=1e-5)


def test_half_precision(graph: None) -> None:
    network = made(Plain())
    expected = z_of(network)
    np.testing.assert_allclose(run(network.to_float(ms.float16)), expected, atol=0.02)


def test_bfloat16_is_widened_exactly(mode: int) -> None:
    network = made(Plain("bfloat16"))
    found = run(network)
    assert not (found.view(np.uint32) & 0xFFFF).any()  # nothing beyond bfloat16's bits
    np.testing.assert_allclose(found, z_of(network), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("kind", "choice"), [("dict", {"key": "logits"}), ("tuple", {"index": 0}), ("list", {"index": 1})]
)
def test_one_of_several_outputs(mode: int, kind: str, choice: dict[str, Any]) -> None:
    network = made(Plain(kind))
    np.testing.assert_allclose(run(network, **choice), z_of(network), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "choice", "rule"),
    [
        ("dict", {}, r"model: must give one tensor of logits, got dict: 'logits' Float32 6x4, 'hidden' Float32 6x48; "),
        ("dict", {"key": "z"}, r"model\.key: must be a key of what .* 'hidden' Float32 6x48, got 'z'$"),
        ("dict", {"index": 0}, r"model\.index: must go with a network that gives a tuple or list, got dict: 'logits'"),
        ("tuple", {"key": "logits"}, r"model\.key: must go with a network that gives a dict, got tuple: 0 Float32 6x4"),
        ("tuple", {"index": 2}, r"model\.index: must be in \[0, 2\), .* got 2$"),
        ("", {"key": "logits"}, r"model\.key: must go with a network that gives a dict, got Float32 6x4$"),
        ("", {"index": 0}, r"model\.index: must go with a network that gives a tuple or list, got Float32 6x4$"),
        ("nested", {"key": "heads"}, r"model\.key: must give one tensor of logits, got tuple: 0 Float32 6x4, 1 F"),
        ("nested", {"key": "n"}, r"model\.key: must give one tensor of logits, got int$"),
        ("nested", {"key": "nothing"}, r"model\.key: must give one tensor of logits, got NoneType$"),
        ("sequence", {}, r"got Float32 \(6, 3, 4\); write model\.output: FILE\.py:function, which makes one"),
        ("classes", {}, r"got Int\d+ \(6,\); classes alone do not say how sure the network is: leave out argmax"),
        ("bools", {}, r"got Bool \(6, 4\); classes alone"),
    ],
)
def test_outputs_that_need_a_word(kind: str, choice: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        run(made(Plain(kind)), **choice)
    assert len(str(caught.value).splitlines()) == 1


def test_wrong_numbers_of_rows() -> None:
    rows = np.arange(N)
    for shape in ((N - 1, 4), (N + 1, 4), (N - 1,), (0, 4), (N, 0), ()):
        with pytest.raises(InputError, match=r"shape \(6, 2 or more\), or one for each sample, got Float32 \("):
            Output().logits(Tensor(np.zeros(shape, np.float32)), rows, N)
    with pytest.raises(InputError, match=r"got Complex64"):
        Output().logits(Tensor(np.zeros((N, 4), np.complex64)), rows, N)


# --- one number for each sample --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "flat"])
def test_one_logit_becomes_two_columns(mode: int, kind: str) -> None:
    network = made(Plain(kind, width=1))
    found = run(network)
    np.testing.assert_array_equal(found[:, 0], 0)
    np.testing.assert_allclose(found[:, 1], z_of(network)[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(softmax(found, axis=1)[:, 1], expit(z_of(network)[:, 0]), rtol=1e-4)


def test_one_probability_becomes_two_logits(mode: int) -> None:
    network = made(Plain("sigmoid", width=1))
    found = run(network, kind="probabilities").astype(float)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], z_of(network)[:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9, 1 - 2**-24, 0.3])
def test_two_logits_of_a_probability_are_those_of_its_two_columns(p: float) -> None:
    rows = np.arange(2)
    one = Output("probabilities").logits(Tensor([p, 0.5], ms.float32), rows, 2)
    two = np.array([[1 - np.float32(p), p], [0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(one, Output("probabilities").logits(Tensor(two), rows, 2))
    assert np.isfinite(one).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan, np.inf])
def test_what_is_no_probability(p: float) -> None:
    with pytest.raises(InputError, match=rf"model\.output: probabilities: one for each .* in \[0, 1\], got {p}"):
        Output("probabilities").logits(Tensor([0.5, p], ms.float32), np.arange(2), 2)


def test_what_fills_the_batch_up_is_not_looked_at() -> None:
    given = Tensor([0.5, np.nan, 7], ms.float32)
    found = Output("probabilities").logits(given, np.array([0]), 3)
    np.testing.assert_array_equal(found, np.log([[0.5, 0.5]], dtype=np.float32))


# --- functions of a user's own ---------------------------------------------------------------------------------------

FUNCTIONS = '''
import sys
import numpy as np
last_step = lambda given: given[:, -1]
def heads(given):
    z, hidden = given["heads"]
    assert isinstance(z, np.ndarray) and hidden.shape == (6, 48) and given["nothing"] is None
    return z + 1
def margin(given): return given[:, 1] - given[:, 0]
def as_list(given): return given.tolist()
def classes(given): return given.argmax(axis=1)
def short(given): return given[:-1]
def deep(given): return given[:, None]
def empty(given): return given[:, :0]
def text(given): return [str(row) for row in given]
def ragged(given): return [[1.0], [1.0, 2.0]]
def nothing(given): return None
def raises(given): raise KeyError("no such head")
def ends(given): sys.exit(3)
def two(given, more): return given
number = 3
'''


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("functions") / "outputs.py"
    path.write_text(FUNCTIONS)
    return path


def named(functions: Path, name: str, **more: Any) -> Output:
    model = {"factory": "a:b", "checkpoint": functions, "output": f"{functions}:{name}", **more}
    return Output.of(ModelConfig.model_validate(model))


def given_to(output: Output, network: nn.Cell, n: int = N) -> np.ndarray:
    return Predictor(network, N, output=output).logits(INPUTS[:n])


def test_a_function_makes_one_prediction_of_a_sequence(graph: None, functions: Path) -> None:
    network = made(Plain("sequence"))
    found = given_to(named(functions, "last_step"), network)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, z_of(network) + 2, rtol=1e-4, atol=1e-5)


def test_a_function_gets_arrays_in_the_structure_that_the_network_gives(mode: int, functions: Path) -> None:
    network = made(Plain("nested"))
    np.testing.assert_allclose(given_to(named(functions, "heads"), network, n=3), z_of(network)[:3] + 1, rtol=1e-4)


@pytest.mark.parametrize(("kind", "choice"), [("tuple", {"index": 0}), ("dict", {"key": "logits"})])
def test_a_function_gets_the_entry_that_is_chosen(functions: Path, kind: str, choice: dict[str, Any]) -> None:
    network = made(Plain(kind))
    found = given_to(named(functions, "margin", **choice), network)
    z = z_of(network)
    np.testing.assert_array_equal(found[:, 0], 0)
    np.testing.assert_allclose(found[:, 1], z[:, 1] - z[:, 0], rtol=1e-3, atol=1e-5)


def test_a_function_may_give_lists(functions: Path) -> None:
    network = made(Plain())
    np.testing.assert_array_equal(given_to(named(functions, "as_list"), network), run(network))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("classes", r"floating-point logits of shape \(6, classes\) or \(6,\), got int64 \(6,\); classes alone"),
        ("short", r"got float32 \(5, 4\)$"), ("deep", r"got float32 \(6, 1, 4\)$"), ("empty", r"got float32 \(6, 0\)$"),
        ("text", r"got <U\d+ \(6,\)"), ("ragged", "raised ValueError"), ("nothing", r"got object \(\)"),
        ("raises", "raised KeyError: 'no such head', given Float32 6x4$"), ("ends", "raised SystemExit: 3"),
        ("two", "raised TypeError: two"),
    ],
)
def test_functions_that_do_not_give_logits(functions: Path, name: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        given_to(named(functions, name), made(Plain()))
    assert str(caught.value).startswith(f"model.output: {functions}:{name} ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "rule"), [("absent", "has no function 'absent'"), ("number", "must be callable")])
def test_functions_that_are_not_there(functions: Path, name: str, rule: str) -> None:
    with pytest.raises(InputError, match=rf"model\.output: .*{rule}"):
        named(functions, name)


def test_arrays_keep_their_structure_and_their_types() -> None:
    pair = namedtuple("pair", "a b")(Tensor([1.5], ms.bfloat16), [Tensor([2], ms.int8)])
    first, (second,) = as_arrays(pair)
    assert (first.dtype, second.dtype) == (np.float32, np.int8)
    assert as_arrays({"a": (None, 3)}) == {"a": (None, 3)}


# --- training --------------------------------------------------------------------------------------------------------


def trained(network: nn.Cell, output: Output) -> tuple[np.ndarray, list[float]]:
    """The weights after three steps of the training, and the losses before each."""
    x, y = Tensor(INPUTS), Tensor([0, 1, 1, 0, 1, 0], ms.int32)
    step = TrainStep(network, nn.SGD(network.trainable_params(), 0.1), Ranks(), output)
    network.set_train(True)
    losses = [float(step(x, y)[0].asnumpy()) for _ in range(3)]
    return network.dense.weight.asnumpy(), losses


@pytest.mark.parametrize(
    ("kind", "width", "output"),
    [
        ("flat", 1, Output()), ("sigmoid", 1, Output("probabilities")), ("dict", 1, Output(key="logits")),
        ("softmax", 2, Output("probabilities")),
    ],
)
def test_a_step_is_logistic_regression_whatever_the_form(graph: None, kind: str, width: int, output: Output) -> None:
    """Three steps against the closed form: the gradient is (p - y) x."""
    network = made(Plain(kind, width))
    weight, bias = (each.asnumpy().astype(float) for each in (network.dense.weight, network.dense.bias))
    x, y = INPUTS.reshape(N, -1).astype(float), np.array([0, 1, 1, 0, 1, 0])
    expected = []
    for _ in range(3):
        z = x @ weight.T + bias
        p = softmax(np.column_stack([np.zeros(N), z]) if width == 1 else z, axis=1)
        expected.append(-np.log(p[np.arange(N), y]).mean())
        error = ((p - np.eye(2)[y]) / N)[:, -width:]
        weight, bias = weight - 0.1 * error.T @ x, bias - 0.1 * error.sum(axis=0)
    found, losses = trained(network, output)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    np.testing.assert_allclose(found, weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 2), (N, CLASSES)], ids=str)
@pytest.mark.parametrize(("key", "index"), [(None, None), ("a", None), (None, 1)], ids=["all", "key", "index"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_logits_are_the_same_within_a_graph(
    graph: None, kind: str, key: str | None, index: int | None, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(7).uniform(0.1, 0.9, shape).astype(np.float32)
    if kind == "probabilities" and values[0].size > 1:
        values /= values.sum(axis=1, keepdims=True)
    other, chosen = Tensor(INPUTS), Tensor(values)
    given = {"b": other, "a": chosen} if key else (other, chosen) if index else chosen
    output = Output(kind, key, index)
    expected = output.logits(given, np.arange(N), N)
    np.testing.assert_allclose(LogitsInGraph(output)(given).asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_there_is_no_training_through_a_function(functions: Path) -> None:
    with pytest.raises(InputError, match=r"model\.output: must be logits or probabilities to train on: .*, got /"):
        LogitsInGraph(named(functions, "margin"))


def test_a_probability_of_zero_has_a_finite_loss(graph: None) -> None:
    found = LogitsInGraph(Output("probabilities"))(Tensor([[0.0, 1.0]], ms.float32)).asnumpy()
    assert np.isfinite(found).all()
