"""Train a network step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mia_batch.data.forms import Form
from mia_batch.data.selection import Selection, form_of, gather, read_inputs, select, select_side
from mia_batch.data.sources import Source, open_source
from mia_batch.errors import InputError, one_line
from mia_batch.files import atomic_path
from mia_batch.mpi.launcher import LAUNCHER_SIZES
from mia_batch.network.batches import to_network
from mia_batch.network.build import build_network
from mia_batch.network.checkpoint import read_checkpoint, write_parameters
from mia_batch.network.datasets import open_dataset
from mia_batch.network.forward import Predictor
from mia_batch.network.input_side import Arrays, as_tensors, float_type
from mia_batch.network.outputs import LogitsInGraph, Output
from mia_batch.network.preprocess import augmented
from mia_batch.process.stop import StopRequest
from mia_batch.settings.schema import Config, DataConfig, TrainConfig

WARM_UP = 0.05  # of all steps, in which the learning rate rises from zero
LOGITS = Output()
STEPS_AT, STEP_FACTOR = (0.3, 0.6, 0.9), 0.1  # as the tutorial's epochs 30, 60 and 90 of 100


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1


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

    def __init__(self, network: nn.Cell, optimizer: nn.Cell, ranks: Ranks, output: Output = LOGITS) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.logits = LogitsInGraph(output)
        self.optimizer = optimizer
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        self.gradient = ms.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)
        self.reduce = nn.DistributedGradReducer(optimizer.parameters) if ranks.size > 1 else nn.Identity()

    def forward(self, *inputs_and_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and logits of a batch."""
        logits = self.logits(self.network(*inputs_and_labels[:-1]))
        return self.cross_entropy(logits, inputs_and_labels[-1]), logits

    def construct(self, *inputs_and_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and number of right answers, before the step."""
        (loss, logits), gradients = self.gradient(*inputs_and_labels)
        loss = ops.depend(loss, self.optimizer(self.reduce(gradients)))
        right = (logits.argmax(axis=1) == inputs_and_labels[-1]).astype(ms.int32).sum()
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
        self.source = open_source(config.data, open_dataset)
        self.selection = members_of(config, self.source)
        n_samples = len(self.selection)
        if n_samples < ranks.size:
            raise InputError(f"data.members: must have a sample for each of {ranks.size} ranks, got {n_samples}")
        self.batch_size = min(config.train.batch_size, n_samples // ranks.size)
        self.steps_per_epoch = n_samples // (self.batch_size * ranks.size)
        self.step = 0  # of all epochs
        ms.set_seed(config.train.seed)
        self.form = form_to_train(config.data, self.source, self.selection)
        self.network = build_network(config.model, config.data.network_size)
        self._to_network = to_network(config.data, self.batch_size, self.network)
        self._floats = float_type(self.network)
        self.output = Output.of(config.model)
        self._check_labels()
        rates = learning_rates(config.train, self.steps_per_epoch).tolist()
        decay, momentum = config.train.weight_decay, config.train.momentum
        self.optimizer = nn.Momentum(parameter_groups(self.network), rates, momentum, weight_decay=decay)
        self.train_step = TrainStep(self.network, self.optimizer, ranks, self.output)
        self._agreement = Agreement() if ranks.size > 1 else None

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self.step // self.steps_per_epoch

    def _check_labels(self) -> None:
        predictor = Predictor(self.network, self.batch_size, output=self.output)
        width = predictor.logits(self._inputs(np.array([0]))).shape[1]
        wrong = np.flatnonzero(self.selection.label >= width)
        if len(wrong):
            where = f"{self.selection.split[wrong[0]]} sample {self.selection.sample_index[wrong[0]]}"
            raise InputError(f"{where}: label must be in [0, {width}), got {self.selection.label[wrong[0]]}")

    def _inputs(self, rows: np.ndarray, epoch: int | None = None, selection: Selection | None = None) -> Arrays:
        inputs = read_inputs(self.source, selection or self.selection, rows, self.form)
        if not self.config.data.is_image:
            inputs = self.form.stack(inputs)
        elif self.config.data.augment_members and epoch is not None:
            chosen = self.selection.split[rows], self.selection.sample_index[rows]
            images = augmented(inputs.columns[0], *chosen, self.config.train.seed, epoch)
            inputs = replace(inputs, columns=(images,))
        return self._to_network(inputs, np.arange(len(rows)))

    def agreed(self, stop: StopRequest) -> bool:
        """Whether any rank is to stop. Collective: the others would wait for ever for a rank that left alone."""
        if self._agreement is None:
            return bool(stop)
        return bool(self._agreement(Tensor([float(bool(stop))], ms.float32)).asnumpy()[0])

    def run_epoch(self, stop: StopRequest) -> tuple[float, float]:
        """Go on to the epoch's end, or, alone, until `stop`; mean loss and accuracy of the steps done, NaN where none.

        Every sample comes once an epoch, in a new order; the few that do not fill a batch are left out of it.

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
            results.append(self.train_step(*as_tensors(self._inputs(rows, epoch), self._floats), labels))
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
        return self._accuracy(self.selection)

    def test_accuracy(self) -> float:
        """Share of the non-members that it gets right, which no step of the training reads."""
        return self._accuracy(nonmembers_of(self.config, self.source))

    def _accuracy(self, selection: Selection) -> float:
        predictor = Predictor(self.network, self.batch_size, output=self.output)
        right = 0
        for first in range(0, len(selection), self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, len(selection)))
            logits = predictor.logits(self._inputs(rows, selection=selection))
            right += int((logits.argmax(axis=1) == selection.label[rows]).sum())
        return right / len(selection)

    def save(self, path: Path, identity: str) -> None:
        """Put weights, optimizer and place in the training at `path`, whole or not at all."""
        entries = [{"name": name, "data": parameter} for name, parameter in self._parameters().items()]
        with atomic_path(path) as temporary:
            write_parameters(temporary, entries, {"step": self.step, "training": identity})

    def load(self, path: Path, identity: str) -> None:
        """Go on from what `save` has put at `path`.

        Raises:
            InputError: it is damaged, or of another training.
        """
        entries = read_checkpoint(path)
        if entries.get("training") != identity:
            rule = "must be the state of this configuration's training"
            raise InputError(f"{path}: {rule}, got another's; remove it, or train to another model.checkpoint")
        for name, parameter in self._parameters().items():
            if name not in entries or entries[name].shape != parameter.shape:
                raise InputError(f"{path}: must hold parameter {name} {tuple(parameter.shape)}")
            parameter.set_data(entries[name])
        self.step = int(entries["step"].asnumpy())

    def _parameters(self) -> dict[str, ms.Parameter]:
        return {p.name: p for p in (*self.network.get_parameters(), *self.optimizer.get_parameters())}


def members_of(config: Config, source: Source) -> Selection:
    """The members of a configuration; its non-members' files need not be there yet."""
    return gather(select_side(config.data.members, "data.members", source), [], source)


def nonmembers_of(config: Config, source: Source) -> Selection:
    """The non-members of a configuration."""
    return gather([], select_side(config.data.nonmembers, "data.nonmembers", source), source)


def form_to_train(data: DataConfig, source: Source, members: Selection) -> Form:
    """What every sample of the audit has, so that a network is trained on inputs of the shapes that it is audited on.

    Raises:
        InputError: as of `form_of`; or the largest sample is not known while the non-members are not there.
    """
    if data.pad is None or data.pad_to is not None:
        return form_of(data, source, members)
    try:
        return form_of(data, source, select(data, source))
    except InputError as error:
        rule = "is required to train where non-members cannot be read: they may be larger than all members"
        raise InputError([f"data.pad_to: {rule}", *error.problems]) from error


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
