"""What reading a store of references takes in memory, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_store import ReferenceStore, StoredSamples, read_phi, row_dtype

KEY = "a" * 64


def samples(n: int) -> StoredSamples:
    """Samples in no order."""
    index = np.random.default_rng(1).permutation(n)
    return StoredSamples(np.full(n, "train"), index, (index % 100).astype(np.int32))


def measured(folder: Path, *, n_references: int, n_samples: int, n_classes: int) -> tuple[int, int]:
    """Write one reference and read it so often; bytes that reading takes more, and the peak of the process."""
    sent, of, random = row_dtype(n_classes, n_queries=1, logits="float32"), samples(n_samples), np.random.default_rng(0)
    paths = ReferencePaths(folder, KEY)
    with ReferenceStore.create(paths, of, sent, {}) as store:
        for rows in np.array_split(np.arange(n_samples), 20):
            block = np.zeros(len(rows), sent)
            block["row"], block["logits"] = rows, random.normal(size=(len(rows), 1, n_classes))
            store.write(block)
        store.finish(paths)
    command = [sys.executable, __file__, str(folder), str(n_references), str(n_samples)]
    more, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return more, peak


def _read(folder: Path, n_references: int, n_samples: int) -> None:
    of, paths, before = samples(n_samples), ReferencePaths(folder, KEY), _peak()
    of.order  # noqa: B018  (not of the reading)
    found = read_phi([paths] * n_references, of, None)
    assert found.shape == (n_samples, 1, n_references)
    print(_peak() - before, _peak())


def _peak() -> int:
    """Bytes of this program alone: ru_maxrss counts what the process was before, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    _read(Path(sys.argv[1]), *map(int, sys.argv[2:]))
