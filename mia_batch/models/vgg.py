"""VGG (Simonyan and Zisserman 2015, arXiv 1409.1556), named and laid out as in MindArmour's tutorial.

Parameters are `layers.N.weight|gamma|beta|moving_mean|moving_variance` and `classifier.0|3|6.weight|bias`, so that a
checkpoint of the tutorial's network loads unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, nn
from mindspore.common.initializer import HeNormal, Normal, XavierUniform

Plan = tuple[int | str, ...]

PLANS: dict[str, Plan] = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}
HIDDEN = 4096
INITIALISATIONS = ("XavierUniform", "KaimingNormal")
PAD_MODES = ("same", "valid", "pad")


@dataclass(frozen=True)
class Convolution:
    """What all 3x3 convolutions of a network share.

    Attributes:
        pad_mode: "same", "valid" or "pad", as in `nn.Conv2d`.
        padding: pixels on each side, for "pad" alone.
        has_bias: whether there is a bias.
    """

    pad_mode: str = "same"
    padding: int = 0
    has_bias: bool = False

    def __post_init__(self) -> None:
        if self.pad_mode not in PAD_MODES:
            raise ValueError(f"pad_mode must be one of {', '.join(PAD_MODES)}, got {self.pad_mode!r}")
        if self.padding < 0 or (self.padding and self.pad_mode != "pad"):
            raise ValueError(f"padding must be 0, or more with pad_mode 'pad', got {self.padding}")

    def output_size(self, size: int) -> int:
        """Pixels that are left of `size`, in one direction."""
        return size if self.pad_mode == "same" else size + 2 * self.padding - 2


class Vgg(nn.Cell):
    """Convolutions of 3x3 with ReLU, halved by max pooling, then three dense layers; logits, float32 (n, num_classes).

    Args:
        plan: output channels of each convolution, "M" for a max pooling of 2x2.
        num_classes: width of the output, at least 2.
        batch_norm: batch normalisation after each convolution.
        image_size: (height, width) of the images, in pixels; sets the first dense layer's width.
        width: scales every convolution's channels and the dense layers, above 0.
        hidden: width of the dense layers; None for 4096 times `width`.
        has_dropout: dropout of one half after the first two dense layers, in training alone.
        initialize_mode: "XavierUniform" or "KaimingNormal", for training from nothing.
        convolution: `pad_mode`, `padding` and `has_bias`, as in `Convolution`.

    Raises:
        ValueError: a value out of its range, or an image size that leaves nothing after the poolings.
    """

    def __init__(
        self,
        plan: Plan,
        num_classes: int = 1000,
        *,
        batch_norm: bool = False,
        image_size: Sequence[int] = (224, 224),
        width: float = 1.0,
        hidden: int | None = None,
        has_dropout: bool = False,
        initialize_mode: str = "XavierUniform",
        **convolution: Any,
    ) -> None:
        super().__init__()
        _check(num_classes, width, hidden, initialize_mode)
        shared = Convolution(**convolution)
        plan = tuple(step if isinstance(step, str) else max(1, round(step * width)) for step in plan)
        hidden = hidden or max(1, round(HIDDEN * width))
        features = flat_size(plan, image_size, shared)
        self.layers = nn.SequentialCell(_layers(plan, shared, batch_norm, initialize_mode))
        self.flatten = nn.Flatten()
        dropped = 0.5 if has_dropout else 0.0
        self.classifier = nn.SequentialCell(
            [
                _dense(features, hidden, initialize_mode),
                nn.ReLU(),
                nn.Dropout(p=dropped),
                _dense(hidden, hidden, initialize_mode),
                nn.ReLU(),
                nn.Dropout(p=dropped),
                _dense(hidden, num_classes, initialize_mode),
            ]
        )

    def construct(self, x: Tensor) -> Tensor:
        """Logits of the images `x`, float32 (n, 3, height, width)."""
        return self.classifier(self.flatten(self.layers(x)))


def _check(num_classes: int, width: float, hidden: int | None, initialize_mode: str) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width}")
    if hidden is not None and hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}")
    if initialize_mode not in INITIALISATIONS:
        raise ValueError(f"initialize_mode must be one of {', '.join(INITIALISATIONS)}, got {initialize_mode!r}")


def flat_size(plan: Plan, image_size: Sequence[int], convolution: Convolution) -> int:
    """Features that are left of an image after the convolutions and poolings of `plan`.

    Raises:
        ValueError: `image_size` is not two numbers, or nothing is left.
    """
    if len(image_size) != 2:
        raise ValueError(f"image_size must be (height, width), got {image_size}")
    channels = 3
    sides = list(image_size)
    for step in plan:
        sides = [side // 2 if isinstance(step, str) else convolution.output_size(side) for side in sides]
        channels = channels if isinstance(step, str) else step
        if min(sides) < 1:
            poolings = plan.count("M")
            raise ValueError(
                f"image_size must leave at least one pixel after {poolings} poolings by 2 with "
                f"pad_mode {convolution.pad_mode!r}, got {tuple(image_size)}"
            )
    return channels * sides[0] * sides[1]


def _layers(plan: Plan, shared: Convolution, batch_norm: bool, initialize_mode: str) -> list[nn.Cell]:
    cells: list[nn.Cell] = []
    channels = 3
    for step in plan:
        if isinstance(step, str):
            cells.append(nn.MaxPool2d(kernel_size=2, stride=2))
            continue
        kaiming = initialize_mode == "KaimingNormal"
        weight = HeNormal(mode="fan_out", nonlinearity="relu") if kaiming else XavierUniform()
        cells.append(
            nn.Conv2d(
                channels,
                step,
                kernel_size=3,
                pad_mode=shared.pad_mode,
                padding=shared.padding,
                has_bias=shared.has_bias,
                weight_init=weight,
                bias_init="zeros",
            )
        )
        cells += [nn.BatchNorm2d(step), nn.ReLU()] if batch_norm else [nn.ReLU()]
        channels = step
    return cells


def _dense(inputs: int, outputs: int, initialize_mode: str) -> nn.Cell:
    if initialize_mode == "KaimingNormal":
        return nn.Dense(inputs, outputs, weight_init=Normal(0.01), bias_init="zeros")
    return nn.Dense(inputs, outputs)


def vgg11(num_classes: int = 1000, *, image_size: Sequence[int] = (224, 224), **options: Any) -> Vgg:
    """VGG with 8 convolutions; `options` as for `Vgg`."""
    return Vgg(PLANS["vgg11"], num_classes, image_size=image_size, **options)


def vgg13(num_classes: int = 1000, *, image_size: Sequence[int] = (224, 224), **options: Any) -> Vgg:
    """VGG with 10 convolutions; `options` as for `Vgg`."""
    return Vgg(PLANS["vgg13"], num_classes, image_size=image_size, **options)


def vgg16(num_classes: int = 1000, *, image_size: Sequence[int] = (224, 224), **options: Any) -> Vgg:
    """VGG with 13 convolutions, the tutorial's with `batch_norm`; `options` as for `Vgg`."""
    return Vgg(PLANS["vgg16"], num_classes, image_size=image_size, **options)


def vgg19(num_classes: int = 1000, *, image_size: Sequence[int] = (224, 224), **options: Any) -> Vgg:
    """VGG with 16 convolutions; `options` as for `Vgg`."""
    return Vgg(PLANS["vgg19"], num_classes, image_size=image_size, **options)
