"""Every optimizer that MindSpore has, found by looking, trains a network; what it saves is told from weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.experimental import optim as experimental
from mindspore.mint import optim as mint
from mindspore.train.train_thor import ConvertNetUtils

from mia_batch.errors import InputError
from mia_batch.network import checkpoint
from mia_batch.network.checkpoint_bytes import stated_entries
from mia_batch.network.checkpoint_entry import Entry, Stated
from mia_batch.network.optimizer_state import OptimizerState
from mia_batch.settings.schema import ModelConfig

NETWORK = '''
from mindspore import nn
class Small(nn.Cell):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Dense(4, 6), nn.BatchNorm1d(6)
        self.moments = nn.Dense(6, 3)
    def construct(self, x):
        return self.moments(self.norm(self.linear(x)))
def build(): return Small()
def plain(): return nn.SequentialCell(nn.Dense(4, 6), nn.Dense(6, 3))
'''
KINDS = {"nn": (nn, nn.Optimizer), "experimental": (experimental, experimental.Optimizer),
         "mint": (mint, experimental.Optimizer)}  # fmt: skip
# Arguments that have no default, and those that bring more state.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "nn.Momentum": [{"learning_rate": 0.1, "momentum": 0.9}, {"learning_rate": [0.1, 0.2], "momentum": 0.9}],
    "nn.Lamb": [{"learning_rate": 0.1}],
    "nn.Adam": [{}, {"use_amsgrad": True}, {"weight_decay": 0.1, "loss_scale": 8.0}, {"learning_rate": [0.1, 0.2]},
                {"learning_rate": nn.ExponentialDecayLR(0.1, 0.9, 4)}],
    "nn.AdaFactor": [{}, {"beta1": 0.0}, {"relative_step": False, "scale_parameter": False, "learning_rate": 0.1},
                     {"compression": True}],
    "nn.RMSProp": [{}, {"centered": True}, {"momentum": 0.9}],
    "nn.SGD": [{}, {"momentum": 0.9, "nesterov": True}],
    "experimental.Adam": [{}, {"amsgrad": True}], "experimental.AdamW": [{}, {"amsgrad": True}],
    "experimental.RMSprop": [{}, {"centered": True, "momentum": 0.9}],
    "experimental.SGD": [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}],
    "mint.SGD": [{"lr": 0.1, "momentum": 0.9}],
}  # fmt: skip
ONE_RATE = {"nn.FTRL"}  # these take no groups with rates of their own
WRAPPERS = {"nn.LARS", "nn.OptTFTWrapper"}  # around an optimizer; the second needs MindIO on Ascend
RUN = {"nn.Adam", "nn.SGD", "experimental.Adam", "mint.SGD"}  # a step compiles for a second


def optimizers() -> dict[str, type]:
    """Every optimizer class of MindSpore's public modules."""
    return {
        f"{kind}.{name}": found
        for kind, (module, base) in KINDS.items()
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, base) and found is not base
    }


CASES = [
    (name, arguments, grouped)
    for name in sorted(set(optimizers()) - WRAPPERS)
    for arguments in ARGUMENTS.get(name, [{}])
    for grouped in ((False,) if name in ONE_RATE else (False, True))
]


def groups(network: nn.Cell, name: str) -> list[dict[str, Any]]:
    """Two groups, of which each has its own rate, in nn one of them for every step; the second is decayed."""
    first, second = network.trainable_params()[:2], network.trainable_params()[2:]
    rates = {"nn.Adam": [0.1, 0.2], "nn.Momentum": [0.1, 0.2]}
    return [{"params": first, "lr": rates.get(name, 0.1)}, {"params": second, "lr": 0.2, "weight_decay": 0.01}]


def train_one_step(network: nn.Cell, optimizer: nn.Cell) -> None:
    rng = np.random.default_rng(0)
    x, y = Tensor(rng.normal(size=(5, 4)).astype(np.float32)), Tensor([0, 1, 2, 0, 1], ms.int32)
    step = ms.value_and_grad(lambda: ops.cross_entropy(network(x), y), None, network.trainable_params())
    optimizer(step()[1])


