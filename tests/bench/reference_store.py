"""Memory of reading the outputs of many references, which must stay below 2 GiB: `make bench` runs this.

    python tests/bench/reference_store.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from reference_memory import measured

LIMIT = 2 << 30

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        more, peak = measured(Path(folder), n_references=256, n_samples=60_000, n_classes=100)
        taken = time.monotonic() - started
    print(f"256 references x 60,000 samples x 100 classes: {more / 2**20:.0f} MiB more, peak {peak / 2**20:.0f} MiB")
    print(f"in {taken:.0f} s")
    sys.exit(peak > LIMIT)
