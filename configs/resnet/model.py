"""A small residual network: two blocks, each of which adds two convolutions to what it gets."""

from mindspore import nn, ops


class Block(nn.Cell):
    """Two convolutions with batch norm beside a shortcut; halves the image where `stride` is 2."""

    def __init__(self, channels, out_channels, stride):
        super().__init__()
        self.first = nn.SequentialCell(
            nn.Conv2d(channels, out_channels, 3, stride=stride), nn.BatchNorm2d(out_channels), nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3), nn.BatchNorm2d(out_channels),
        )  # fmt: skip
        self.shortcut = nn.SequentialCell(
            nn.Conv2d(channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
        )

    def construct(self, x):
        return ops.relu(self.first(x) + self.shortcut(x))


class ResNet(nn.Cell):
    """Takes float32 (n, channels, height, width), gives logits (n, classes)."""

    def __init__(self, channels, num_classes, width):
        super().__init__()
        self.stem = nn.SequentialCell(nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.SequentialCell(Block(width, width, 2), Block(width, 2 * width, 2))
        self.classifier = nn.Dense(2 * width, num_classes)

    def construct(self, x):
        return self.classifier(self.blocks(self.stem(x)).mean(axis=(2, 3)))


def net(num_classes, channels=1, width=16):
    """For images of so many channels."""
    return ResNet(channels, num_classes, width)
