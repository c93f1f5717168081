"""Train the network of a configuration on its members, resumably. MindSpore edge."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mia_batch import data as samples
from mia_batch import inference, provenance
from mia_batch.comm import LAUNCHER_SIZES
from mia_batch.config import Config, TrainConfig
from mia_batch.entry import StopRequest
from mia_batch.errors import InputError
from mia_batch.factory import one_line
from mia_batch.models.factory import build_network
from mia_batch.paths import atomic_path, write_text

log = logging.getLogger(__name__)

WARM_UP = 0.05  # of all steps, in which the learning rate rises from zero
STEPS_AT, STEP_FACTOR = (0.3, 0.6, 0.9), 0.1  # as the tutorial's epochs 30, 60 and 90 of 100


@dataclass(frozen=True)
class Files:
    """What training writes, beside one another."""

    checkpoint: Path

    @property
    def provenance(self) -> Path:
        """How the checkpoint came about."""
        return self.checkpoint.with_name(f"{self.checkpoint.name}.json")

    @property
    def state(self) -> Path:
        """Weights and optimizer of a training that has not finished."""
        return self.checkpoint.with_name(f"{self.checkpoint.stem}.training.ckpt")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a training ended: finished, or stopped by a signal with its state saved."""

    finished: bool
    epochs: int
    accuracy: float = math.nan


def learning_rates(train: TrainConfig, steps_per_epoch: int) -> np.ndarray:
    """Learning rate of every step, float32 (epochs * steps_per_epoch,).

    "cosine" falls from `learning_rate` to zero, "step" is divided by ten after 30, 60 and 90 % of the steps, both after
    a linear rise over the first 5 %; "constant" stays.
    """
    total = train.epochs * steps_per_epoch
    place = np.arange(total) / total
    if train.schedule == "constant":
        factor = np.ones(total)
    elif train.schedule == "step":
        factor = STEP_FACTOR ** np.searchsorted(STEPS_AT, place, side="right").astype(float)
    else:
        factor = 0.5 * (1 + np.cos(np.pi * place))
    if train.schedule != "constant":
        rise = max(1, round(WARM_UP * total))
        factor[:rise] *= np.arange(1, rise + 1) / rise
    return (train.learning_rate * factor).astype(np.float32)


def parameter_groups(network: nn.Cell) -> list[dict[str, Any]]:
    """All trainable parameters; biases and batch normalisation's gamma and beta are not decayed, as in the tutorial."""
    plain = [p for p in network.trainable_params() if p.name.endswith((".bias", ".gamma", ".beta"))]
    decayed = [p for p in network.trainable_params() if not p.name.endswith((".bias", ".gamma", ".beta"))]
    groups: list[dict[str, Any]] = [{"params": plain, "weight_decay": 0.0}, {"params": decayed}]
    return [group for group in groups if group["params"]]


class TrainStep(nn.Cell):
    """One step of the optimizer, compiled whole; gives the batch's mean loss and how many it got right."""

    def __init__(self, network: nn.Cell, optimizer: nn.Cell, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        self.gradient = ms.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)
        self.reduce = nn.DistributedGradReducer(optimizer.parameters) if ranks.size > 1 else nn.Identity()

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and logits of a batch."""
        logits = self.network(images)
        return self.cross_entropy(logits, labels), logits

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and number of right answers, before the step."""
        (loss, logits), gradients = self.gradient(images, labels)
        loss = ops.depend(loss, self.optimizer(self.reduce(gradients)))
        right = (logits.argmax(axis=1) == labels).astype(ms.int32).sum()
        return loss, right


class Agreement(nn.Cell):
    """The sum of all ranks' numbers, on every rank. Collective."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM)  # on CPU MindSpore has no other

    def construct(self, mine: Tensor) -> Tensor:
        """The sum of every rank's `mine`."""
        return self.reduce(mine)