@pytest.fixture(autouse=True)
def _step_by_step() -> Iterator[None]:
    """Other tests may have left graph mode, which compiles for seconds."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    folder = tmp_path_factory.mktemp("model")
    (folder / "small.py").write_text(NETWORK)
    return ModelConfig.model_validate({"factory": f"{folder}/small.py:build", "checkpoint": folder / "net.ckpt"})


@pytest.fixture
def network(model: ModelConfig) -> nn.Cell:
    return checkpoint.build_network(model, (8, 8))


def saved(model: ModelConfig, thing: Any, path: Path, **options: Any) -> ModelConfig:
    ms.save_checkpoint(thing, str(path), format=path.suffix.removeprefix("."), **options)
    return model.model_copy(update={"checkpoint": path})


def loaded(model: ModelConfig, network: nn.Cell, weights: Mapping[str, np.ndarray] | None = None) -> None:
    """The checkpoint loads, and gives the network's own weights."""
    found = checkpoint.load_network(model, (8, 8)).parameters_dict()
    expected = weights or {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].asnumpy(), array)


def test_that_they_are_found() -> None:
    found = optimizers()
    assert len(found) >= 32
    assert {"nn.Adam", "nn.Lamb", "experimental.NAdam", "mint.SGD"} <= found.keys()
    assert not (ARGUMENTS.keys() | WRAPPERS | RUN) - found.keys()


@pytest.mark.parametrize(("name", "arguments", "grouped"), CASES)
def test_what_every_optimizer_saves_is_told_from_weights(
    model: ModelConfig, network: nn.Cell, tmp_path: Path, name: str, arguments: dict[str, Any], grouped: bool
) -> None:
    trained = groups(network, name) if grouped else network.trainable_params()
    optimizer = optimizers()[name](trained, **arguments)
    if grouped and name in RUN and arguments == ARGUMENTS.get(name, [{}])[-1]:
        train_one_step(network, optimizer)
    everything = [*network.get_parameters(), *optimizer.get_parameters(), *_listed(optimizer)]
    entries = [{"name": each.name, "data": each} for each in {each.name: each for each in everything}.values()]
    assert len(entries) > len(network.parameters_dict())
    for suffix in ("ckpt", "safetensors"):
        loaded(saved(model, entries, tmp_path / f"net.{suffix}"), network)


def _listed(optimizer: nn.Cell) -> Iterator[Parameter]:
    """Parameters in lists, which are no attributes of the cell, but which users append."""
    for value in (*vars(optimizer).values(), *getattr(optimizer, "lrs", ())):
        yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, Parameter))


@pytest.mark.parametrize("grouped", [False, True])
def test_lars_around_an_optimizer(model: ModelConfig, network: nn.Cell, tmp_path: Path, grouped: bool) -> None:
    inner = nn.Momentum(groups(network, "") if grouped else network.trainable_params(), 0.1, 0.9)
    loaded(saved(model, nn.TrainOneStepCell(network, nn.LARS(inner)), tmp_path / "net.ckpt"), network)


class Own(nn.Cell):
    """A cell of a user's own that trains: its attributes stand before every name."""

    def __init__(self, network: nn.Cell, optimizer: nn.Cell) -> None:
        super().__init__()
        self.network, self.opt = network, optimizer


def training_cells(network: nn.Cell) -> dict[str, Callable[[], nn.Cell]]:
    """The cells that MindSpore trains with, each around the network."""
    from mindspore import amp, boost

    def momentum() -> nn.Cell:
        return nn.Momentum(network.trainable_params(), 0.1, 0.9)

    def with_loss() -> nn.Cell:
        return nn.WithLossCell(network, nn.MSELoss())

    scaled = nn.TrainOneStepWithLossScaleCell
    return {
        "one step": lambda: nn.TrainOneStepCell(with_loss(), momentum()),
        "dynamic loss scale": lambda: scaled(with_loss(), momentum(), nn.DynamicLossScaleUpdateCell(1024.0, 2, 1000)),
        "fixed loss scale": lambda: scaled(with_loss(), momentum(), nn.FixedLossScaleUpdateCell(1024.0)),
        "scale as tensor": lambda: scaled(with_loss(), momentum(), Tensor(1024.0, ms.float32)),
        "O1": lambda: amp.build_train_network(network, momentum(), nn.MSELoss(), level="O1"),
        "O3": lambda: amp.build_train_network(network, momentum(), nn.MSELoss(), level="O3"),
        "boost": lambda: boost.BoostTrainOneStepCell(with_loss(), momentum()),
        "pipeline's gradients": lambda: nn.CellList(
            [network, nn.PipelineGradReducer(ms.ParameterTuple(network.trainable_params()), scale_sense=1)],
            auto_prefix=False,
        ),
    }


