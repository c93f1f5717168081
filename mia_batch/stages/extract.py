"""Run the network over members and non-members, on every rank that mpirun or srun has started."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.forms import Form
from mia_batch.data.prepared import Prepared
from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.inputs import NO_GROUP
from mia_batch.mpi.launcher import launched_first
from mia_batch.mpi.rank_log import labelled
from mia_batch.mpi.world import World, connect
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, OK, RESUME, print_problems, refusal_of
from mia_batch.process.resources import peak_memory
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.claim import claim
from mia_batch.rundir.crashes import begin_launch, report_own_crash, rows_before_crash
from mia_batch.rundir.features import FeatureStore, as_stored
from mia_batch.rundir.identity import data_digest, features_digest
from mia_batch.rundir.manifest import Manifest, add_launch, end_launch, launch
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import read_rows
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import load_run
from mia_batch.stages.gather import Extraction, Outcome
from mia_batch.stages.plan import make_manifest, make_plan, warn_of_borrowed
from mia_batch.stages.trial import TRIED, Trial, try_out

if TYPE_CHECKING:
    from mia_batch.network.batches import Reader
    from mia_batch.network.placement import Placement

log = logging.getLogger(__name__)
Stage = Callable[[argparse.Namespace, World, StopRequest], int]


@dataclass(frozen=True)
class Work:
    """What the root has found out, for every rank."""

    config: Config
    paths: RunPaths
    selection: Selection
    manifest: Manifest
    done: NDArray[np.bool_]
    n_classes: int | None
    form: Form | None
    prepared: Prepared | None = None


class RootFile:
    """features.h5 on the root: opened if it is there, else made at the first block, when the width is known."""

    def __init__(self) -> None:
        self.store: FeatureStore | None = None

    def rows_done(self, paths: RunPaths, selection: Selection) -> NDArray[np.bool_]:
        """Which rows of the run that has claimed this directory need no work."""
        rows, n_rows = read_rows(paths), len(selection)
        if rows is None:
            return np.zeros(n_rows, dtype=bool)
        if rows.total != n_rows:
            raise InputError(f"{paths.features}: must have {n_rows} rows for this config, got {rows.total}")
        if rows.complete:  # a complete file is not opened for writing again
            return np.ones(n_rows, dtype=bool)
        self.store = FeatureStore(paths.features)
        before = rows_before_crash(paths, n_rows)
        if before is not None:
            log.warning("a rank of the last launch crashed: its rows are computed again; see %s", paths.launch)
            for fitted in paths.attacks.iterdir():  # on rows that are not trusted
                fitted.unlink()
            self.store.keep(before)
        self._refuse_other_samples(paths, selection)
        self.store.seal()  # of a process that was killed after the last row
        return self.store.done()

    def _refuse_other_samples(self, paths: RunPaths, selection: Selection) -> None:
        """Refuse to go on where a sample is not what it was when the run began, as of a folder without a digest."""
        assert self.store is not None
        for name, wanted in _columns(selection).items():
            found = self.store.column(name)
            if found is not None and len(other := np.flatnonzero(found != as_stored(name, wanted))):
                row, rule = int(other[0]), f"{name} must be what it was when the run began"
                got = f"got {wanted[row]}, was {found[row]}"
                raise InputError(f"{paths.features}: {selection.describe(row)}: {rule}, {got}")

    def open(self, work: Work, n_classes: int) -> FeatureStore:
        """The store to write to."""
        if self.store is None:
            manifest = work.manifest
            attrs = {key: getattr(manifest, key) for key in ("config", "digests", "versions")}
            attrs |= {"identity": features_digest(manifest), "launch": manifest.launches[-1]}
            self.store = FeatureStore.create(work.paths.features, _columns(work.selection), n_classes, attrs)
        return self.store

    def close(self) -> None:
        """Let other processes have the file."""
        if self.store:
            self.store.close()


def open_work(args: argparse.Namespace, world: World, file: RootFile) -> Work:
    """On the root: read the config, choose the samples, claim the run directory, see what is left to do."""
    config, paths = load_run(args, need=("checkpoint", "data"))
    prepared = Prepared(Path(args.prepared).absolute()) if args.prepared else None
    selection, form, manifest = look_at_run(config, prepared)
    manifest = claim(paths, manifest)
    done = file.rows_done(paths, selection)
    if not done.all():
        begin_launch(paths, done)
        entry = launch("extract", rank_size=world.size, n_nodes=world.n_nodes, rows_done=int(done.sum()))
        manifest = add_launch(paths, entry)
    width = file.store.n_classes if file.store else config.model.n_columns()
    return Work(config, paths, selection, manifest, done, width, form, prepared)


def look_at_run(config: Config, prepared: Prepared | None) -> tuple[Selection, Form | None, Manifest]:
    """The samples, what each has, and what the run is; where they are prepared, no user's source is read again."""
    if prepared is None:
        planned = make_plan(config, n_looked_at=1)
        return planned.selection, planned.form, planned.manifest
    warn_of_borrowed(config.data)
    manifest = make_manifest(config)
    return prepared.open(data_digest(manifest)).selection, None, manifest


