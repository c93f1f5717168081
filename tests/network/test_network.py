"""Placement, checkpoints, preprocessing and the forward pass, with MindSpore itself on small networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import open_samples, select_all

ms = pytest.importorskip("mindspore")

from mindspore import dataset as ds  # noqa: E402
from mindspore import nn  # noqa: E402
from mindspore.dataset import vision  # noqa: E402

from mia_batch.data.selection import Selection, read_inputs  # noqa: E402
from mia_batch.errors import InputError  # noqa: E402
from mia_batch.inputs import describe_inputs  # noqa: E402
from mia_batch.network import batches, checkpoint, placement, preprocess  # noqa: E402
from mia_batch.network.build import build_network  # noqa: E402
from mia_batch.network.forward import Predictor  # noqa: E402
from mia_batch.network.outputs import Output  # noqa: E402
from mia_batch.network.placement import Placement, place  # noqa: E402
from mia_batch.network.preprocess import Preprocess  # noqa: E402
from mia_batch.settings.schema import DataConfig, ModelConfig  # noqa: E402

MEAN, STD = (0.4465, 0.4822, 0.4914), (0.2010, 0.1994, 0.2023)

# --- placement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["Ascend", "GPU"])
def test_eight_cards_on_each_of_two_hosts(device: str) -> None:
    for rank in range(16):  # ranks 0 to 7 on the first host, 8 to 15 on the second
        assert place(device, rank % 8, 8, {}, n_cards=8) == Placement(device, rank % 8)


@pytest.mark.parametrize(
    ("device", "variable", "value"),
    [
        ("GPU", "CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7"),
        ("GPU", "CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b, GPU-c,GPU-d"),
        ("Ascend", "ASCEND_RT_VISIBLE_DEVICES", "4,5,6,7"),
        ("Ascend", "ASCEND_VISIBLE_DEVICES", "0-3,6"),
    ],
)
def test_all_ranks_see_the_nodes_cards(device: str, variable: str, value: str) -> None:
    for rank in range(4):  # counted among the visible ones, not by the cards' own numbers
        assert place(device, rank, 4, {variable: value}) == Placement(device, rank)


@pytest.mark.parametrize("environ", [{"SLURM_GPUS_PER_TASK": "1"}, {"SLURM_GPUS_ON_NODE": "8"}])
def test_one_card_for_each_task(environ: dict[str, str]) -> None:
    for rank in range(8):  # under cgroups every task's card is its number 0
        assert place("GPU", rank, 8, environ | {"CUDA_VISIBLE_DEVICES": "0"}) == Placement("GPU", 0)


def test_one_card_for_each_task_as_the_peers_show() -> None:
    peers = [(str(card),) for card in range(8)]
    for rank in range(8):
        assert place("Ascend", rank, 8, {"ASCEND_RT_VISIBLE_DEVICES": str(rank)}, peers=peers) == Placement("Ascend", 0)
    halves = [("0", "1")] * 2 + [("2", "3")] * 2
    ids = [
        place("Ascend", rank, 4, {"ASCEND_RT_VISIBLE_DEVICES": ",".join(halves[rank])}, peers=halves).device_id
        for rank in range(4)
    ]
    assert ids == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("environ", "cards", "seen"),
    [
        ({}, 8, "GPU cards in the node"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, 2, "CUDA_VISIBLE_DEVICES=2,3"),
        ({"CUDA_VISIBLE_DEVICES": "5"}, 1, "CUDA_VISIBLE_DEVICES=5"),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 1, "CUDA_VISIBLE_DEVICES=0"),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, "CUDA_VISIBLE_DEVICES="),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0, "CUDA_VISIBLE_DEVICES="),
    ],
)
def test_more_ranks_than_cards(environ: dict[str, str], cards: int, seen: str) -> None:
    for rank in range(9):  # every rank refuses, not only the last
        with pytest.raises(InputError, match=rf"got 9 ranks on this node and {cards} cards \({seen}\)"):
            place("GPU", rank, 9, environ, n_cards=8)


def test_auto_is_what_mindspore_reports() -> None:
    assert place("auto", 1, 2, {}) == Placement("CPU", 0)
    assert place("auto", 1, 2, {}, reported="Ascend", n_cards=2) == Placement("Ascend", 1)
    assert place("CPU", 5, 9, {"CUDA_VISIBLE_DEVICES": "0"}) == Placement("CPU", 0)


def test_the_runtime_variable_counts_before_the_containers() -> None:
    environ = {"ASCEND_RT_VISIBLE_DEVICES": "3", "ASCEND_VISIBLE_DEVICES": "0-7"}
    assert placement.visible_cards("Ascend", environ) == ("3",)
    assert placement.visible_cards("GPU", environ) is None


@pytest.mark.parametrize(
    ("version", "slow"), [("2.7.0", False), ("2.8.0", False), ("2.9.0", True), ("2.10.1", True), ("3.0", True)]
)
def test_versions_that_are_slow_on_cpu(version: str, slow: bool) -> None:
    assert placement.slow_on_cpu(version) is slow


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match="must be able to use Ascend:0") as caught:
        placement.set_up(Placement("Ascend", 0))
    assert len(str(caught.value).splitlines()) == 1
    placement.set_up(Placement("CPU"))


# --- checkpoints -----------------------------------------------------------------------------------------------------

NETWORK = '''
from mindspore import nn
class Small(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.SequentialCell([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 2)])
        self.flatten = nn.Flatten()
        self.classifier = nn.Dense(4 * 16, classes)
    def construct(self, x):
        return self.classifier(self.flatten(self.layers(x)))
def build(classes=5): return Small(classes)
'''


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    (tmp_path / "net.py").write_text(NETWORK)
    model = ModelConfig.model_validate({"factory": f"{tmp_path}/net.py:build", "checkpoint": tmp_path / "net.ckpt"})
    ms.set_seed(3)
    network = build_network(model, (8, 8))
    ms.save_checkpoint(network, str(model.checkpoint))
    model.checkpoint.chmod(0o644)
    return model


def entries(model: ModelConfig) -> dict[str, Any]:
    return dict(ms.load_checkpoint(str(model.checkpoint)))


def save(model: ModelConfig, values: dict[str, Any], **options: Any) -> None:
    parameters = [{"name": name, "data": ms.Tensor(np.asarray(value))} for name, value in values.items()]
    model.checkpoint.chmod(0o644)
    ms.save_checkpoint(parameters, str(model.checkpoint), **options)
    model.checkpoint.chmod(0o644)


def arrays(model: ModelConfig) -> dict[str, np.ndarray]:
    return {name: parameter.asnumpy() for name, parameter in entries(model).items()}


def test_a_checkpoint_that_matches(model: ModelConfig) -> None:
    network = checkpoint.load_network(model, (8, 8))
    expected = arrays(model)
    assert set(expected) == set(network.parameters_dict())
    for name, parameter in network.parameters_dict().items():
        np.testing.assert_array_equal(parameter.asnumpy(), expected[name])
    assert not network.training


def test_optimizer_state_is_ignored(model: ModelConfig) -> None:
    values = arrays(model)
    state = {f"moments.{name}": value * np.nan for name, value in values.items()}
    own = {"learning_rate": np.float32([0.1, 0.2]), "momentum": np.float32(0.9), "global_step": np.int32([7])}
    save(model, values | state | own, append_dict={"epoch_num": 3, "note": "text"})
    network = checkpoint.load_network(model, (8, 8))
    np.testing.assert_array_equal(network.parameters_dict()["classifier.bias"].asnumpy(), values["classifier.bias"])


def test_half_precision_weights_load(model: ModelConfig) -> None:
    values = {name: value.astype(np.float16) for name, value in arrays(model).items()}
    save(model, values)
    network = checkpoint.load_network(model, (8, 8))
    weight = network.parameters_dict()["classifier.weight"]
    assert weight.dtype == ms.float32
    np.testing.assert_array_equal(weight.asnumpy(), values["classifier.weight"].astype(np.float32))


def test_other_suffixes(model: ModelConfig, tmp_path: Path) -> None:
    network = checkpoint.load_network(model, (8, 8))
    ms.save_checkpoint(network, str(tmp_path / "net.safetensors"), format="safetensors")
    checkpoint.load_network(model.model_copy(update={"checkpoint": tmp_path / "net.safetensors"}), (8, 8))
    (tmp_path / "net.pth").write_bytes(model.checkpoint.read_bytes())
    with pytest.raises(InputError, match=r"must end in \.ckpt, .* or \.npz, got net\.pth; save its state_dict"):
        checkpoint.load_network(model.model_copy(update={"checkpoint": tmp_path / "net.pth"}), (8, 8))


def _without(name: str) -> Any:
    return lambda values: {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (_without("classifier.bias"), ["the network's parameters, missing: classifier.bias$"]),
        (lambda v: v | {"extra.weight": np.zeros(2, np.float32)}, ["no other parameters, unexpected: extra.weight$"]),
        (lambda v: v | {"moments.extra": np.zeros(2, np.float32)}, ["unexpected: moments.extra$"]),
        (
            lambda v: v | {f"classifier.{k}": np.zeros(n, np.float32) for k, n in (("weight", (9, 64)), ("bias", 9))},
            ["the network's shapes: classifier.weight 9x64 for 5x64, classifier.bias 9 for 5$"],
        ),
        (lambda v: v | {"classifier.bias": np.full(5, np.nan, np.float32)}, ["finite numbers: classifier.bias$"]),
        (lambda v: v | {"layers.0.weight": v["layers.0.weight"] / 0}, ["finite numbers: layers.0.weight$"]),
        (
            lambda v: v | {"classifier.bias": np.ones(5, np.int8), "classifier.weight": v["classifier.weight"] > 0},
            ["the network's kinds of numbers: classifier.weight Bool for Float32, classifier.bias Int8 for Float32$"],
        ),
        (lambda v: v | {"classifier.bias": np.full(5, 1e39)}, ["finite numbers: classifier.bias$"]),
        (
            lambda v: {f"net{key}": value for key, value in v.items()},
            [r"missing: .* and 2 more \(7 in all\)$", r"unexpected: .* and 2 more \(7 in all\)$"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
def test_checkpoints_that_do_not_match(model: ModelConfig, change: Any, rules: list[str]) -> None:
    save(model, change(arrays(model)))
    with pytest.raises(InputError) as caught:
        checkpoint.load_network(model, (8, 8))
    assert len(caught.value.problems) == len(rules)
    for problem, rule in zip(caught.value.problems, rules, strict=True):
        assert problem.startswith(f"{model.checkpoint}: model.checkpoint: must have ")
        assert re.search(rule, problem)


def _missing(path: Path) -> None:
    path.unlink()


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (_missing, "must be a checkpoint file, got nothing there"),
        (_make_folder, "must be a checkpoint file, got a folder"),
        (lambda path: path.write_bytes(b""), "got an empty file"),
        (lambda path: path.write_text("weights: none\n" * 20), "complete MindSpore checkpoint, got 280 bytes"),
        (lambda path: path.write_bytes(bytes(4000)), "must be a complete MindSpore checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "must be a complete MindSpore checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:700]), "must be a complete MindSpore checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint(
    model: ModelConfig, damage: Any, rule: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(model.checkpoint)
    with pytest.raises(InputError, match=rule) as caught:
        checkpoint.load_network(model, (8, 8))
    assert len(str(caught.value).splitlines()) == 1
    assert "ERROR" not in capfd.readouterr().err


def test_a_damaged_checkpoint_with_checksum(model: ModelConfig) -> None:
    network = checkpoint.load_network(model, (8, 8))
    model.checkpoint.unlink()
    ms.save_checkpoint(network, str(model.checkpoint), crc_check=True)
    checkpoint.load_network(model, (8, 8))
    content = bytearray(model.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    model.checkpoint.chmod(0o644)
    model.checkpoint.write_bytes(bytes(content))
    with pytest.raises(InputError, match="must be a complete MindSpore checkpoint"):
        checkpoint.load_network(model, (8, 8))


def test_a_tensor_cut_short_is_not_filled_with_zeros(model: ModelConfig) -> None:
    from mindspore.train.checkpoint_pb2 import Checkpoint

    save(model, arrays(model) | {"moments.layers.0.weight": np.zeros((4, 3, 3, 3), np.float32)})
    message = Checkpoint()
    message.ParseFromString(model.checkpoint.read_bytes())
    for value in message.value:
        value.tensor.tensor_content = value.tensor.tensor_content[:4]
    model.checkpoint.write_bytes(message.SerializeToString())
    with pytest.raises(InputError, match=r"entry 'layers.0.weight': 4x3x3x3 Float32 must have 432 bytes, got 4"):
        checkpoint.load_network(model, (8, 8))


# --- preprocessing ---------------------------------------------------------------------------------------------------


def naive(image: np.ndarray) -> np.ndarray:
    return ((image / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


def naive_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with pixel centres at halves, in float64."""
    result = image.astype(float)
    for axis, length in enumerate(size):
        place = np.clip((np.arange(length) + 0.5) * image.shape[axis] / length - 0.5, 0, image.shape[axis] - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        share = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        result = result.take(low, axis) * (1 - share) + result.take(high, axis) * share
    return result


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def test_preprocessing_without_resize_is_the_formula(images: np.ndarray) -> None:
    batch = Preprocess((32, 32), MEAN, STD)(images)
    assert (batch.dtype, batch.shape) == (np.float32, (6, 3, 32, 32))
    np.testing.assert_allclose(batch, [naive(image) for image in images], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (48, 40), (224, 224), (20, 32)])
