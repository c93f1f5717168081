"""A small network, random records and a config that trains it on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

NETWORK = '''
from mindspore import nn
class Small(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.SequentialCell([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2, 2)])
        self.flatten = nn.Flatten()
        self.classifier = nn.Dense(8 * 16, classes)
    def construct(self, x):
        return self.classifier(self.flatten(self.layers(x)))
def build(classes=5): return Small(classes)
'''


def write_training(folder: Path) -> Path:
    """The network, 42 records of each split, and the config."""
    (folder / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        records = rng.integers(0, 256, (42, 3074), dtype=np.uint8)
        records[:, 0], records[:, 1] = 0, rng.integers(0, 5, 42)
        records.tofile(folder / f"{split}.bin")
    return write_config(folder)


def write_config(folder: Path, name: str = "config.yaml", **sections: dict[str, Any]) -> Path:
    """The config alone, with changes of its sections."""
    content: dict[str, Any] = {
        "model": {"factory": "net.py:build", "checkpoint": "out/net.ckpt"},
        "data": {"source": "cifar100", "path": ".", "image_size": [8, 8], "members": {"split": "train"},
                 "nonmembers": {"split": "test"}},
        "attack": {"methods": [{"method": "lr", "params": {"C": [1.0]}}]},
        "train": {"epochs": 12, "batch_size": 10, "learning_rate": 0.05, "weight_decay": 0.0},
    }
    for section, changes in sections.items():
        content[section] = content.get(section, {}) | changes
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name
