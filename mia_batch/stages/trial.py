"""Try the network on a few samples before an audit costs: what goes in, what comes out, how much of it is right."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.process.child import Ended, run_limited, stage_command
from mia_batch.process.exit_codes import BAD_INPUT, OK
from mia_batch.process.resources import available_memory
from mia_batch.report.media import terminal
from mia_batch.settings.changes import read_changes
from mia_batch.settings.loading import load_config, named_in, with_checkpoint
from mia_batch.settings.schema import Config
from mia_batch.stages.plan import make_plan

if TYPE_CHECKING:
    from mia_batch.network.batches import Reader
    from mia_batch.network.forward import Predictor

log = logging.getLogger(__name__)
TRIED = 64  # samples, as many members as non-members where there are enough
SECONDS = 600.0  # that a trial may take
MARK = "mia-batch: "  # before a child's own lines: users' networks and MindSpore print too
NO_MINDSPORE = "MindSpore is not installed here"


@dataclass(frozen=True)
class Trial:
    """What a network has done with a few samples.

    Attributes:
        inputs: the types and shapes of the first batch that the network was given, in words.
        outputs: the types and shapes of what it gave for that batch, in words.
        labels: the lowest and the highest label of the samples.
        right: for members, then for non-members, on how many samples the network is right, and how many were tried.
    """

    inputs: str
    outputs: str
    labels: tuple[int, int]
    right: tuple[tuple[int, int], tuple[int, int]]

    def lines(self) -> list[str]:
        """For a reader."""
        sides = zip(self.right, ("members", "non-members"), strict=True)
        shown = " and ".join(f"{right} of {n} {word}" for (right, n), word in sides if n)
        return [
            f"tried:   inputs {self.inputs}; outputs {self.outputs}; labels {self.labels[0]} to {self.labels[1]}",
            f"         right on {shown}",
        ]


def draw(member: NDArray[np.integer], n: int = TRIED) -> NDArray[np.int64]:
    """Rows to try, ascending: up to `n`, half of them members where both sides have so many; by a fixed seed."""
    drawn = np.random.default_rng(1)
    sides = [np.flatnonzero(member == side) for side in (1, 0)]
    few = [min(len(rows), max(n // 2, n - len(other))) for rows, other in (sides, sides[::-1])]
    return np.sort(np.concatenate([drawn.choice(rows, k, replace=False) for rows, k in zip(sides, few, strict=True)]))


def try_out(
    config: Config, selection: Selection, predictor: Predictor, read: Reader, *, n_classes: int | None, n: int = TRIED
) -> Trial:
    """Run the network on a few of the samples.

    Args:
        config: of the audit.
        selection: its samples.
        predictor: the network; it is compiled for its batch size now.
        read: gives the inputs of rows.
        n_classes: what the file or the config asks for, if either does.
        n: samples at most.

    Raises:
        InputError: all that an extraction would refuse of these samples.
    """
    from mia_batch.network.batches import to_network
    from mia_batch.stages.gather import check_answers  # it imports h5py

    rows, size = draw(selection.member, n), predictor.batch_size
    convert, right = to_network(config.data, size, predictor.network), list[NDArray[np.bool_]]()
    for part in np.split(rows, range(size, len(rows), size)):
        places, labels = np.arange(len(part)), selection.label[part]
        arrays = convert(read(part)[0], places)
        logits = predictor.logits(arrays, places)
        check_answers(part, logits, labels, n_classes=n_classes, describe=selection.describe)
        if not right:
            predictor.hold_to_one_answer(arrays, places, logits, lambda i: selection.describe(int(rows[i])))
        right.append(logits.argmax(axis=1) == labels)
    hits, seen, labels = np.concatenate(right), selection.member[rows] == 1, selection.label[rows]
    sides = [(int(hits[own].sum()), int(own.sum())) for own in (seen, ~seen)]
    return Trial(*predictor.seen, (int(labels.min()), int(labels.max())), (sides[0], sides[1]))


def try_here(args: argparse.Namespace) -> int:
    """Build the network of a configuration on CPU in this process, and print what it does."""
    from mia_batch.network.batches import reader
    from mia_batch.network.checkpoint import load_network
    from mia_batch.network.forward import Predictor
    from mia_batch.network.outputs import Output
    from mia_batch.network.placement import Placement, set_up

    config = load_config(args.config, checkpoint=args.checkpoint, changes=args.changes)
    plan = make_plan(config, n_looked_at=1)
    with named_in(config.path):
        set_up(Placement("CPU"))
        network = load_network(config.model, config.data.network_size)
        predictor = Predictor(network, min(TRIED, config.extract.batch_size), output=Output.of(config.model))
        read = reader(config.data, plan.selection, form=plan.form)
        tried = try_out(config, plan.selection, predictor, read, n_classes=config.model.n_columns())
    print("\n".join(f"{MARK}{line}" for line in tried.lines()), flush=True)
    return OK


def try_in_child(config: Config, changes: Sequence[str]) -> list[str]:
    """The same in a process of its own, of limited time and memory: what kills it does not kill this one.

    Returns:
        Lines to print.

    Raises:
        InputError: there is no network or no MindSpore, or the trial has failed.
    """
    check_network(config)
    if importlib.util.find_spec("mindspore") is None:
        raise InputError(f"--try: needs MindSpore, got none: {NO_MINDSPORE}")
    arguments = [str(config.path), f"--checkpoint={config.model.checkpoint}"]
    said = zip(changes, read_changes(changes), strict=True)
    arguments += [f"--set={text}" for text, change in said if change.path != ("model", "checkpoint")]
    memory = available_memory()
    ended = run_limited(stage_command("try_network", arguments), seconds=SECONDS, memory=memory)
    if ended.code == OK and (lines := _marked(ended.stdout)):  # a network's own os._exit(0) is none
        return lines
    raise InputError(_problems(config, ended, memory))


def check_network(config: Config) -> None:
    """Refuse imported outputs, which come without a network.

    Raises:
        InputError: they are imported.
    """
    if config.imports:
        raise InputError(f"{config.path}: --try: must have a network to try, got data.source: outputs")


def _marked(text: str) -> list[str]:
    """The lines that are this program's, without their mark; a line of a network's may be unfinished before one."""
    return [line.partition(MARK)[2] for line in text.splitlines() if MARK in line]


def _problems(config: Config, ended: Ended, memory: int) -> list[str]:
    said = _marked(ended.stderr)
    if ended.code == BAD_INPUT and said:
        return said
    rule = f"{config.path}: --try: the network must run on {TRIED} samples on CPU within {SECONDS:g} s and "
    return [f"{rule}{memory / 2**30:.1f} GiB, got: {ended.how}{' and without a result' * (ended.code == OK)}"]


def tried_or_not(config: Config, checkpoint: Path, changes: Sequence[str]) -> list[str]:
    """Of one checkpoint, for a host that may have no MindSpore, as where jobs are submitted: then a line says so."""
    check_network(config)
    if importlib.util.find_spec("mindspore") is None:
        return [f"not tried: {NO_MINDSPORE}"]
    return try_in_child(with_checkpoint(config, checkpoint), changes)


def print_tried(lines: Sequence[str]) -> None:
    """Beside what a command prints for programs."""
    print("\n".join(map(terminal, lines)), file=sys.stderr, flush=True)
