"""VGG's names, shapes and sizes, and factories that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from mia_batch.errors import InputError  # noqa: E402
from mia_batch.models import vgg  # noqa: E402
from mia_batch.network.build import build_network  # noqa: E402
from mia_batch.settings import user_code  # noqa: E402
from mia_batch.settings.schema import ModelConfig  # noqa: E402

GOLDEN = Path(__file__).parent / "golden" / "vgg16_bn_cifar100.txt"


def config(factory_name: str, **kwargs: Any) -> ModelConfig:
    return ModelConfig.model_validate({"factory": factory_name, "kwargs": kwargs, "checkpoint": "none.ckpt"})


def golden() -> dict[str, tuple[int, ...]]:
    lines = [line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return {name: tuple(map(int, shape)) for name, *shape in lines}


def test_vgg16_has_the_tutorials_parameters() -> None:
    with ms.nn.utils.no_init_parameters():
        network = build_network(config("mia_batch.models.vgg:vgg16", num_classes=100, batch_norm=True), (224, 224))
    shapes = {name: tuple(parameter.shape) for name, parameter in network.parameters_dict().items()}
    assert shapes == golden()


@pytest.mark.parametrize(("name", "convolutions"), [("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg19", 16)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_depths(name: str, convolutions: int, batch_norm: bool) -> None:
    network = build_network(
        config(f"mia_batch.models.vgg:{name}", num_classes=7, width=0.05, batch_norm=batch_norm), (32, 32)
    )
    kinds = [type(cell).__name__ for cell in network.layers]
    assert kinds.count("Conv2d") == kinds.count("ReLU") == convolutions
    assert kinds.count("BatchNorm2d") == (convolutions if batch_norm else 0)
    assert kinds.count("MaxPool2d") == 5
    names = [parameter.name for parameter in network.get_parameters() if parameter.name.startswith("classifier")]
    assert names == [f"classifier.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]


@pytest.mark.parametrize(
    ("image_size", "options", "features"),
    [
        ((32, 32), {}, 512),
        ((224, 224), {}, 512 * 7 * 7),
        ((64, 96), {}, 512 * 2 * 3),
        ((63, 63), {}, 512),
        ((32, 32), {"pad_mode": "pad", "padding": 1}, 512),
        ((224, 224), {"pad_mode": "valid"}, 512),  # 110, 53, 23, 8, 1 after the poolings
        ((256, 224), {"pad_mode": "valid"}, 512 * 2),  # 126, 61, 27, 10, 2 in height
    ],
)
def test_flat_size(image_size: tuple[int, int], options: dict[str, Any], features: int) -> None:
    assert vgg.flat_size(vgg.PLANS["vgg16"], image_size, vgg.Convolution(**options)) == features


@pytest.mark.parametrize("options", [{}, {"pad_mode": "pad", "padding": 1}, {"pad_mode": "valid", "has_bias": True}])
@pytest.mark.parametrize("image_size", [(17, 22), (20, 20)])
def test_forward_agrees_with_the_flat_size(image_size: tuple[int, int], options: dict[str, Any]) -> None:
    network = vgg.Vgg((4, "M", 8, "M"), 3, image_size=image_size, hidden=5, batch_norm=True, **options).set_train(False)
    logits = network(ms.Tensor(np.ones((2, 3, *image_size), np.float32)))
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("mode", vgg.INITIALISATIONS)
def test_initialisation_has_the_right_spread(mode: str) -> None:
    ms.set_seed(1)
    weight = vgg.Vgg((64, 128, "M"), 3, image_size=(4, 4), hidden=8, initialize_mode=mode).layers[2].weight.asnumpy()
    fan_in, fan_out = 64 * 9, 128 * 9
    expected = (2 / (fan_in + fan_out)) ** 0.5 if mode == "XavierUniform" else (2 / fan_out) ** 0.5
    assert weight.std() == pytest.approx(expected, rel=0.02)


def test_dropout_acts_in_training_alone() -> None:
    network = vgg.Vgg((4, "M"), 3, image_size=(8, 8), hidden=64, has_dropout=True)
    images = ms.Tensor(np.ones((2, 3, 8, 8), np.float32))
    quiet = [network.set_train(False)(images).asnumpy() for _ in range(2)]
    loud = [network.set_train(True)(images).asnumpy() for _ in range(2)]
    np.testing.assert_array_equal(*quiet)
    assert not np.array_equal(*loud)


@pytest.mark.parametrize(
    ("kwargs", "image_size", "rule"),
    [
        ({}, (16, 16), r"image_size must leave at least one pixel after 5 poolings .* got \(16, 16\)"),
        ({"image_size": [32]}, (32, 32), "image_size must be \\(height, width\\)"),
        ({"num_classes": 1}, (32, 32), "num_classes must be at least 2, got 1"),
        ({"width": 0}, (32, 32), "width must be above 0"),
        ({"hidden": -3}, (32, 32), "hidden must be at least 1"),
        ({"pad_mode": "full"}, (32, 32), "pad_mode must be one of same, valid, pad"),
        ({"padding": 1}, (32, 32), "padding must be 0, or more with pad_mode 'pad'"),
        ({"initialize_mode": "zeros"}, (32, 32), "initialize_mode must be one of XavierUniform, KaimingNormal"),
        ({"batchnorm": True}, (32, 32), "unexpected keyword argument 'batchnorm'"),
    ],
)
def test_bad_vgg_options_are_one_line(kwargs: dict[str, Any], image_size: tuple[int, int], rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        build_network(config("mia_batch.models.vgg:vgg11", **kwargs), image_size)
    assert len(str(caught.value).splitlines()) == 1


OWN = '''
from mindspore import nn
from own_part import WIDTH
def build(classes=2): return nn.SequentialCell([nn.Flatten(), nn.Dense(WIDTH, classes)])
def sized(image_size, classes=2): return nn.SequentialCell([nn.Flatten(), nn.Dense(3 * image_size[0] ** 2, classes)])
def wrong(): return 3
def fails(): return 1 / 0
constant = 1
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_part.py").write_text("WIDTH = 48\n")
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_own_network_in_a_file_beside_its_parts(own: Path) -> None:
    assert build_network(config(f"{own}:build", classes=4), (4, 4))[1].weight.shape == (4, 48)
    assert build_network(config(f"{own}:sized"), (6, 6))[1].weight.shape == (2, 108)
    assert build_network(config(f"{own}:sized", image_size=[2, 2]), (6, 6))[1].weight.shape == (2, 12)


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("nothing", "has no function 'nothing'; it has build, sized, wrong, fails"),
        ("constant", "must be callable, got int"),
        ("wrong", "must return a mindspore.nn.Cell, got int"),
        ("fails", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_own_network_that_cannot_be_used(own: Path, function: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        build_network(config(f"{own}:{function}"), (4, 4))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["os.path:join", "json:JSONDecoder.decode", "nocolon", ":f", "m:"])
def test_resolve_by_module(name: str) -> None:
    if name == "os.path:join":
        assert user_code.resolve(name, "field")("a", "b") == "a/b"
    else:
        with pytest.raises(InputError, match=r"field: must be package\.module:function"):
            user_code.resolve(name, "field")


def test_a_file_that_failed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "later.py"
    file.write_text("raise ValueError('not yet')\n")
    with pytest.raises(InputError, match="ValueError: not yet"):
        user_code.resolve(f"{file}:make", "field")
    file.write_text("def make(): return 5\n# longer, so that no cached bytecode fits\n")
    assert user_code.call(f"{file}:make", "field", {}) == 5
