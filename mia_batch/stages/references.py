"""References: run the audited network with the weights of each reference over the samples of the audit."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.forms import Form
from mia_batch.data.prepared import Prepared
from mia_batch.data.selection import Selection
from mia_batch.errors import InputError, InUseError
from mia_batch.files import write_text
from mia_batch.inputs import NO_GROUP
from mia_batch.locks import in_use
from mia_batch.mpi.world import World
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.resources import peak_memory
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.claim import claim
from mia_batch.rundir.crashes import begin_launch, report_own_crash, rows_before_crash
from mia_batch.rundir.identity import data_digest
from mia_batch.rundir.manifest import Manifest, add_launch, end_launch, launch
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_files import reference_weights
from mia_batch.rundir.reference_store import (
    ReferenceStore,
    StoredSamples,
    make_store,
    reference_fields,
    reference_paths,
    row_dtype,
    share,
)
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import Config, ModelConfig, ReferencesConfig
from mia_batch.stages.arguments import load_run
from mia_batch.stages.extract import look_at_run, placement
from mia_batch.stages.gather import Extraction
from mia_batch.stages.plan import weights_of
from mia_batch.stages.shadows import refuse_untrained, training_launches

if TYPE_CHECKING:
    from mia_batch.network.batches import Reader
    from mia_batch.network.forward import Predictor

log = logging.getLogger(__name__)
WAIT_SECONDS = 2.0  # between two looks at what another process computes


@dataclass(frozen=True)
class Reference:
    """One reference: the field of its weights, the model with them, and where its outputs are."""

    field: str
    model: ModelConfig
    paths: ReferencePaths


@dataclass(frozen=True)
class Work:
    """What the root has found out, for every rank.

    Attributes:
        selection: the samples in the order of the store, of whom none is said to be a member.
        left: references without outputs.
        prepared: where the samples are, in the audit's order, if they have been prepared.
    """

    config: Config
    paths: RunPaths
    only: int | None
    settings: ReferencesConfig
    manifest: Manifest
    selection: Selection
    form: Form | None
    left: tuple[Reference, ...]
    prepared: Prepared | None

    @property
    def samples(self) -> StoredSamples:
        """The samples as the store has them."""
        return StoredSamples(self.selection.split, self.selection.sample_index, self.selection.label)


def open_work(args: argparse.Namespace, world: World) -> Work:
    """On the root: read the config, choose the samples, see whose outputs are missing."""
    config, paths = load_run(args, need=("checkpoint", "data"))
    if config.references is None:
        raise InputError(f"{config.path}: references: is required")
    # Prepared images have the network's size: queries move the pixels of the source's.
    usable = args.prepared and config.references.queries is None
    prepared = Prepared(Path(args.prepared).absolute()) if usable else None
    chosen, form, manifest = look_at_run(config, prepared)
    with named_in(config.path):
        refuse_untrained(config, manifest.digests)
    manifest = claim(paths, manifest)
    samples = StoredSamples(chosen.split, chosen.sample_index, chosen.label)
    n, order = len(chosen), samples.order
    selection = Selection(
        sample_index=chosen.sample_index[order], split=chosen.split[order], label=chosen.label[order],
        member=np.zeros(n), group=np.full(n, NO_GROUP),
    )  # fmt: skip
    left = _left(config, manifest, samples, args.only)
    if left:  # else who may only read the store may use it
        with named_in(config.path):
            make_store(config.references.store, config.references.group)
        fields = [each.field for each in left]
        begun = launch("references", rank_size=world.size, n_nodes=world.n_nodes, references=fields)
        manifest = add_launch(paths, begun, training_launches(config))
    return Work(config, paths, args.only, config.references, manifest, selection, form, left, prepared)


def _left(
    config: Config, manifest: Manifest, samples: StoredSamples, only: int | None
) -> tuple[Reference, ...]:
    """The references, or the one that is wanted, of which there are no outputs."""
    files = reference_weights(config.references) | {"model.checkpoint": config.model.checkpoint}
    own_names = {"prefix": None, "rename": None} if config.references and config.references.shadows else {}
    references = [
        Reference(field, _model(config, files[field], own_names if field != "model.checkpoint" else {}), where)
        for field, where in reference_paths(manifest, samples).items()
    ]
    wanted = references if only is None else _one_of(references, only)
    return tuple(each for each in wanted if not each.paths.outputs.exists())


def _model(config: Config, checkpoint: Path, own_names: Mapping[str, None]) -> ModelConfig:
    """The audited model with other weights, which have the network's own names where they were trained here."""
    return config.model.model_copy(update={"checkpoint": checkpoint, **own_names})


