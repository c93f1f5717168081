"""Train the network of a configuration on its members; a second call goes on where the first one stopped."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_batch import json_text
from mia_batch.data.digests import data_digests
from mia_batch.data.selection import Selection
from mia_batch.data.sources import open_source
from mia_batch.errors import InputError
from mia_batch.files import atomic_path, sha256, write_text
from mia_batch.mpi.launcher import launched_first, local_place
from mia_batch.network.datasets import open_dataset
from mia_batch.process.exit_codes import BAD_INPUT, OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.resources import peak_memory
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.identity import CONTENT, differences
from mia_batch.rundir.manifest import launch, versions
from mia_batch.settings.loading import load_config, named_in
from mia_batch.settings.schema import Config, DataConfig, factory_file

if TYPE_CHECKING:  # MindSpore takes seconds to import: only for a configuration that is right
    from mia_batch.network.train import Ranks, Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The files that training writes into one folder."""

    checkpoint: Path

    @property
    def provenance(self) -> Path:
        """How the checkpoint came about."""
        return self.checkpoint.with_name(f"{self.checkpoint.name}.json")

    @property
    def state(self) -> Path:
        """Weights and optimizer of a training that has not finished."""
        return self.checkpoint.with_name(f"{self.checkpoint.stem}.training.ckpt")


LOGITS = "logits"  # what every network gave that had no say in it


def training_identity(
    config: Config, selection: Selection, digests: Callable[[DataConfig], Mapping[str, str]] = data_digests
) -> dict[str, Any]:
    """What must be equal for two trainings to be the same, as a flat mapping.

    Args:
        config: the configuration.
        selection: its members.
        digests: SHA-256 of the files of their splits.
    """
    resolved = config.resolved()
    members = hashlib.sha256()
    for column in (selection.sample_index, selection.label, selection.split):
        members.update("\n".join(map(str, column)).encode())
    only_members = config.data.model_copy(update={"nonmembers": config.data.members})
    file = config.model.factory_file()
    form = {key: resolved["model"][key] for key in ("output", "key", "index")}
    return {
        **{f"model.{key}": value for key, value in form.items() if value not in (None, LOGITS)},  # as versions before
        "model.factory": sha256(file) if file else config.model.factory,
        "model.function": config.model.factory.rpartition(":")[2],
        **{f"model.kwargs.{key}": value for key, value in resolved["model"]["kwargs"].items()},
        **{f"train.{key}": value for key, value in resolved["train"].items() if key != "checkpoint_every"},
        **{f"data.{key}": resolved["data"][key] for key in ("label", "image_size", "mean", "std", "augment_members")},
        **{f"data.kwargs.{key}": value for key, value in resolved["data"]["kwargs"].items()},
        **_of_other_inputs(config),
        "SHA-256 of the members": members.hexdigest(),
        **{f"SHA-256 of {name}": digest for name, digest in digests(only_members).items()},
    }


def _of_other_inputs(config: Config) -> dict[str, Any]:
    """What the preprocessing is, where it is not that of images, which is all that versions before had."""
    data, resolved = config.data, config.resolved()["data"]
    keys = [key for key in ("columns", "pad", "pad_to") if resolved[key] is not None]
    found = {f"data.{key}": resolved[key] for key in keys}
    file = factory_file(data.preprocess)
    if not data.is_image:
        found["data.preprocess"] = data.preprocess.rpartition(":")[2] if file else data.preprocess
    return found | ({f"{CONTENT}data.preprocess": sha256(file)} if file else {})


def already_trained(
    files: Files, identity: Mapping[str, Any], digest_of: Callable[[Path], str] = sha256
) -> bool:
    """Whether this training's checkpoint is there already; `digest_of` gives the digest of a file, if it is known.

    Raises:
        InputError: another file is there, which is never overwritten.
    """
    if not files.checkpoint.exists():
        return False
    where = f"{files.checkpoint}: model.checkpoint"
    advice = "train to another model.checkpoint, or move it away"
    try:
        found = json_text.read(files.provenance)
        there, digest = found["identity"], found["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{where}: must not be there before training, got one not written by it; {advice}") from None
    if digest != digest_of(files.checkpoint):
        raise InputError(f"{where}: must be as training wrote it ({files.provenance.name}), got other bytes; {advice}")
    different = differences(there, identity)
    if different:
        raise InputError([f"{where}: is of another training: {phrase}; {advice}" for phrase in different])
    return True


