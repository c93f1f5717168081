"""What a run will do: checked and counted before anything is queued, and `mia-batch check`, which shows it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from mia_batch import data
from mia_batch.checkpoint import check_whole
from mia_batch.config import SECTIONS, AttackConfig, Config, DataConfig, MethodConfig, load_config
from mia_batch.entry import OK
from mia_batch.errors import InputError
from mia_batch.provenance import make_manifest

T = TypeVar("T")

BYTES_PER_ROW = 8 + 4 + 1 + 8 + 1  # sample_index, label, member, loss, done; logits and split come on top

ATTACK_BYTES_PER_ROW = 8 + 1 + 1 + 1  # score, decision, evaluated, member


@dataclass(frozen=True)
class Prepared:
    """A config whose files have been looked at."""

    selection: data.Selection
    manifest: dict[str, Any]


def prepare(config: Config, *, whole_checkpoint: bool = True) -> Prepared:
    """Choose the samples and digest the files that `config` names.

    Args:
        config: the configuration.
        whole_checkpoint: refuse one that is cut short. Not for an array, in which such a one fails alone.

    Raises:
        InputError: everything that a later stage would refuse and that can be seen without running the network: bad
            records, impossible blocks, overlapping members, a checkpoint that is none, splits and grids that the
            samples are too few for. Every line has its file's name, or the config's.
    """
    problems: list[str] = []

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            with named_in(config.path):
                return work()
        except InputError as error:
            problems.extend(error.problems)
            return None

    if whole_checkpoint:
        attempt(lambda: check_whole(config.model.checkpoint))
    selection = attempt(lambda: select_samples(config.data))
    if selection is not None:
        attempt(partial(check_attack, config.attack, selection.member))
    manifest = None if problems else attempt(lambda: make_manifest(config))
    if selection is None or manifest is None:
        raise InputError(problems)
    return Prepared(selection, manifest)


def select_samples(chosen: DataConfig) -> data.Selection:
    """The samples of `chosen`; one image of each split is read, so that what is wrong with all of them shows now."""
    source = data.open_source(chosen)
    selection = data.select(chosen, source)
    for split, first in zip(*np.unique(selection.split, return_index=True), strict=True):
        source.images(str(split), selection.sample_index[first : first + 1])
    return selection


def check_attack(attack: AttackConfig, member: NDArray[np.int8]) -> None:
    """Refuse before the extraction what the attack stage would refuse after it.

    Raises:
        InputError: too few samples for the split, the folds or a grid.
    """
    from mia_batch.attacks.split import check_grids, split_rows

    fit, _ = split_rows(member, attack.eval_fraction, attack.seed)
    check_grids(member[fit], attack.cv, {method.method: dict(method.params) for method in attack.methods})


@contextmanager
def named_in(path: Path) -> Iterator[None]:
    """Put the config's name before problems that begin with one of its fields."""
    try:
        yield
    except InputError as error:
        ours = tuple(f"{section}{mark}" for section in SECTIONS for mark in ".:")
        raise InputError(
            f"{path}: {line}" if line.startswith(ours) else line for line in error.problems
        ) from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, and what changes the plan."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    parser.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")
    parser.add_argument("--ranks", metavar="N", type=int, default=1, help="MPI ranks of the extraction (default 1)")


def run(args: argparse.Namespace) -> int:
    """Print the resolved config and the plan."""
    if args.ranks < 1:
        raise InputError(f"--ranks: must be at least 1, got {args.ranks}")
    config = load_config(args.config, checkpoint=args.checkpoint)
    prepared = prepare(config)
    print(yaml.safe_dump(config.resolved(), sort_keys=False, default_flow_style=None, width=100), end="")
    print("\n".join(["", *plan_lines(config, prepared.selection, args.ranks)]))
    return OK


def plan_lines(config: Config, selection: data.Selection, ranks: int) -> list[str]:
    """What each stage will do, a few lines each."""
    n_samples, n_members = len(selection), int(selection.member.sum())
    n_classes = config.model.kwargs.get("num_classes", int(selection.label.max()) + 1)
    per_rank = math.ceil(n_samples / ranks)
    batches = math.ceil(per_rank / config.extract.batch_size)
    size = n_samples * (BYTES_PER_ROW + selection.split.dtype.itemsize // 4 + 4 * n_classes)
    n_eval = round(config.attack.eval_fraction * n_samples)
    lines = [
        f"extract: {n_samples} samples ({n_members} members, {n_samples - n_members} non-members) on {ranks} rank(s), "
        f"up to {per_rank} each in {batches} batches of {config.extract.batch_size}; "
        f"features.h5 about {_bytes(size)} for {n_classes} classes",
        f"attack:  fit on {n_samples - n_eval}, score {n_eval}, search: {config.attack.search}, cv {config.attack.cv}; "
        f"each attacks/*.h5 about {_bytes(ATTACK_BYTES_PER_ROW * n_samples)}, "
        f"{_bytes(8 * n_samples * (n_classes + 1))} more while it runs",
    ]
    lines += [f"         {_method_line(method, config)}" for method in config.attack.methods]
    rule = "all of" if config.gate.rule == "all_above" else "any of"
    lines.append(
        f"reduce:  leak if {rule} {', '.join(config.gate.metrics)} of any method above {config.gate.threshold}"
        + (" at the interval's lower bound" if config.gate.bound == "lower" else "")
    )
    return lines + [f"note:    {note}" for method in config.attack.methods for note in method.notes]


def _bytes(count: int) -> str:
    unit, name = (2**20, "MiB") if count >= 2**20 else (2**10, "KiB")
    return f"{count / unit:.1f} {name}"


def _method_line(method: MethodConfig, config: Config) -> str:
    from mia_batch.attacks.classifiers import n_candidates  # scikit-learn takes a second

    candidates = n_candidates(method.params)
    if config.attack.search == "halving":
        return f"{method.method}: {candidates} candidates, halved round by round"
    tried = min(candidates, config.attack.n_iter) if config.attack.search == "random" else candidates
    return f"{method.method}: {tried} candidates, {tried * config.attack.cv} fits and 1 final"
