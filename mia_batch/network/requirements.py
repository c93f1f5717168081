"""What this package knows of MindSpore without importing it."""

from __future__ import annotations

import re

RANK_BYTES = 425 << 20  # a rank of MindSpore on CPU, before its batches
SLOW_ON_CPU = "convolves on CPU through a reference kernel, some 100 times slower than 2.8; install mindspore>=2.7,<2.9"


def slow_on_cpu(version: str) -> bool:
    """Whether this MindSpore's convolution on CPU is the reference kernel."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (2, 9)
