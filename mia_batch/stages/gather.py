"""Extract: every rank runs the network over its rows, block by block; the root writes what is gathered.

One step is: each rank computes one block, all learn how all fare, the blocks go to the root, the root makes them
durable. A stop, a bad sample or the end is agreed at these steps, so that no rank waits for one that has left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.inputs import Batch
from mia_batch.mpi.shards import owed_rows
from mia_batch.mpi.world import World
from mia_batch.process.progress import Progress
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.features import block_dtype
from mia_batch.rundir.row_store import RowStore
from mia_batch.signals import loss as cross_entropy

log = logging.getLogger(__name__)
RUNNING, STOPPING, BROKEN = 0, 1, 2
Batches = Callable[[NDArray[np.int64]], Iterator[Batch]]  # as network.batches gives them


class Forward(Protocol):
    """A network that can be run; `network.forward.Predictor` is one."""

    def logits(
        self, inputs: tuple[NDArray[Any], ...], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.floating]:
        """Arrays (n, ...) to (n, n_classes) or (n, n_queries, n_classes); `rows` are the samples' places in the batch.

        A row's last bits depend on that place, so it must not depend on the number of ranks.
        """


@dataclass(frozen=True)
class Outcome:
    """How an extraction ended: rows in the file, rows in all, and the signal that stopped it early."""

    done: int
    total: int
    signal: int | None = None


@dataclass(frozen=True)
class Extraction:
    """What the ranks of one extraction share.

    Attributes:
        describe: names a row for messages, such as "train sample 17".
        open_store: on the root, the file to write, made for that number of classes if it is not there.
        n_classes: what the file or the config asks for, if either does.
        dtype: what a rank sends per row, for that number of classes.
        what: names the extraction where its progress is shown.
    """

    world: World
    forward: Forward
    batches: Batches
    describe: Callable[[int], str]
    open_store: Callable[[int], RowStore]
    n_classes: int | None = None
    dtype: Callable[[int], np.dtype[Any]] = block_dtype
    what: str = "extract"

    def run(self, done: NDArray[np.bool_], stop: StopRequest) -> Outcome:
        """Compute every row that is not done. Collective: all ranks call it with the same `done`.

        Raises:
            InputError: on every rank, for a label or an output that cannot be right, or a full disk; rows acknowledged
                until then are kept.
        """
        with Progress(len(done), what=self.what, done=int(done.sum()), shown=self.world.is_root) as progress:
            return self._run(owed_rows(done, self.world.rank, self.world.size), progress, stop)

    def _run(self, shard: NDArray[np.int64], progress: Progress, stop: StopRequest) -> Outcome:
        blocks, left = self._blocks(shard), len(shard)
        problem: InputError | None = None
        stopping = False
        while True:
            block = np.empty(0, dtype=self.dtype(1))
            if left and not stopping and not problem:
                block, problem = self._next_block(blocks)
                left -= len(block)
            headers = self.world.share_headers(_header(block, left, stop, problem))
            self._raise_first_problem(headers, problem)
            rows = self.world.gather_blocks(self._with_width(block, headers), headers[:, 0])
            problem = self._write(rows, progress)  # the others learn of it by the next header
            stopping = stopping or bool((headers[:, 3] == STOPPING).any())
            if not headers[:, 0].any() and (stopping or not headers[:, 1].any()):
                assert progress.total is not None
                return Outcome(self.world.bcast(progress.done), progress.total, self._signal(stop))

    def _write(self, rows: NDArray[Any], progress: Progress) -> InputError | None:
        if self.world.is_root and len(rows):
            try:
                self.open_store(rows["logits"].shape[-1]).write(rows)
            except InputError as error:
                return error
            progress.add(len(rows))
        return None

    def _blocks(self, shard: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        for rows, inputs, labels, kept in self.batches(shard):
            logits = self.forward.logits(inputs, rows)
            check_answers(
                rows, logits, labels, n_classes=self.n_classes,
                describe=lambda row: f"{self.describe(row)} on rank {self.world.rank}",
            )  # fmt: skip
            block = np.empty(len(rows), dtype=self.dtype(logits.shape[-1]))
            block["row"], block["logits"] = rows, logits
            for name in set(kept.dtype.names or ()) & set(block.dtype.names or ()):
                block[name] = kept[name]
            if "loss" in (block.dtype.names or ()):
                block["loss"] = cross_entropy(logits, labels)
            yield block

    def _next_block(self, blocks: Iterator[NDArray[Any]]) -> tuple[NDArray[Any], InputError | None]:
        try:
            return next(blocks), None
        except InputError as error:
            return np.empty(0, dtype=self.dtype(1)), error

    def _with_width(self, block: NDArray[Any], headers: NDArray[np.int64]) -> NDArray[Any]:
        """An empty block takes the others' row format, so that all ranks gather the same bytes per row."""
        if len(block):
            return block
        return np.empty(0, dtype=self.dtype(max(1, int(headers[headers[:, 0] > 0, 2].max(initial=1)))))

    def _raise_first_problem(self, headers: NDArray[np.int64], problem: InputError | None) -> None:
        widths = sorted(set(headers[headers[:, 0] > 0, 2].tolist()))
        if len(widths) > 1:
            raise InputError(f"model: output must have the same width on every rank, got {widths}")
        if (headers[:, 3] == BROKEN).any():
            raise next(found for found in self.world.allgather(problem) if found)

    def _signal(self, stop: StopRequest) -> int | None:
        return next((signum for signum in self.world.allgather(stop.signal) if signum is not None), None)


def check_answers(
    rows: NDArray[np.int64], logits: NDArray[np.floating], labels: NDArray[np.int32], *, n_classes: int | None,
    describe: Callable[[int], str],
) -> None:
    """Refuse what a network cannot have answered rightly.

    Args:
        rows: numbers of the rows, (n,).
        logits: of them, (n, width) or (n, n_queries, width).
        labels: their true classes, (n,).
        n_classes: what the file or the config asks for, if either does.
        describe: names a row for messages.

    Raises:
        InputError: another width, a label outside it, or a logit that is not finite.
    """
    width = logits.shape[-1]
    if n_classes not in (None, width):
        raise InputError(f"model: output must have {n_classes} columns, got {width} of {describe(int(rows[0]))}")
    wrong = np.flatnonzero((labels < 0) | (labels >= width))
    if len(wrong):
        raise InputError(f"{describe(int(rows[wrong[0]]))}: label must be in [0, {width}), got {labels[wrong[0]]}")
    broken = np.flatnonzero(~np.isfinite(logits).reshape(len(rows), -1).all(axis=1))
    if len(broken):
        value = logits[broken[0]][~np.isfinite(logits[broken[0]])][0]
        raise InputError(f"{describe(int(rows[broken[0]]))}: logits must be finite, got {value}")


def _header(block: NDArray[Any], left: int, stop: StopRequest, problem: InputError | None) -> NDArray[np.int64]:
    """(rows in this block, rows left after it, classes, state)."""
    state = BROKEN if problem else STOPPING if stop else RUNNING
    return np.array([len(block), left, block["logits"].shape[-1], state], dtype=np.int64)