@pytest.mark.parametrize(
    "kind", ["one step", "dynamic loss scale", "fixed loss scale", "scale as tensor", "O1", "O3", "boost",
             "pipeline's gradients"],
)  # fmt: skip
def test_what_cells_that_train_save(
    model: ModelConfig, network: nn.Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # O1 writes a rewritten network there
    cell = training_cells(network)[kind]()
    assert len(cell.parameters_dict()) > len(network.parameters_dict())
    loaded(saved(model, cell, tmp_path / "net.ckpt"), network)


def test_an_optimizer_alone_has_the_weights_but_not_the_statistics(
    model: ModelConfig, network: nn.Cell, tmp_path: Path
) -> None:
    optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.9)
    with pytest.raises(InputError, match=r"missing: norm\.moving_mean, norm\.moving_variance$"):
        checkpoint.load_network(saved(model, optimizer, tmp_path / "net.ckpt"), (8, 8))


def test_a_cell_of_ones_own_that_trains_needs_two_prefixes(
    model: ModelConfig, network: nn.Cell, tmp_path: Path
) -> None:
    weights = {name: parameter.asnumpy().copy() for name, parameter in network.parameters_dict().items()}
    own = Own(network, nn.Adam(network.trainable_params(), 0.1))
    model = saved(model, own, tmp_path / "net.ckpt")
    rules = '"network.*": "*", "opt.*": "*"'
    with pytest.raises(InputError) as caught:
        checkpoint.load_network(model, (8, 8))
    advice = f"under the prefixes network., opt.; write {{{rules}}} into a model.rename file"
    assert str(caught.value).endswith(advice)
    (tmp_path / "names.yaml").write_text(f"{{{rules}}}")
    loaded(model.model_copy(update={"rename": tmp_path / "names.yaml"}), network, weights)


def test_thor(model: ModelConfig, tmp_path: Path) -> None:
    """Its layers have matrices of their own, which the network that is audited lacks."""
    model = model.model_copy(update={"factory": model.factory.replace(":build", ":plain")})
    network = checkpoint.build_network(model, (8, 8))
    plain = list(network.parameters_dict())
    ConvertNetUtils().convert_to_thor_net(network)
    rates = Tensor([0.1, 0.1], ms.float32)
    saved_model = saved(model, nn.TrainOneStepCell(network, nn.thor(network, rates, rates, 0.9)), tmp_path / "net.ckpt")
    names = stated_entries(saved_model.checkpoint).entries.keys()
    assert {"0.matrix_a", "1.matrix_g", "matrix_a_inv_0", "cov_step"} <= names
    loaded(saved_model, network, {name: network.parameters_dict()[name].asnumpy() for name in plain})


def test_a_layer_of_thor_has_a_weight() -> None:
    shapes = {"table.embedding_table": (5, 4), "table.matrix_a": (5,), "table.matrix_g": (4, 4), "b.matrix_a": (4, 4)}
    state = OptimizerState(stated(shapes), {"table.embedding_table": (5, 4)})
    assert [name for name in shapes if state.has(name)] == ["table.matrix_a", "table.matrix_g"]


# --- what is no state ------------------------------------------------------------------------------------------------


def stated(shapes: Mapping[str, tuple[int, ...]], kind: str = "Float32", *, ordered: bool = True) -> Stated:
    return Stated({name: Entry(name, kind, dims, 0) for name, dims in shapes.items()}, ordered=ordered)


WEIGHTS = {"a.weight": (2, 3), "a.bias": (2,), "scale": ()}


