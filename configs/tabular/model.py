"""A small network of dense layers."""

from mindspore import nn


def net(num_classes, width=256):
    """Takes float32 (n, 30), gives logits (n, num_classes)."""
    return nn.SequentialCell(
        nn.Dense(30, width), nn.ReLU(), nn.Dense(width, width), nn.ReLU(), nn.Dense(width, num_classes)
    )
