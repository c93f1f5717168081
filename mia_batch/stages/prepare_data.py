"""Read the samples of a user's source and bring them to one size once, for every audit of an array."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mia_batch.data.forms import Form
from mia_batch.data.prepared import Prepared
from mia_batch.data.selection import Selection
from mia_batch.data.sources import Source, open_source
from mia_batch.inputs import Inputs
from mia_batch.network.datasets import open_dataset
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.resources import available_cpus
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.identity import data_digest
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import Config, DataConfig
from mia_batch.stages.arguments import load_run
from mia_batch.stages.plan import make_plan

log = logging.getLogger(__name__)

BLOCK = 64  # samples that a process reads at a time
_opened: list[tuple[DataConfig, Source]] = []  # in this process: a folder of images is listed once, not per block


def _source(data: DataConfig) -> Source:
    if not _opened or _opened[0][0] != data:
        _opened[:] = [(data, open_source(data, open_dataset))]
    return _opened[0][1]


def read_block(data: DataConfig, part: Selection, form: Form) -> tuple[Inputs, np.ndarray]:
    """The inputs of `part`, stacked: arrays padded, images augmented and at the network's size; what is kept, (n,).

    Raises:
        InputError: a sample cannot be read, or is of another form.
    """
    from mia_batch.network.batches import reader  # MindSpore resizes
    from mia_batch.network.preprocess import Preprocess

    inputs, kept = reader(data, part, source=_source(data), form=form)(np.arange(len(part)))
    if data.is_image:
        images = np.stack(list(Preprocess(data.image_size, data.mean, data.std).resize(inputs.columns[0])))
        inputs = replace(inputs, columns=(images,))
    return inputs, kept


def read_blocks(
    data: DataConfig, selection: Selection, form: Form, first: int
) -> Iterator[tuple[Inputs, np.ndarray]]:
    """What `read_block` gives from row `first` on, in order, read by every core of this job."""
    from joblib import Parallel, delayed

    parts = [selection.rows(slice(row, row + BLOCK)) for row in range(first, len(selection), BLOCK)]
    blocks = Parallel(n_jobs=min(available_cpus(), max(1, len(parts))), return_as="generator")
    return blocks(delayed(read_block)(data, part, form) for part in parts)


def prepare_data(args: argparse.Namespace, stop: StopRequest) -> int:
    """The whole stage; returns the exit code."""
    config, _ = load_run(args)
    prepared = Prepared(Path(args.out).absolute())
    if prepared.is_complete():
        log.info("prepare: nothing to do")
        return OK
    with named_in(config.path):
        return prepare(config, prepared, stop)


def prepare(config: Config, prepared: Prepared, stop: StopRequest) -> int:
    """Read what is missing in `prepared`; returns the exit code."""
    planned = make_plan(config, whole_checkpoint=False, n_looked_at=1)
    selection, identity = planned.selection, data_digest(planned.manifest)
    first, _ = read_block(config.data, selection.rows(slice(0, 1)), planned.form)
    with (
        prepared.appending(first, identity) as (append, done),
        Progress(len(selection), what="prepare", done=done) as progress,
    ):
        for block, kept in read_blocks(config.data, selection, planned.form, done):
            append(block, kept)
            progress.add(len(block))
            if stop and progress.done < len(selection):
                log.warning("stopped by signal %s; the same command goes on from there", stop.signal)
                return RESUME
    prepared.finish(selection, identity, first)
    size = len(selection) * sum(np.asarray(column).nbytes for column in first.columns)
    log.info("prepare: %d samples, %.1f MiB", len(selection), size / 2**20)
    return OK