@pytest.mark.parametrize("kind", ["array", "list", "channel-major"])
def test_preprocessing_is_mindspores_pipeline_bit_for_bit(images: np.ndarray, size: tuple[int, int], kind: str) -> None:
    pipeline = ds.NumpySlicesDataset({"image": images}, shuffle=False).map(
        [
            vision.Resize(size, vision.Inter.BILINEAR),
            vision.Rescale(1.0 / 255.0, 0.0),
            vision.Normalize(MEAN, STD),
            vision.HWC2CHW(),
        ],
        ["image"],
    )
    expected = [row["image"] for row in pipeline.create_dict_iterator(num_epochs=1, output_numpy=True)]
    given: Any = list(images) if kind == "list" else images
    if kind == "channel-major":  # as records are read
        given = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(Preprocess(size, MEAN, STD)(given), expected)


@pytest.mark.parametrize("size", [(48, 40), (224, 224)])
def test_resize_is_bilinear(images: np.ndarray, size: tuple[int, int]) -> None:
    batch = Preprocess(size, MEAN, STD)(images)
    expected = np.array([naive(naive_resize(image, size)) for image in images])
    step = 1 / 255 / min(STD)  # bytes are rounded after the resize
    assert np.abs(batch - expected).max() < 1.01 * step


def test_floats_are_pixels_too(images: np.ndarray) -> None:
    preprocess = Preprocess((32, 32), MEAN, STD)
    as_floats = preprocess([image.astype(np.float32) for image in images])
    np.testing.assert_allclose(as_floats, preprocess(images), rtol=1e-6, atol=1e-6)


