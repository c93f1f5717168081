"""The block loop on one rank, with a network of plain arithmetic: what is kept, what is refused, what is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.inputs import INPUT_DTYPE
from mia_batch.mpi.world import World
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.features import FeatureStore, features_progress, read_features
from mia_batch.stages.gather import Extraction, Outcome

N, C, BATCH = 50, 4, 8
ZEROS = ("sample_index", "member", "group")


def inputs_of(rows: np.ndarray) -> np.ndarray:
    """A content and statistics that tell which row they are of."""
    found = np.zeros(len(rows), INPUT_DTYPE)
    found["content"], found["statistics"] = rows[:, None], rows[:, None] / 2
    return found


class Arithmetic:
    """Logits that tell which row they are of; `broken` rows give NaN."""

    def __init__(self, width: int = C, broken: int | None = None) -> None:
        self.width, self.broken, self.seen = width, broken, 0

    def logits(self, inputs: tuple[np.ndarray, ...], rows: np.ndarray | None = None) -> np.ndarray:
        (images,) = inputs
        self.seen += len(images)
        z = images[:, :1] + np.arange(self.width, dtype=np.float32) / 8
        if self.broken is not None:
            z[images[:, 0] == self.broken] = np.nan
        return z.astype(np.float32)


class Run:
    """One extraction into `path`; call it again to resume."""

    def __init__(self, path: Path, labels: np.ndarray | None = None) -> None:
        self.path = path
        self.labels = np.arange(N, dtype=np.int32) % C if labels is None else labels
        self.store: FeatureStore | None = None

    def __call__(self, forward: Arithmetic, stop_after: int | None = None, n_classes: int | None = None) -> Outcome:
        stop = StopRequest()

        def batches(rows: np.ndarray) -> Iterator[tuple[Any, ...]]:
            for i, start in enumerate(range(0, len(rows), BATCH)):
                if i == stop_after:
                    stop.signal = 15
                part = rows[start:start + BATCH]
                yield part, (part[:, None].astype(np.float32),), self.labels[part], inputs_of(part)

        done = np.zeros(N, bool)
        if self.path.exists():
            self.store = FeatureStore(self.path)
            done = self.store.done()
        extraction = Extraction(World(), forward, batches, lambda row: f"train sample {row}", self.open, n_classes)
        try:
            return extraction.run(done, stop)
        finally:
            if self.store:
                self.store.close()
                self.store = None

    def open(self, n_classes: int) -> FeatureStore:
        if self.store is None:
            zeros = np.zeros(N, dtype=int)
            rows = {"label": self.labels, "split": ["train"] * N, **dict.fromkeys(ZEROS, zeros)}
            self.store = FeatureStore.create(self.path, rows, n_classes, {})
        return self.store


def test_every_row_is_computed_once(tmp_path: Path) -> None:
    run, forward = Run(tmp_path / "f.h5"), Arithmetic()
    assert run(forward) == Outcome(N, N)
    assert forward.seen == N
    features = read_features(run.path)
    np.testing.assert_array_equal(features.logits[:, 0], np.arange(N))
    np.testing.assert_array_equal(features.content, inputs_of(np.arange(N))["content"])
    np.testing.assert_array_equal(features.statistics, inputs_of(np.arange(N))["statistics"])
    z = features.logits.astype(np.float64)
    naive = -np.log(np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))
    np.testing.assert_allclose(features.loss, naive[np.arange(N), run.labels], rtol=1e-12)


def test_a_stop_keeps_what_is_done_and_a_rerun_does_only_the_rest(tmp_path: Path) -> None:
    run, first, second = Run(tmp_path / "f.h5"), Arithmetic(), Arithmetic()
    outcome = run(first, stop_after=3)
    assert (outcome.signal, outcome.total) == (15, N)
    assert 0 < outcome.done == first.seen < N
    assert features_progress(run.path) == (outcome.done, N)
    assert run(second) == Outcome(N, N)
    assert first.seen + second.seen == N


def test_a_sample_with_nan_is_named_and_rows_before_it_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path / "f.h5")
    with pytest.raises(InputError, match="train sample 21 on rank 0: logits must be finite, got nan"):
        run(Arithmetic(broken=21))
    assert features_progress(run.path) == (16, N)
    assert run(Arithmetic()) == Outcome(N, N)


def test_a_label_outside_the_classes_is_named(tmp_path: Path) -> None:
    labels = np.zeros(N, dtype=np.int32)
    labels[33] = C
    with pytest.raises(InputError, match=r"train sample 33 on rank 0: label must be in \[0, 4\), got 4"):
        Run(tmp_path / "f.h5", labels)(Arithmetic())


def test_an_output_of_another_width_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "f.h5")
    with pytest.raises(InputError, match="output must have 100 columns, got 4"):
        run(Arithmetic(), n_classes=100)
    assert not run.path.exists()


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "f.h5")

    def full(_n_classes: int) -> FeatureStore:
        raise InputError(f"{run.path}: the disk is full")

    monkeypatch.setattr(run, "open", full)
    with pytest.raises(InputError, match="the disk is full"):
        run(Arithmetic())