def _columns(selection: Selection) -> dict[str, NDArray[Any]]:
    found = {name: getattr(selection, name) for name in ("sample_index", "split", "label", "member", "group")}
    named = (selection.group != NO_GROUP).any()
    return found | ({"group_name": selection.group_name} if named else {})


def compute(work: Work, world: World, file: RootFile, stop: StopRequest) -> tuple[Outcome, dict[str, Any]]:
    """Load the network on this rank's device and run it over what is left. Collective.

    Returns:
        How it ended, and what was measured: the seconds of the run without the loading, and the network's weights.
    """
    from mia_batch.mpi import affinity

    config = work.config
    affinity.share_cores(world, config.extract.device)
    from mia_batch.network.batches import batches, reader
    from mia_batch.network.checkpoint import load_network, n_parameters
    from mia_batch.network.forward import Predictor
    from mia_batch.network.outputs import Output
    from mia_batch.network.placement import set_up

    def load() -> Predictor:
        set_up(placement(config.extract.device, world))
        network = load_network(config.model, config.data.network_size)
        return Predictor(network, config.extract.batch_size, output=Output.of(config.model))

    predictor = world.on_all(load)
    report_own_crash(work.paths)  # not earlier: users' code and MindSpore, loaded now, may ask for their own reports
    read = _mapped(work) if work.prepared else reader(config.data, work.selection, form=work.form)
    if not work.done.any():  # else the network has run on these samples already
        n = min(TRIED, predictor.batch_size)
        world.on_root(lambda: _say(try_out(config, work.selection, predictor, read, n_classes=work.n_classes, n=n)))
    extraction = Extraction(
        world,
        predictor,
        batches=lambda rows: batches(
            config.data, work.selection, rows, config.extract.batch_size, read=read, network=predictor.network
        ),
        describe=work.selection.describe,
        open_store=lambda n_classes: file.open(work, n_classes),
        n_classes=work.n_classes,
    )
    started = time.monotonic()
    outcome = extraction.run(work.done, stop)
    forward = round(time.monotonic() - started, 3)
    return outcome, {"forward_seconds": forward, "parameters": n_parameters(predictor.network)}


def _say(trial: Trial) -> None:
    for line in trial.lines():
        log.info("%s", " ".join(line.split()))


def _mapped(work: Work) -> Reader:
    """Read rows from the prepared files, which every rank maps."""
    assert work.prepared is not None
    opened = work.prepared.open(data_digest(work.manifest))
    return opened.read


def placement(device: str, world: World) -> Placement:
    """Where this rank runs its network. Collective."""
    from mia_batch.mpi import affinity
    from mia_batch.network.placement import place, reported_device, visible_cards

    if device == "auto":  # MindSpore logs errors when asked for cards on a host without any
        device = reported_device() if affinity.has_accelerator() else "CPU"
    seen = world.allgather(None if device == "CPU" else visible_cards(device, os.environ))
    peers = [seen[rank] for rank in world.local_ranks]
    return place(device, world.local_rank, world.local_size, os.environ, peers=peers)


def extract(args: argparse.Namespace, world: World, stop: StopRequest) -> int:
    """The whole stage; returns the exit code, the same on every rank."""
    file = RootFile()
    try:
        work = world.on_root(lambda: open_work(args, world, file))
        if work.done.all():
            if world.is_root:
                log.info("extract: nothing to do, all %d rows are done", len(work.done))
            return OK
        started = time.monotonic()
        with named_in(work.config.path):
            outcome, found = compute(work, world, file, stop)
        peaks = [peak for peak in world.allgather(peak_memory()) if peak]
        if world.is_root:
            measured = {"rows_done_after": outcome.done, "seconds": round(time.monotonic() - started, 3), **found}
            end_launch(work.paths, work.manifest.launches[-1], measured | ({"memory": max(peaks)} if peaks else {}))
    finally:
        file.close()
    if outcome.done < outcome.total:
        if world.is_root:
            log.warning(
                "stopped by signal %s with %d of %d rows done; the same command goes on from there",
                outcome.signal, outcome.done, outcome.total,
            )
        return RESUME
    return OK


def run_on_this_rank(args: argparse.Namespace, stop: StopRequest, *, stage: Stage = extract) -> int:
    """Connect to the other ranks and do a stage of all of them."""
    try:
        world = connect()
    except InputError:
        if launched_first():
            raise
        return BAD_INPUT
    try:
        with labelled(f"[{world.host} {world.rank}]"):
            return _reported(args, world, stop, stage)
    except BaseException:
        world.abort(FAILED)
        raise


def _reported(args: argparse.Namespace, world: World, stop: StopRequest, stage: Stage) -> int:
    try:
        return stage(args, world, stop)
    except InputError as error:  # raised on every rank alike
        if world.is_root:
            print_problems(error)
        return BAD_INPUT
    except BaseException as error:
        refused = refusal_of(error)
        if refused:  # this rank alone: the others wait for it
            print_problems(refused)
            world.abort(BAD_INPUT)
            return BAD_INPUT
        if world.size > 1:
            if not isinstance(error, KeyboardInterrupt):
                traceback.print_exc()
            print(f"mia-batch: rank {world.rank} failed; ending all {world.size} ranks", file=sys.stderr, flush=True)
        raise