def test_images_of_several_sizes_in_one_batch(images: np.ndarray) -> None:
    preprocess = Preprocess((32, 32), MEAN, STD)
    batch = preprocess([images[0], images[1, :20, :25]])
    np.testing.assert_array_equal(batch[0], preprocess(images[:1])[0])
    assert batch.shape == (2, 3, 32, 32)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(11)
    for name, count in (("train", 30), ("test", 25)):
        records = rng.integers(0, 256, (count, 3074), dtype=np.uint8)
        records[:, 0], records[:, 1] = 1, rng.integers(0, 5, count)
        records.tofile(tmp_path / f"{name}.bin")
    return tmp_path


def data_config(folder: Path, **changes: Any) -> DataConfig:
    fields = {"source": "cifar100", "path": folder, "members": {"split": "train"}, "nonmembers": {"split": "test"}}
    return DataConfig.model_validate(fields | changes)


@pytest.mark.parametrize("rows", [np.arange(55), np.arange(3, 41), np.array([0, 5, 7, 8, 29, 30, 54]), np.arange(0)])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_batches_give_the_rows_asked_for(folder: Path, rows: np.ndarray, batch_size: int) -> None:
    data = data_config(folder)
    selection = select_all(data)
    source = open_samples(data)
    seen = []
    for part, (images,), labels, kept in batches.batches(data, selection, rows, batch_size, network=nn.Cell()):
        assert len({row // batch_size for row in part.tolist()}) == 1
        np.testing.assert_array_equal(labels, selection.label[part])
        for row, image in zip(part, images, strict=True):
            raw = source.read(str(selection.split[row]), selection.sample_index[row : row + 1])[0].columns[0][0]
            np.testing.assert_allclose(image, naive(raw), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(kept, describe_inputs(read_inputs(source, selection, part)))
        seen += part.tolist()
    assert seen == rows.tolist()


def test_augmentation_changes_members_alone_and_depends_on_the_sample_alone(folder: Path) -> None:
    plain, changed = data_config(folder), data_config(folder, augment_members=True)
    selection = select_all(plain)

    everything = np.arange(55)
    kept = describe_inputs(read_inputs(open_samples(plain), selection, everything))

    def collect(data: DataConfig, batch_size: int, rows: np.ndarray, seed: int = 1) -> np.ndarray:
        read = batches.reader(data, selection, seed=seed)
        parts = list(batches.batches(data, selection, rows, batch_size, network=nn.Cell(), read=read))
        np.testing.assert_array_equal(np.concatenate([inputs for *_, inputs in parts]), kept[rows])
        return np.concatenate([images for _, (images,), *_ in parts])

    before, after = collect(plain, 16, everything), collect(changed, 16, everything)
    np.testing.assert_array_equal(after[30:], before[30:])
    assert (after[:30] != before[:30]).any(axis=(1, 2, 3)).sum() >= 28
    np.testing.assert_array_equal(collect(changed, 7, everything), after)
    np.testing.assert_array_equal(collect(changed, 7, everything[20:40]), after[20:40])
    assert not np.array_equal(collect(changed, 16, everything, seed=2), after)


def test_augment_is_a_crop_of_the_padded_image() -> None:
    image = np.random.default_rng(0).integers(1, 256, (6, 7, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {
        window[:, ::step].tobytes()
        for top in range(9) for left in range(9) for step in (1, -1)
        for window in [padded[top : top + 6, left : left + 7]]
    }
    found = {preprocess.augment(image, np.random.default_rng(seed)).tobytes() for seed in range(3000)}
    assert found == windows  # every one of them, and nothing else


# --- forward ---------------------------------------------------------------------------------------------------------


class Plain(nn.Cell):
    """Flatten, dense: enough for the edges of a matrix product to show."""

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.hidden = nn.Dense(width, 333)
        self.dense = nn.Dense(333, classes)

    def construct(self, x: Any) -> Any:
        return self.dense(self.hidden(self.flatten(x)))


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((150, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 16, 20, 50, 64])
def test_rows_keep_their_bits_however_they_are_shared_out(inputs: np.ndarray, batch_size: int) -> None:
    ms.set_seed(1)
    predictor = Predictor(Plain(37), batch_size)

    def run(shards: list[np.ndarray]) -> np.ndarray:
        logits = np.full((150, 37), np.nan, np.float32)
        for shard in shards:
            for part in np.split(shard, np.flatnonzero(np.diff(shard // batch_size)) + 1):
                logits[part] = predictor.logits(inputs[part], part)
        return logits

    whole = run([np.arange(150)])
    dense = predictor.network
    first = inputs.reshape(150, -1).astype(float) @ dense.hidden.weight.asnumpy().T + dense.hidden.bias.asnumpy()
    naive_logits = first @ dense.dense.weight.asnumpy().T + dense.dense.bias.asnumpy()
    np.testing.assert_allclose(whole, naive_logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(run(np.array_split(np.arange(150), 2)), whole)
    np.testing.assert_array_equal(run(np.array_split(np.arange(150), 3)), whole)
    scattered = np.random.default_rng(0).random(150) < 0.5  # a restart after a kill
    np.testing.assert_array_equal(run([np.flatnonzero(scattered), np.flatnonzero(~scattered)]), whole)


class Centred(Plain):
    """A layer that uses the batch's own statistics."""

    def construct(self, x: Any) -> Any:
        z = super().construct(x)
        return z - z.mean(axis=0, keep_dims=True)


class Dropping(Plain):
    """Dropout that is never switched off."""

    def construct(self, x: Any) -> Any:
        return super().construct(ms.ops.dropout(x, p=0.3, training=True))


class Normed(Plain):
    """Batch normalisation that is left in training mode."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.norm = nn.BatchNorm1d(classes, use_batch_statistics=True)

    def construct(self, x: Any) -> Any:
        return self.norm(super().construct(x))


def softmax_over_the_batch(given: np.ndarray) -> np.ndarray:
    exp = np.exp(given - given.max(axis=0))
    return np.log(exp / exp.sum(axis=0) + 1e-30)


AGAIN, COPIES = "when it is asked again", "among copies of itself"


@pytest.mark.parametrize("n", [1, 5, 16])
@pytest.mark.parametrize(
    ("network", "function", "how"),
    [
        (Centred, None, COPIES), (Normed, None, COPIES), (Dropping, None, AGAIN),
        (Plain, lambda given: given - given.mean(axis=0), COPIES), (Plain, softmax_over_the_batch, COPIES),
        (Plain, lambda given: given[::-1], COPIES), (Plain, lambda given: np.roll(given, 1, axis=0), COPIES),
        (Plain, lambda given: given + np.random.default_rng().normal(size=given.shape), AGAIN),
    ],
)  # fmt: skip
def test_a_network_whose_answers_depend_on_the_batch_is_refused(
    inputs: np.ndarray, network: Any, function: Any, how: str, n: int
) -> None:
    ms.set_seed(1)
    output = Output("mine.py:f", function=function) if function else Output()
    predictor, rows = Predictor(network(3), 16, output=output), np.arange(32, 32 + n)
    logits = predictor.logits(inputs[:n], rows)
    with pytest.raises(InputError) as refused:
        predictor.hold_to_one_answer(inputs[:n], rows, logits, lambda i: f"record {32 + i} of train")
    (line,) = refused.value.problems
    assert line.startswith("model: record 3")
    assert f" {how}; look at training mode" in line
    assert ("mine.py:f of model.output" in line) == bool(function)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 16, 64])
@pytest.mark.parametrize("cast", [None, ms.float16])
def test_a_network_that_answers_each_sample_by_itself_is_not(inputs: np.ndarray, batch_size: int, cast: Any) -> None:
    network = nn.SequentialCell(Plain(3), nn.BatchNorm1d(3), nn.Dropout(p=0.5))
    if cast:
        network = Plain(3).to_float(cast)
    predictor, rows = Predictor(network, batch_size), np.arange(batch_size)
    for scale in (1.0, 1e-4, 1e3):
        given = (scale * inputs[:batch_size]).astype(np.float32)
        predictor.hold_to_one_answer(given, rows, predictor.logits(given, rows), str)


def test_short_batches_without_row_numbers(inputs: np.ndarray) -> None:
    predictor = Predictor(Plain(3), 16)
    whole = predictor.logits(inputs[:16])
    assert (whole.dtype, whole.shape) == (np.float32, (16, 3))
    np.testing.assert_array_equal(predictor.logits(inputs[:5]), whole[:5])
    with pytest.raises(ValueError, match="at most 16, got 17"):
        predictor.logits(inputs[:17])


class Sure(nn.Cell):
    """Plain's outputs as probabilities, or not quite."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.plain, self.softmax, self.factor = Plain(3), nn.Softmax(), factor

    def construct(self, x: Any) -> Any:
        return self.softmax(self.plain(x)) * self.factor


def test_probabilities_become_logits(inputs: np.ndarray) -> None:
    ms.set_seed(1)
    expected = Predictor(Plain(3), 16).logits(inputs[:9]).astype(float)
    ms.set_seed(1)
    logits = Predictor(Sure(1.0), 16, output="probabilities").logits(inputs[:9])
    assert logits.dtype == np.float32
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"model\.output: probabilities: .*sum to 1"):
        Predictor(Sure(2.0), 16, output="probabilities").logits(inputs[:9])


class Odd(nn.Cell):
    """Outputs that are no logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def construct(self, x: Any) -> Any:
        flat = x.reshape(x.shape[0], -1)
        if self.kind == "tuple":
            return flat, flat
        if self.kind == "dict":
            return {"logits": flat, "states": (flat, flat)}
        if self.kind == "number":
            return 3
        if self.kind == "integers":
            return flat.astype(ms.int32)
        if self.kind == "one row":
            return flat[:1]
        return x


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("tuple", r"must give one tensor of logits, got tuple: 0 Float32 4x48, 1 Float32 4x48; write model\.index: N"),
        ("dict", r"got dict: 'logits' Float32 4x48, 'states' tuple of 2; write model\.key: NAME to choose one"),
        ("number", r"must give one tensor of logits, got int$"),
        ("integers", r"floating-point logits .* got Int32 \(4, 48\); classes alone do not say how sure"),
        ("one row", r"got Float32 \(1, 48\)"),
        ("image", r"got Float32 \(4, 3, 4, 4\); write model\.output: FILE\.py:function, which makes one prediction"),
    ],
)
def test_outputs_that_are_no_logits(inputs: np.ndarray, kind: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        Predictor(Odd(kind), 4).logits(inputs[:4])


def test_images_that_the_network_does_not_take(inputs: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must take inputs float32 \(4, 3, 4, 4\), got ValueError") as caught:
        Predictor(Plain(3, width=50), 4).logits(inputs[:4])
    assert len(str(caught.value).splitlines()) == 1


def test_selection_of_mixed_splits_is_read_in_order(folder: Path) -> None:
    source, index, splits = open_samples(data_config(folder)), np.array([3, 1, 2, 0]), ["test", "train"] * 2
    labels = [source.labels(split, index[i : i + 1])[0] for i, split in enumerate(splits)]
    selection = Selection(index, np.array(splits), np.array(labels), *np.ones((2, 4)))
    (found,) = read_inputs(source, selection, np.array([2, 0, 1])).columns
    wanted = (("test", 2), ("test", 3), ("train", 1))
    expected = [source.read(split, np.array([i]))[0].columns[0][0] for split, i in wanted]
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_parameters_are_what_training_fits() -> None:
    network = nn.SequentialCell([nn.Conv2d(3, 4, 3, has_bias=True), nn.BatchNorm2d(4), nn.Dense(5, 2)])
    assert checkpoint.n_parameters(network) == (3 * 9 + 1) * 4 + 2 * 4 + (5 + 1) * 2  # no running mean and variance