def train(config: Config, stop: StopRequest, ranks: Ranks, *, test: bool = False) -> int:
    """Train, or go on with it, and put the checkpoint and its provenance in place.

    Args:
        config: the configuration.
        stop: looked at before every step, by several ranks together after every epoch; then the state is saved.
        ranks: from `connect_ranks`; only rank 0 writes.
        test: also measure the accuracy on the non-members, after the last step.

    Returns:
        The epochs that are done: fewer than configured where `stop` came first.

    Raises:
        InputError: bad input, a file in the way, or a loss that is not finite.
    """
    from mia_batch.network.train import Trainer, members_of

    files = Files(config.model.checkpoint)
    _check_folder(files)
    identity = training_identity(config, members_of(config, open_source(config.data, open_dataset)))
    if already_trained(files, identity):
        log.info("nothing to do: %s is there already, trained by this configuration", files.checkpoint)
        return config.train.epochs
    trainer = Trainer(config, ranks)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    if files.state.exists():
        trainer.load(files.state, key)
        log.info("going on after %d of %d epochs (%s)", trainer.epoch, config.train.epochs, files.state.name)
    started, begun, before = time.perf_counter(), launch("train"), trainer.epoch
    if not _run_epochs(trainer, files.state, key, stop):
        return trainer.epoch
    accuracy = {"accuracy": trainer.accuracy()} | ({"test_accuracy": trainer.test_accuracy()} if test else {})
    if ranks.rank == 0:
        seconds = round(time.perf_counter() - started, 3)
        timed = {"seconds": seconds, "epochs_timed": trainer.epoch - before, "samples": len(trainer.selection)}
        _finish(trainer, files, identity, {**accuracy, **timed, "memory": peak_memory(), "launch": begun})
    on_members = accuracy["accuracy"]
    log.info("trained %d epochs, accuracy on the members %.4f: %s", trainer.epoch, on_members, files.checkpoint)
    return trainer.epoch


def _check_folder(files: Files) -> None:
    if files.checkpoint.suffix != ".ckpt":
        raise InputError(f"model.checkpoint: must end in .ckpt to be trained to, got {files.checkpoint.name}")
    folder = files.checkpoint.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"model.checkpoint: folder {folder} must be writable, got {error.strerror}") from error


def _run_epochs(trainer: Trainer, state: Path, key: str, stop: StopRequest) -> bool:
    """Run what is left; False where `stop` came first and the state was saved."""
    train = trainer.config.train
    with Progress(
        train.epochs, what="train", unit="epochs", done=trainer.epoch, shown=trainer.ranks.rank == 0, summed_up=False
    ) as progress:
        while trainer.epoch < train.epochs:
            if not _run_epoch(trainer, state, key, stop):
                return False
            progress.set(trainer.epoch)
    return True


def _run_epoch(trainer: Trainer, state: Path, key: str, stop: StopRequest) -> bool:
    """Run the next; False where `stop` came first and the state was saved."""
    train = trainer.config.train
    before, started = trainer.step, time.perf_counter()
    loss, accuracy = trainer.run_epoch(stop)
    rate = (trainer.step - before) * trainer.batch_size * trainer.ranks.size / (time.perf_counter() - started)
    stopped = trainer.agreed(stop) and trainer.epoch < train.epochs
    if not stopped:
        results = trainer.epoch, train.epochs, loss, accuracy, rate
        log.info("epoch %d/%d: loss %.4f, accuracy %.4f, %.0f samples/s", *results)
    due = trainer.epoch % train.checkpoint_every == 0 and trainer.epoch < train.epochs
    if trainer.ranks.rank == 0 and (stopped or due):
        trainer.save(state, key)
    return not stopped


def _finish(trainer: Trainer, files: Files, identity: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write the provenance, then the checkpoint, then remove the state: a kill in between leaves one to go on from."""
    from mia_batch.network.checkpoint import write_parameters

    parameters = [{"name": p.name, "data": p} for p in trainer.network.get_parameters()]
    with atomic_path(files.checkpoint) as temporary:
        write_parameters(temporary, parameters)
        record = {
            "sha256": sha256(temporary), "config": trainer.config.resolved(), "identity": identity,
            "seed": trainer.config.train.seed, "epochs": trainer.epoch, **results, "rank_size": trainer.ranks.size,
            "versions": versions(),
        }  # fmt: skip
        write_text(files.provenance, json_text.written(record))
    files.state.unlink(missing_ok=True)


def run_train_stage(args: argparse.Namespace, stop: StopRequest) -> int:
    """The whole stage; returns the exit code."""
    return train_here(load_config(args.config, need=("data",), changes=args.changes), stop)


def train_here(config: Config, stop: StopRequest, *, test: bool = False) -> int:
    """Connect the ranks and `train`; returns the exit code."""
    from mia_batch.network.placement import place, set_up  # MindSpore
    from mia_batch.network.train import connect_ranks

    # Alone it may use every core; several ranks on a node have a card each.
    local_rank, local_size = local_place(os.environ)
    placement = place(config.extract.device, local_rank, local_size, os.environ)
    set_up(placement)
    with named_in(config.path):
        try:
            ranks = connect_ranks(placement.device_target, os.environ)
        except InputError:
            if launched_first():  # all ranks have found the same
                raise
            return BAD_INPUT
        epochs = train(config, stop, ranks, test=test)
    if epochs < config.train.epochs:
        log.warning(
            "stopped by signal %s in epoch %d of %d, state saved; the same command goes on from there",
            stop.signal, epochs + 1, config.train.epochs,
        )
        return RESUME
    return OK
