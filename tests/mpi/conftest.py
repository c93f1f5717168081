"""A real checkpoint of a small network, and data sources that are slow or break at a given sample."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NETWORK = """
from mindspore import nn

def build(num_classes=10):
    return nn.SequentialCell(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dense(256, num_classes)
    )
"""

SAVE = """
import sys, mindspore as ms
sys.path.insert(0, sys.argv[1])
import net
ms.set_seed(1)
ms.save_checkpoint(net.build(), sys.argv[1] + "/net.ckpt")
"""

SOURCE = '''
import os
import time
from pathlib import Path
import numpy as np

class Images:
    """`n` images that differ; `delay` seconds to read one; reading `broken` raises, and `other` has another label.

    Who reads the image that the file `deadly` names (split, index, signal) dies, once.
    """

    def __init__(self, split, n, delay, broken, other, deadly):
        self.split, self.n, self.delay, self.deadly = split, n, delay, deadly
        self.broken, self.other = (number if split == "test" else -1 for number in (broken, other))
        self.labels = np.arange(n) % 10

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        time.sleep(self.delay)
        if i == self.broken:
            raise RuntimeError(f"cannot decode image {i}")
        split, index, signum = Path(self.deadly).read_text().split() if self.deadly else ("", 0, 0)
        if (split, int(index)) == (self.split, i):
            Path(self.deadly).write_text("no 0 0")
            os.kill(os.getpid(), int(signum))
        return np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8), (i + (i == self.other)) % 10

def make(split, n=96, delay=0.0, broken=-1, other=-1, deadly=""):
    return Images(split, n, delay, broken, other, deadly)
'''


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that compiles fast, with `net.py:build` beside it."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(NETWORK)
    subprocess.run([sys.executable, "-c", SAVE, folder], check=True, capture_output=True)
    return folder / "net.ckpt"


@pytest.fixture
def net_config(checkpoint: Path, write_config: Callable[..., Path]) -> Callable[..., Path]:
    """The plain config, with the network of `checkpoint`."""
    network = {"model.factory": f"{checkpoint.parent / 'net.py'}:build", "model.kwargs": {"num_classes": 10}}

    def write(changes: dict[str, object] | None = None, *, checkpoint: Path = checkpoint) -> Path:
        return write_config({**network, **(changes or {})}, checkpoint=checkpoint)

    return write


@pytest.fixture
def source_config(tmp_path: Path, net_config: Callable[..., Path]) -> Callable[..., Path]:
    """A config whose samples come from SOURCE, called with these arguments."""
    (tmp_path / "images.py").write_text(SOURCE)

    def write(**kwargs: float | str) -> Path:
        return net_config({"data.source": "images.py:make", "data.path": None, "data.kwargs": kwargs})

    return write
