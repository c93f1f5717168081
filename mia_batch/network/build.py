"""Build the network that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn

from mia_batch.errors import InputError
from mia_batch.settings.schema import ModelConfig
from mia_batch.settings.user_code import call


def build_network(model: ModelConfig, image_size: Sequence[int] | None) -> nn.Cell:
    """Call `model.factory` with `model.kwargs`, and `image_size` where it has such a parameter.

    Args:
        model: the configuration's section.
        image_size: (height, width) in pixels; None for a network of no images.

    Raises:
        InputError: the factory is not there, raised, or returned something else than a network.
    """
    optional = {} if image_size is None else {"image_size": tuple(image_size)}
    network = call(model.factory, "model.factory", model.kwargs, optional)
    if not isinstance(network, nn.Cell):
        got = type(network).__name__
        raise InputError(f"model.factory: {model.factory} must return a mindspore.nn.Cell, got {got}")
    return network