def missing_outputs(manifest: Manifest, selection: Selection) -> tuple[int, ...]:
    """The numbers, as --only takes them, of what is not in the store of an audit with these samples."""
    samples = StoredSamples(selection.split, selection.sample_index, selection.label)
    found = reference_paths(manifest, samples)
    fields = enumerate(reference_fields(manifest))
    return tuple(i for i, field in fields if field not in found or not found[field].outputs.exists())


def make_missing_store(config: Config, manifest: Manifest, selection: Selection) -> tuple[int, ...]:
    """`missing_outputs`, whose store is made before any stage has begun; one that lacks nothing may only be read.

    Raises:
        InputError: it cannot be made or written.
    """
    missing = missing_outputs(manifest, selection) if config.references else ()
    if config.references and missing:
        with named_in(config.path):
            make_store(config.references.store, config.references.group)
    return missing


def _one_of(references: list[Reference], number: int) -> list[Reference]:
    if not 0 <= number < len(references):
        raise InputError(f"--only: must be in 0..{len(references) - 1}, the references, got {number}")
    return [references[number]]


class RootFile:
    """The outputs of the reference at hand on the root: opened if they are begun, else made at the first block."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.store: ReferenceStore | None = None

    def begin(self, reference: Reference) -> NDArray[np.bool_] | None:
        """Which rows need no work, (n_rows,); None where another process is at this reference, or has done it."""
        paths, n_rows = reference.paths, len(self.work.selection)
        if paths.outputs.exists() or (paths.partial.exists() and in_use(paths.partial)):
            return None
        done = np.zeros(n_rows, dtype=bool)
        if paths.partial.exists():
            try:
                self.store = ReferenceStore(paths.partial)
            except InUseError:
                return None
            before = rows_before_crash(paths, n_rows)
            if before is not None:
                log.warning("a rank crashed at %s: its rows are computed again; see %s", reference.field, paths.launch)
                self.store.keep(before)
            done = self.store.done()
        begin_launch(paths, done)
        share(paths.launch, self.work.settings.group)
        write_text(self.work.paths.reference_launch(self.work.only), f"{paths.launch}\n")  # for who sees a crash
        return done

    def open(self, reference: Reference, n_classes: int) -> ReferenceStore:
        """The store to write to."""
        if self.store is None:
            if reference.paths.outputs.exists():
                raise InUseError(f"{reference.paths.outputs}: has been written by another run")
            work, settings = self.work, self.work.settings
            attrs: dict[str, Any] = {
                "weights": work.manifest.digests[reference.field], "versions": work.manifest.versions,
                "launch": launch("references"),
            }
            sent = row_dtype(n_classes, n_queries=settings.n_queries, logits=settings.logits)
            self.store = ReferenceStore.create(reference.paths, work.samples, sent, attrs, settings.group)
        return self.store

    def end(self, reference: Reference, *, complete: bool) -> None:
        """Let other processes have the file, under its final name if it is complete."""
        if self.store and complete:
            self.store.finish(reference.paths)
        self.close()

    def close(self) -> None:
        """Let other processes have the file."""
        if self.store:
            self.store.close()
        self.store = None


class Asked:
    """A network that is asked every query of a sample, and whose answers are of the type that is kept."""

    def __init__(self, predictor: Predictor, settings: ReferencesConfig) -> None:
        self.predictor, self.settings = predictor, settings

    def logits(
        self, inputs: tuple[NDArray[Any], ...], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.floating]:
        """Arrays (n, ...), with queries one for each of them, to (n, n_queries, n_classes)."""
        asked = [(images,) for images in inputs] if self.settings.queries else [inputs]
        found = np.stack([self.predictor.logits(each, rows) for each in asked], axis=1)
        kept = self.settings.logits
        largest = np.abs(found).max(initial=0)
        if largest > np.finfo(kept).max and np.isfinite(largest):
            raise InputError(f"references.logits: must hold every logit, got {kept} and {largest:g}; take float32")
        return found.astype(kept)


def compute(work: Work, world: World, file: RootFile, stop: StopRequest) -> bool:
    """Run the network, built once, with the weights of each reference that is left. Collective.

    What another process is at is waited for, and taken over where that process ends without an end.

    Returns:
        Whether all outputs are there now; if not, it was stopped.
    """
    from mia_batch.mpi import affinity

    affinity.share_cores(world, work.config.extract.device)
    pending, predictor = work.left, None
    while True:
        for reference in pending:
            done = world.on_root(partial(file.begin, reference))
            if done is None:
                continue
            predictor = _with_weights(work, reference, world, predictor)
            try:
                if not extract_one(work, reference, world, file, stop, Asked(predictor, work.settings), done):
                    return False
            except InUseError:  # on every rank: another process has made the file in the meantime
                file.close()
        pending = world.bcast(tuple(each for each in pending if not each.paths.outputs.exists()))
        if not pending or any(world.allgather(bool(stop))):
            return not pending
        if world.is_root:
            log.info("waits for another process, which is at %s", ", ".join(each.field for each in pending))
        time.sleep(WAIT_SECONDS)


def _with_weights(work: Work, reference: Reference, world: World, predictor: Predictor | None) -> Predictor:
    """The network with the weights of a reference: built where there is none yet. Collective."""
    from mia_batch.network.checkpoint import load_weights

    with weights_of(reference.field):
        if predictor is None:
            return world.on_all(lambda: _load(work, reference, world))
        world.on_all(lambda: load_weights(predictor.network, reference.model))
    return predictor


def _load(work: Work, reference: Reference, world: World) -> Predictor:
    from mia_batch.network.checkpoint import load_network
    from mia_batch.network.forward import Predictor
    from mia_batch.network.outputs import Output
    from mia_batch.network.placement import set_up

    config = work.config
    set_up(placement(config.extract.device, world))
    network = load_network(reference.model, config.data.network_size)
    return Predictor(network, config.extract.batch_size, output=Output.of(config.model))


def extract_one(
    work: Work, reference: Reference, world: World, file: RootFile, stop: StopRequest, forward: Asked,
    done: NDArray[np.bool_],
) -> bool:
    """Compute the rows of a reference that are not done. Collective.

    Returns:
        Whether all are now; if not, it was stopped.
    """
    from mia_batch.network.batches import batches, reader

    config, settings = work.config, work.settings
    started = time.monotonic()
    report_own_crash(reference.paths)
    read = _prepared_reader(work) if work.prepared else reader(config.data, work.selection, form=work.form)
    predictor = forward.predictor
    outcome = Extraction(
        world,
        forward,
        batches=lambda rows: batches(
            config.data, work.selection, rows, predictor.batch_size, read=read, network=predictor.network,
            queries=settings.queries,
        ),
        describe=lambda row: f"{reference.field}: {work.selection.describe(row)}",
        open_store=lambda n_classes: file.open(reference, n_classes),
        n_classes=world.bcast(file.store.n_classes if file.store else config.model.n_columns()),
        dtype=partial(row_dtype, n_queries=settings.n_queries, logits=settings.logits),
        what=reference.field,
    ).run(done, stop)
    complete = outcome.done == outcome.total
    world.on_root(lambda: file.end(reference, complete=complete))
    if world.is_root and complete:
        log.info("%s: written, %.1f s", reference.field, time.monotonic() - started)
    elif world.is_root:
        log.warning(
            "%s: stopped by signal %s with %d of %d rows done; the same command goes on from there",
            reference.field, outcome.signal, outcome.done, outcome.total,
        )
    return complete


def _prepared_reader(work: Work) -> Reader:
    """Read rows of the store from the prepared files, which have them in the audit's order."""
    assert work.prepared is not None
    opened = work.prepared.open(data_digest(work.manifest))
    order = np.lexsort((opened.selection.sample_index, opened.selection.split))
    return lambda rows: opened.read(order[rows])


def references(args: argparse.Namespace, world: World, stop: StopRequest) -> int:
    """The whole stage; returns the exit code, the same on every rank."""
    work = world.on_root(lambda: open_work(args, world))
    if not work.left:
        if world.is_root:
            log.info("references: nothing to do, the outputs of all are in %s", work.settings.store)
        return OK
    file, started = RootFile(work), time.monotonic()
    try:
        with named_in(work.config.path):
            all_there = compute(work, world, file, stop)
    finally:
        file.close()
    peaks = [peak for peak in world.allgather(peak_memory()) if peak]
    if world.is_root:
        measured = {"complete": all_there, "seconds": round(time.monotonic() - started, 3)}
        end_launch(work.paths, work.manifest.launches[-1], measured | ({"memory": max(peaks)} if peaks else {}))
        work.paths.reference_launch(work.only).unlink(missing_ok=True)
    return OK if all_there else RESUME