class Trainer:
    """A network, its optimizer and its members, at some step of the training.

    Args:
        config: the configuration; `model.checkpoint` is not read.
        ranks: this process among those that train together; each takes an equal part of every batch.
    """

    def __init__(self, config: Config, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.source = samples.open_source(config.data)
        self.selection = members_of(config, self.source)
        n_samples = len(self.selection)
        if n_samples < ranks.size:
            raise InputError(f"data.members: must have a sample for each of {ranks.size} ranks, got {n_samples}")
        self.batch_size = min(config.train.batch_size, n_samples // ranks.size)
        self.steps_per_epoch = n_samples // (self.batch_size * ranks.size)
        self.step = 0  # of all epochs
        ms.set_seed(config.train.seed)
        self.network = build_network(config.model, config.data.image_size)
        self.preprocess = inference.Preprocess(config.data.image_size, config.data.mean, config.data.std)
        self._check_labels()
        self.optimizer = nn.Momentum(
            parameter_groups(self.network),
            learning_rate=learning_rates(config.train, self.steps_per_epoch).tolist(),
            momentum=config.train.momentum,
            weight_decay=config.train.weight_decay,
        )
        self.train_step = TrainStep(self.network, self.optimizer, ranks)
        self._agreement = Agreement() if ranks.size > 1 else None

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self.step // self.steps_per_epoch

    def _check_labels(self) -> None:
        width = inference.Predictor(self.network, self.batch_size).logits(self._images(np.array([0]))).shape[1]
        wrong = np.flatnonzero(self.selection.label >= width)
        if len(wrong):
            where = f"{self.selection.split[wrong[0]]} sample {self.selection.sample_index[wrong[0]]}"
            raise InputError(f"{where}: label must be in [0, {width}), got {self.selection.label[wrong[0]]}")

    def _images(self, rows: np.ndarray, epoch: int | None = None) -> np.ndarray:
        images = inference.read_images(self.source, self.selection, rows)
        if self.config.data.augment_members and epoch is not None:
            chosen = self.selection.split[rows], self.selection.sample_index[rows]
            images = inference.augmented(images, *chosen, self.config.train.seed, epoch)
        return self.preprocess(images)

    def agreed(self, stop: StopRequest) -> bool:
        """Whether any rank is to stop. Collective: a rank that left alone would have the others wait for ever."""
        if self._agreement is None:
            return bool(stop)
        return bool(self._agreement(Tensor([float(bool(stop))], ms.float32)).asnumpy()[0])

    def run_epoch(self, stop: StopRequest) -> tuple[float, float]:
        """Go on to the epoch's end, or, alone, until `stop`; mean loss and accuracy of the steps done, NaN where none.

        Every sample comes once an epoch, in a new order; the few that do not fill a batch wait for the next.

        Raises:
            InputError: the loss is not finite.
        """
        self.network.set_train(True)
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((self.config.train.seed, epoch)).permutation(len(self.selection))
        results = []
        for step in range(first, self.steps_per_epoch):
            if self.ranks.size == 1 and stop:
                break
            together = self.batch_size * self.ranks.size
            rows = order[step * together : (step + 1) * together][self.ranks.rank :: self.ranks.size]
            labels = Tensor(self.selection.label[rows])
            results.append(self.train_step(Tensor(self._images(rows, epoch)), labels))
            self.step += 1
        return self._sum_up(results, epoch)

    def _sum_up(self, results: list[tuple[Tensor, Tensor]], epoch: int) -> tuple[float, float]:
        if not results:
            return math.nan, math.nan
        losses = np.array([float(loss.asnumpy()) for loss, _ in results])
        if not np.isfinite(losses).all():
            rate = self.config.train.learning_rate
            bad = losses[~np.isfinite(losses)][0]
            raise InputError(f"train.learning_rate: loss must stay finite, got {bad} in epoch {epoch + 1} with {rate}")
        return losses.mean(), sum(int(right.asnumpy()) for _, right in results) / (len(results) * self.batch_size)

    def accuracy(self) -> float:
        """Share of the members that the network gets right, without augmentation."""
        predictor = inference.Predictor(self.network, self.batch_size)
        right = 0
        for first in range(0, len(self.selection), self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, len(self.selection)))
            right += int((predictor.logits(self._images(rows)).argmax(axis=1) == self.selection.label[rows]).sum())
        return right / len(self.selection)

    def save(self, path: Path, identity: str) -> None:
        """Put weights, optimizer and place in the training at `path`, whole or not at all."""
        entries = {p.name: p for p in (*self.network.get_parameters(), *self.optimizer.get_parameters())}
        extra = {"step": self.step, "training": identity}
        with atomic_path(path) as temporary:
            write_parameters(temporary, [{"name": name, "data": p} for name, p in entries.items()], extra)

    def load(self, path: Path, identity: str) -> None:
        """Go on from what `save` has put at `path`.

        Raises:
            InputError: it is damaged, or of another training.
        """
        entries = inference.read_checkpoint(path)
        if entries.get("training") != identity:
            rule = "must be the state of this configuration's training"
            raise InputError(f"{path}: {rule}, got another's; remove it, or train to another model.checkpoint")
        wanted = {p.name: p for p in (*self.network.get_parameters(), *self.optimizer.get_parameters())}
        for name, parameter in wanted.items():
            if name not in entries or entries[name].shape != parameter.shape:
                raise InputError(f"{path}: must hold parameter {name} {tuple(parameter.shape)}")
            parameter.set_data(entries[name])
        self.step = int(entries["step"].asnumpy())


def members_of(config: Config, source: samples.Source) -> samples.Selection:
    """The members of a configuration; its non-members' files need not be there yet."""
    return samples.gather(samples.select_side(config.data.members, "data.members", source), [], source)


def write_parameters(path: Path, parameters: list[dict[str, Any]], extra: Mapping[str, Any] | None = None) -> None:
    """Write a MindSpore checkpoint at `path`, which need not end in .ckpt; OSError where that cannot be done."""
    written = path.with_name(f"{path.name}.ckpt")  # the only ending that MindSpore writes
    try:
        ms.save_checkpoint(parameters, str(written), append_dict=dict(extra or {}))
        written.chmod(0o644)  # MindSpore makes it read-only
        os.replace(written, path)
    except (RuntimeError, ValueError) as error:
        raise OSError(one_line(error)) from error
    finally:
        for left in (written, path.with_name(f"{path.name}.tmp")):  # the second is what MindSpore renames to the first
            left.unlink(missing_ok=True)


def training_identity(config: Config, selection: samples.Selection) -> dict[str, Any]:
    """What must be equal for two trainings to be the same, as a flat mapping."""
    resolved = config.resolved()
    members = hashlib.sha256()
    for column in (selection.sample_index, selection.label, selection.split):
        members.update("\n".join(map(str, column)).encode())
    only_members = config.data.model_copy(update={"nonmembers": config.data.members})
    file = config.model.factory_file()
    return {
        "model.factory": provenance.sha256(file) if file else config.model.factory,
        "model.function": config.model.factory.rpartition(":")[2],
        **{f"model.kwargs.{key}": value for key, value in resolved["model"]["kwargs"].items()},
        **{f"train.{key}": value for key, value in resolved["train"].items() if key != "checkpoint_every"},
        **{f"data.{key}": resolved["data"][key] for key in ("label", "image_size", "mean", "std", "augment_members")},
        **{f"data.kwargs.{key}": value for key, value in resolved["data"]["kwargs"].items()},
        "SHA-256 of the members": members.hexdigest(),
        **{f"SHA-256 of {name}": digest for name, digest in samples.data_digests(only_members).items()},
    }


def already_trained(files: Files, identity: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is there and is what this training would give.

    Raises:
        InputError: something else is there; it is never overwritten.
    """
    if not files.checkpoint.exists():
        return False
    where = f"{files.checkpoint}: model.checkpoint"
    advice = "train to another model.checkpoint, or move it away"
    try:
        found = json.loads(files.provenance.read_text(encoding="utf-8"))
        there, digest = found["identity"], found["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{where}: must not be there before training, got one not written by it; {advice}") from None
    if digest != provenance.sha256(files.checkpoint):
        raise InputError(f"{where}: must be as training wrote it ({files.provenance.name}), got other bytes; {advice}")
    different = provenance.differences(there, identity)
    if different:
        raise InputError([f"{where}: is of another training: {phrase}; {advice}" for phrase in different])
    return True


LOCAL_RANKS = (  # (rank, size) on the node, by launcher: Open MPI, MPICH, msrun and others
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_LOCALID", ""),  # how many tasks there are it says for the job, not for the step
)


def local_place(environ: Mapping[str, str]) -> tuple[int, int]:
    """(rank, size) on this node as the launcher tells, (0, 1) without one."""
    for names in LOCAL_RANKS:
        rank, size = (environ.get(name, "") for name in names)
        if rank.isdigit():
            return int(rank), int(size) if size.isdigit() else int(rank) + 1
    return 0, 1


def connect_ranks(target: str, environ: Mapping[str, str]) -> Ranks:
    """Join the ranks that the launcher has started.

    Raises:
        InputError: there are several and MindSpore cannot make them train together.
    """
    names = ("MS_WORKER_NUM", "RANK_SIZE", *LAUNCHER_SIZES)
    size = next((int(environ[name]) for name in names if environ.get(name, "").isdigit()), 1)
    if size == 1:
        return Ranks()
    if target == "CPU" and "MS_WORKER_NUM" not in environ:
        rule = "must be trained by one rank on CPU, or by msrun's: MindSpore has no communication under mpirun there"
        raise InputError(f"train: {rule}, got {size} ranks")
    try:
        ms.communication.init()
        ranks = Ranks(ms.communication.get_rank(), ms.communication.get_group_size())
    except (RuntimeError, ValueError) as error:
        rule = f"{size} ranks must be able to use MindSpore's communication on {target}"
        raise InputError(f"train: {rule}, got {one_line(error)}") from error
    parallel = {"parallel_mode": ms.ParallelMode.DATA_PARALLEL, "gradients_mean": True, "parameter_broadcast": True}
    ms.set_auto_parallel_context(device_num=ranks.size, **parallel)
    return ranks


def train(config: Config, stop: StopRequest, ranks: Ranks) -> Outcome:
    """Train, or go on training, and put the checkpoint and its provenance in place.

    Args:
        config: the configuration.
        stop: looked at before every step, by several ranks together after every epoch; then the state is saved.
        ranks: from `connect_ranks`; only rank 0 writes.

    Raises:
        InputError: bad input, a file in the way, or a loss that is not finite.
    """
    files = Files(config.model.checkpoint)
    _check_folder(files)
    identity = training_identity(config, members_of(config, samples.open_source(config.data)))
    if already_trained(files, identity):
        log.info("nothing to do: %s is there already, trained by this configuration", files.checkpoint)
        return Outcome(finished=True, epochs=config.train.epochs)
    trainer = Trainer(config, ranks)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    if files.state.exists():
        trainer.load(files.state, key)
        log.info("going on after %d of %d epochs (%s)", trainer.epoch, config.train.epochs, files.state.name)
    started = time.perf_counter()
    if not _run_epochs(trainer, files.state, key, stop):
        return Outcome(finished=False, epochs=trainer.epoch)
    accuracy = trainer.accuracy()
    if ranks.rank == 0:
        _finish(trainer, files, identity, {"accuracy": accuracy, "seconds": round(time.perf_counter() - started, 3)})
    log.info("trained %d epochs, accuracy on the members %.4f: %s", trainer.epoch, accuracy, files.checkpoint)
    return Outcome(finished=True, epochs=trainer.epoch, accuracy=accuracy)


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
    while trainer.epoch < train.epochs:
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
        if stopped:
            return False
    return True


def _finish(trainer: Trainer, files: Files, identity: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Provenance first, then the checkpoint, then the state goes: a kill in between leaves a state to go on from."""
    parameters = [{"name": p.name, "data": p} for p in trainer.network.get_parameters()]
    with atomic_path(files.checkpoint) as temporary:
        write_parameters(temporary, parameters)
        record = {
            "sha256": provenance.sha256(temporary),
            "config": trainer.config.resolved(),
            "identity": identity,
            "seed": trainer.config.train.seed,
            "epochs": trainer.epoch,
            **results,
            "rank_size": trainer.ranks.size,
            "versions": provenance.versions(),
            "launch": provenance.launch("train"),
        }
        write_text(files.provenance, json.dumps(record, indent=1) + "\n")
    files.state.unlink(missing_ok=True)
