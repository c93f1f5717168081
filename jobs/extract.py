"""Run the network over members and non-members, on every rank that mpirun or srun has started."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import data, plan, provenance
from mia_batch.comm import World, connect
from mia_batch.config import Config
from mia_batch.entry import FAILED, OK, RESUME, StopRequest, run_main
from mia_batch.errors import InputError
from mia_batch.extraction import Extraction, Outcome
from mia_batch.paths import RunPaths
from mia_batch.stage import load_run, stage_parser
from mia_batch.store import FeatureStore

log = logging.getLogger("mia_batch.extract")


@dataclass(frozen=True)
class Work:
    """What the root has found out, for every rank."""

    config: Config
    paths: RunPaths
    selection: data.Selection
    manifest: dict[str, Any]
    done: NDArray[np.bool_]
    n_classes: int | None


class RootFile:
    """features.h5 on the root: opened if it is there, else made at the first block, when the width is known."""

    def __init__(self) -> None:
        self.store: FeatureStore | None = None

    def rows_done(self, paths: RunPaths, n_rows: int) -> NDArray[np.bool_]:
        """Which rows need no work."""
        if not paths.features.exists():
            return np.zeros(n_rows, dtype=bool)
        self.store = FeatureStore(paths.features)
        done = self.store.done()
        if len(done) != n_rows:
            raise InputError(f"{paths.features}: must have {n_rows} rows for this config, got {len(done)}")
        return done

    def open(self, work: Work, n_classes: int) -> FeatureStore:
        """The store to write to."""
        if self.store is None:
            attrs = {key: work.manifest[key] for key in ("config", "digests", "versions")}
            attrs |= {"run": provenance.run_digest(work.manifest), "launch": work.manifest["launches"][-1]}
            self.store = FeatureStore.create(work.paths.features, work.selection.columns(), n_classes, attrs)
        return self.store

    def close(self) -> None:
        """Let other processes have the file."""
        if self.store:
            self.store.close()


def prepare(args: argparse.Namespace, world: World, file: RootFile) -> Work:
    """On the root: read the config, choose the samples, claim the run directory, see what is left to do."""
    config, paths = load_run(args, need=("checkpoint", "data"))
    prepared = plan.prepare(config)
    selection, manifest = prepared.selection, provenance.claim(paths, prepared.manifest)
    done = file.rows_done(paths, len(selection))
    if not done.all():
        layout = {"rank_size": world.size, "n_nodes": world.n_nodes, "rows_done": int(done.sum())}
        manifest = provenance.add_launch(paths, provenance.launch("extract", **layout))
    width = file.store.n_classes if file.store else config.model.kwargs.get("num_classes")
    return Work(config, paths, selection, manifest, done, width)


def compute(work: Work, world: World, file: RootFile, stop: StopRequest) -> Outcome:
    """Load the network on this rank's device and run it over what is left. Collective."""
    from mia_batch import affinity

    affinity.share_cores(world)
    from mia_batch import inference  # MindSpore: after the cores are shared out, which is all that bounds its threads

    config = work.config

    def load() -> inference.Predictor:
        placement = inference.place(config.extract.device, world.local_rank, world.local_size, os.environ)
        inference.set_up(placement)
        network = inference.load_network(config.model, config.data.image_size)
        return inference.Predictor(network, config.extract.batch_size)

    predictor = world.on_all(load)
    extraction = Extraction(
        world,
        predictor,
        batches=lambda rows: inference.batches(config.data, work.selection, rows, config.extract.batch_size),
        describe=work.selection.describe,
        open_store=lambda n_classes: file.open(work, n_classes),
        n_classes=work.n_classes,
    )
    return extraction.run(work.done, stop)


def extract(args: argparse.Namespace, world: World, stop: StopRequest) -> int:
    """The whole stage; returns the exit code, the same on every rank."""
    file = RootFile()
    try:
        work = world.on_root(lambda: prepare(args, world, file))
        if work.done.all():
            log.info("extract: nothing to do, all %d rows are done", len(work.done))
            return OK
        outcome = compute(work, world, file, stop)
    finally:
        file.close()
    if outcome.done < outcome.total:
        log.warning(
            "stopped by signal %s with %d of %d rows done; the same command goes on from there",
            outcome.signal, outcome.done, outcome.total,
        )
        return RESUME
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python jobs/extract.py CONFIG --out DIR`, under mpirun, srun or alone."""
    args = stage_parser("extract", __doc__ or "").parse_args(argv)
    with StopRequest().listening() as stop:
        return run_main(lambda: _on_this_rank(args, stop), verbose=args.verbose)


def _on_this_rank(args: argparse.Namespace, stop: StopRequest) -> int:
    world = connect()
    try:
        return extract(args, world, stop)
    except InputError:  # raised on every rank alike: the root reports it
        if world.is_root:
            raise
        return 2
    except BaseException:
        if world.size == 1:
            raise
        traceback.print_exc()
        print(f"mia-batch: rank {world.rank} failed; ending all {world.size} ranks", file=sys.stderr, flush=True)
        world.abort(FAILED)
        raise


if __name__ == "__main__":
    sys.exit(main())
