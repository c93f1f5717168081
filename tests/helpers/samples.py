"""Samples of a configuration, as the stages open them, and samples of arrays alone."""

from pathlib import Path

import numpy as np

from mia_batch.data.selection import Selection, select
from mia_batch.data.sources import Source, open_source
from mia_batch.network.datasets import open_dataset
from mia_batch.samples import Samples, Split
from mia_batch.search.folds import fold_numbers
from mia_batch.settings.schema import DataConfig


def open_samples(data: DataConfig) -> Source:
    """The source, MindSpore datasets included."""
    return open_source(data, open_dataset)


def select_all(data: DataConfig) -> Selection:
    """Members and non-members."""
    return select(data, open_samples(data))


def fitting(X: np.ndarray, y: np.ndarray, cv: int = 3, *, n_eval: int = 0) -> Samples:
    """Samples of which all but the last `n_eval` fit."""
    n_fit = len(y) - n_eval
    split = Split(np.arange(n_fit), fold_numbers(y[:n_fit], cv), np.arange(n_fit, len(y)))
    return Samples(np.asarray(y, dtype=np.int8), [split], features=X)


def write_records(path: Path, n: int, *, seed: int, n_classes: int = 10) -> Path:
    """`n` CIFAR-100 records of noise."""
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (n, 3074), dtype=np.uint8)
    records[:, 0] = 0
    records[:, 1] = rng.integers(0, n_classes, n)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.tofile(path)
    return path