@pytest.mark.parametrize(
    "strange",
    [
        {"linear.a.weight": (2, 3)},  # FTRL keeps moments too
        {"moment1.a.weight": (2, 3)}, {"prev.a.weight": (2, 3)},
        {"moments.a.weight": (3, 2)}, {"moments.b.weight": (2, 3)}, {"moments.weight": (2, 3)},
        {"stat.a.weight": (2, 3)}, {"exp_avg.a.weight": (2, 3)}, {"mu_a.weight": ()}, {"exp_avg_sq_a.weight": (2, 3)},
        {"momentum": (4,)}, {"global_step": (2, 2)}, {"learning_rate": (2, 2)}, {"b.learning_rate": ()},
        {"decoder.momentum": ()}, {"temperature": (1,)}, {"b.temperature": ()}, {"Parameter$1": (1,)},
    ],
)
def test_what_could_be_a_weight_of_another_network_is_none(strange: dict[str, tuple[int, ...]]) -> None:
    state = OptimizerState(stated(WEIGHTS | strange), WEIGHTS)
    assert not any(state.has(name) for name in strange)


def test_only_what_is_kept_of_the_same_parameter_counts() -> None:
    state = OptimizerState(stated(WEIGHTS | {"linear.a.weight": (2, 3), "moments.a.bias": (2,)}), WEIGHTS)
    assert (state.has("linear.a.weight"), state.has("moments.a.bias")) == (False, True)


def test_the_same_beside_what_is_kept_with_it_is_state() -> None:
    both = {"linear.a.weight": (2, 3), "moments.a.weight": (2, 3)}
    state = OptimizerState(stated(WEIGHTS | both), WEIGHTS)
    assert all(state.has(name) for name in both)


def test_a_number_without_a_module_counts_where_append_dict_puts_it() -> None:
    behind = OptimizerState(stated(WEIGHTS | {"moments.a.weight": (2, 3), "accuracy": ()}), WEIGHTS)
    before = OptimizerState(stated({"accuracy": ()} | WEIGHTS), WEIGHTS)
    between = OptimizerState(stated(WEIGHTS | {"accuracy": (), "moments.a.weight": (2, 3)}), WEIGHTS)
    assert behind.has("accuracy")
    assert not before.has("accuracy")
    assert not between.has("accuracy")
    single = {"weight": (2, 3)}  # of one cell: its own scale would stand there too
    assert not OptimizerState(stated(single | {"scale": ()}), single).has("scale")


@pytest.mark.parametrize(("kind", "expected"), [("I64", True), ("BOOL", True), ("F32", False), ("BF16", False)])
def test_without_an_order_only_whole_numbers_are_appended(kind: str, expected: bool) -> None:
    assert OptimizerState(stated(WEIGHTS | {"best": ()}, kind, ordered=False), WEIGHTS).has("best") is expected


def test_what_append_dict_adds(model: ModelConfig, network: nn.Cell, tmp_path: Path) -> None:
    extra = {"epoch": 3, "rate": 0.1, "best": True, "random_op": ms.Generator(), "note": "text", "empty": ""}
    trained = nn.TrainOneStepCell(network, nn.Momentum(network.trainable_params(), 0.1, 0.9))
    path = tmp_path / "net.ckpt"
    loaded(saved(model, trained, path, append_dict=extra), network)
    assert list(stated_entries(path).entries)[-6:] == list(extra)


def test_moving_averages(model: ModelConfig, network: nn.Cell, tmp_path: Path) -> None:
    """Plain names win; `model.prefix` chooses the others."""
    parameters = list(network.get_parameters())
    average = ms.ParameterTuple(parameters).clone("ema", "same")
    for parameter in average:
        parameter.set_data(Tensor(parameter.asnumpy() + 1))
    both = [{"name": each.name, "data": each} for each in (*average, *parameters)]
    model = saved(model, both, tmp_path / "net.ckpt")
    loaded(model, network)
    expected = {name: each.asnumpy() + 1 for name, each in network.parameters_dict().items()}
    loaded(model.model_copy(update={"prefix": "ema."}), network, expected)
    alone = saved(model, both[: len(average)], tmp_path / "ema.ckpt")
    with pytest.raises(InputError, match=r"which are all there under a prefix; write model\.prefix: ema\.$"):
        checkpoint.load_network(alone, (8, 8))
