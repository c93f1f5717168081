"""Reference models: which is trained on which samples, written once, and the training of each."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import json_text
from mia_batch.attacks.grouping import group_codes
from mia_batch.attacks.reference_plan import COUNT_RULE, MOST, is_count, plan_references
from mia_batch.data.digests import data_digests
from mia_batch.data.selection import Selection, contents, first_form, select
from mia_batch.data.sources import Source, open_source
from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.locks import in_turn
from mia_batch.mpi.launcher import launched_first
from mia_batch.network.datasets import open_dataset
from mia_batch.process.exit_codes import RESUME
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.identity import CONTENT, differences
from mia_batch.rundir.manifest import versions
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.reference_files import reference_weights
from mia_batch.rundir.shadows import (
    ShadowPaths,
    ShadowPlan,
    read_plan,
    read_record,
    recorded_plan,
    trained_here,
    write_indices,
    write_plan,
)
from mia_batch.settings.loading import load_config, named_in
from mia_batch.settings.schema import Config, DataConfig, SampleBlock
from mia_batch.stages.arguments import named_folder
from mia_batch.stages.train import Files, already_trained, train_here, training_identity

log = logging.getLogger(__name__)

SEED = 1
OUT, KEY = "--out", "references.shadows"  # which name a folder of models
WAIT_SECONDS = 2.0  # between two looks at what another process trains


@dataclass(frozen=True)
class Pool:
    """The samples that references are trained on or not: an audit's members and non-members, in no side's order.

    Attributes:
        data: the section of the config, with all of them as members.
        source: of the samples.
        selection: ascending by split and index.
    """

    data: DataConfig
    source: Source
    selection: Selection

    def __len__(self) -> int:
        return len(self.selection)

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Number of what is trained on together, (M,): a declared group, equal inputs, or a chain of them.

        All samples are read for it, once.
        """
        form = None if self.data.pad is None else first_form(self.source, self.selection).of_any_length()
        return group_codes(contents(self.selection, self.source, form), self.selection.group, len(self))


def pool_of(config: Config) -> Pool:
    """The pool of a configuration.

    Raises:
        InputError: the members and non-members cannot be chosen.
    """
    data = config.data
    source = open_source(data, open_dataset)
    chosen = select(data, source)
    order = np.lexsort((chosen.sample_index, chosen.split))
    selection = Selection(*(getattr(chosen, field.name)[order] for field in fields(chosen)))
    return Pool(data.model_copy(update={"members": data.members + data.nonmembers}), source, selection)


def plan_identity(config: Config, pool: Pool) -> dict[str, Any]:
    """What must be equal for two plans to be of the same models: their training, but for seeds, and the pool."""
    found = training_identity(config.model_copy(update={"data": pool.data}), pool.selection)
    samples = found.pop(f"{CONTENT}the members")
    del found["train.seed"]
    if config.data.group is not None:
        codes = group_codes(None, pool.selection.group, len(pool))
        found[f"{CONTENT}data.group"] = hashlib.sha256(codes.tobytes()).hexdigest()
    return {f"{CONTENT}members and non-members": samples, **found}


@dataclass(frozen=True)
class Models:
    """Models of a plan, and the numbers of those that are not trained."""

    paths: ShadowPaths
    plan: ShadowPlan
    missing: tuple[int, ...]


def models_to_train(config: Config, paths: ShadowPaths, count: int, seed: int | None = None) -> Models:
    """All models of a folder, whose plan is made, or has more models now.

    Raises:
        InputError: as of `claim_plan`, or where a checkpoint's name is taken.
    """
    check_count(count, "--count")
    with named_in(config.path):
        pool = pool_of(config)
        plan = claim_plan(config, paths, pool, count, seed)
    warn_of_names(config)
    return Models(paths, plan, _missing(config, paths, pool, plan))


def models_of_audit(config: Config, *, dry_run: bool = False) -> Models | None:
    """The models that are the audit's references, the first of their folder's; None where it has no such ones.

    Args:
        config: of the audit.
        dry_run: write no plan.

    Raises:
        InputError: the folder is of another training, or a checkpoint's name is taken.
    """
    references = config.references
    if references is None or references.shadows is None:
        return None
    paths, count = ShadowPaths(references.shadows), references.n_references
    with named_in(config.path):
        pool, record = pool_of(config), read_record(paths)
        planned = max(count, record["count"]) if record else count
        plan = claim_plan(config, paths, pool, planned, None, option=KEY, dry_run=dry_run).first(count)
    return Models(paths, plan, _missing(config, paths, pool, plan))


def refuse_untrained(config: Config, digests: Mapping[str, str]) -> None:
    """Refuse an audit whose reference models are not all trained, by its config and by their plan.

    Args:
        config: of the audit.
        digests: of its references, by field.

    Raises:
        InputError: one is not there, is another file, or of another training.
    """
    references = config.references
    if references is None or references.shadows is None:
        return
    paths = ShadowPaths(references.shadows)
    pool = pool_of(config)
    plan = plan_there(config, paths, pool, option=KEY).first(references.n_references)
    known = {file: digests.get(field, "") for field, file in reference_weights(references).items()}
    missing = _missing(config, paths, pool, plan, known.__getitem__)
    if missing:
        got = f"{len(missing)} of {references.n_references} that are not"
        raise InputError(f"{paths.checkpoint(missing[0])}: {KEY}[{missing[0]}]: must be trained, got {got}")


def _missing(
    config: Config, paths: ShadowPaths, pool: Pool, plan: ShadowPlan, digest_of: Callable[[Path], str] = sha256
) -> tuple[int, ...]:
    trained = Trained(config, paths, pool, plan, digest_of)
    return tuple(number for number in range(plan.models.n_references) if number not in trained)


def claim_plan(
    config: Config, paths: ShadowPaths, pool: Pool, count: int, seed: int | None, *, option: str = OUT,
    dry_run: bool = False,
) -> ShadowPlan:
    """The plan of a folder: the one that is there, perhaps with more models now, or a new one.

    Args:
        config: the configuration.
        paths: of the folder, which is made.
        pool: of the configuration.
        count: K.
        seed: of the coins; None for that of the plan that is there, else 1.
        option: that names the folder.
        dry_run: write nothing.

    Raises:
        InputError: the folder is of another configuration, seed or a larger count, or the pool is too small.
    """
    identity = plan_identity(config, pool)
    record = read_record(paths)
    if dry_run or (record and record["count"] >= count):  # whoever may only read a plan may use it
        return _planned(paths, pool, identity, count, seed, option)[0]
    if record is None:
        drawn(pool, count, SEED if seed is None else seed)  # what is refused leaves no folder behind
    paths.create()
    with in_turn(paths.plan_lock):
        plan, made_from = _planned(paths, pool, identity, count, seed, option)
        return write_plan(paths, plan, made_from) if made_from else plan


def _planned(
    paths: ShadowPaths, pool: Pool, identity: Mapping[str, Any], count: int, seed: int | None, option: str
) -> tuple[ShadowPlan, dict[str, Any]]:
    """The plan of a folder, and what it is made from if it is to be written; the rest as of `claim_plan`."""
    record = read_record(paths)
    if record is not None:
        refuse_other(paths, record, identity, count, seed, option=option)
        plan = recorded_plan(paths, record)
        if record["count"] == count:
            return plan, {}
        more = drawn(pool, count, record["seed"])
        plan = ShadowPlan(plan.models.extended(more.models), plan.split, plan.sample_index)
        return plan, {key: value for key, value in record.items() if key not in ("schema", "count", "sha256")}
    seed = SEED if seed is None else seed
    plan = drawn(pool, count, seed)
    if paths.plan.exists() and read_plan(paths).digest() != plan.digest():
        raise InputError(f"{paths.plan}: must not be there without {paths.record.name}; train to another {option}")
    return plan, {"seed": seed, "samples": len(pool), "identity": identity, "versions": versions()}


def plan_there(config: Config, paths: ShadowPaths, pool: Pool, option: str = OUT) -> ShadowPlan:
    """The plan of a folder, of this configuration.

    Raises:
        InputError: there is none, or one of another training or pool.
    """
    record = read_record(paths)
    if record is None:
        raise InputError(f"{paths.record}: must be there; mia-batch shadows plans before it trains")
    refuse_other(paths, record, plan_identity(config, pool), option=option)
    return recorded_plan(paths, record)


def check_count(count: int, option: str) -> None:
    """Refuse a number of models that makes no pairs, or has no names."""
    if not is_count(count):
        raise InputError(f"{option}: {COUNT_RULE}, got {count}")


def shadow_changes(folder: Path, count: int) -> list[str]:
    """What makes the models of a folder a configuration's references, as --set has it."""
    return [f"{KEY}={json.dumps(str(folder), ensure_ascii=False)}", f"references.count={count}"]


def add_shadows_argument(parser: argparse.ArgumentParser) -> None:
    """Add --shadows."""
    shadows = "train so many reference models to DIR/shadows, and audit with them; an even number"
    parser.add_argument("--shadows", metavar="K", type=int, help=shadows)


def read_shadows_argument(args: argparse.Namespace) -> None:
    """Make what --shadows says a change of the configuration.

    Raises:
        InputError: there can be no plan of so many models.
    """
    if args.shadows is not None:
        check_count(args.shadows, "--shadows")
        folder = RunPaths(named_folder(OUT, args.out)).shadows
        args.changes = [*args.changes, *shadow_changes(folder, args.shadows)]


def refuse_other(
    paths: ShadowPaths, record: Mapping[str, Any], identity: Mapping[str, Any], count: int = MOST,
    seed: int | None = None, *, option: str = OUT,
) -> None:
    """Refuse a folder whose plan is of another configuration, seed or a larger count; `option` names the folder."""
    advice = f"choose another {option}"
    different = differences(record["identity"], identity)
    if seed not in (None, record["seed"]):
        different.append(f"--seed was {record['seed']} and is now {seed}")
    if count < record["count"]:
        different.append(f"--count was {record['count']} and is now {count}, which may be larger alone")
    if different:
        raise InputError([f"{paths.root}: {option}: holds other models: {phrase}; {advice}" for phrase in different])


def drawn(pool: Pool, count: int, seed: int) -> ShadowPlan:
    """A new plan.

    Raises:
        InputError: a model of it would have no samples.
    """
    models = plan_references(pool.units, count, seed)
    empty = np.flatnonzero(~models.included.any(axis=1))
    if len(empty):
        rule = "must be enough that each model has some"
        raise InputError(f"data.members: members and non-members {rule}, got none for model {empty[0]} of {len(pool)}")
    return ShadowPlan(models, pool.selection.split, pool.selection.sample_index)


def shadow_config(config: Config, paths: ShadowPaths, plan: ShadowPlan, number: int) -> Config:
    """The configuration by which a model is trained: its samples are the members, all others the non-members."""
    sides = {"members": _blocks(paths, plan, number), "nonmembers": _blocks(paths, plan, number ^ 1)}
    return config.model_copy(update={
        "model": config.model.model_copy(update={"checkpoint": paths.checkpoint(number)}),
        "data": config.data.model_copy(update=sides),
        "train": config.train.model_copy(update={"seed": int(plan.models.seeds[number])}),
    })  # fmt: skip


def _blocks(paths: ShadowPaths, plan: ShadowPlan, number: int) -> tuple[SampleBlock, ...]:
    splits = np.unique(plan.split[plan.models.included[number]])
    numbers = np.searchsorted(np.unique(plan.split), splits)
    files = (paths.indices(number, place) for place in numbers)
    return tuple(SampleBlock(split=str(split), indices=file) for split, file in zip(splits, files, strict=True))


def write_samples(paths: ShadowPaths, plan: ShadowPlan, number: int) -> None:
    """Put the index files in place that `shadow_config` names."""
    paths.create()
    for model in (number, number ^ 1):
        for block in _blocks(paths, plan, model):
            assert block.indices is not None
            chosen = plan.models.included[model] & (plan.split == block.split)
            write_indices(block.indices, plan.sample_index[chosen])


class Trained:
    """Which models are trained already; files of data are read once for all of them."""

    def __init__(
        self, config: Config, paths: ShadowPaths, pool: Pool, plan: ShadowPlan,
        digest_of: Callable[[Path], str] = sha256,
    ) -> None:
        self.config, self.paths, self.pool, self.plan = config, paths, pool, plan
        self.digest_of = digest_of
        self._digests: dict[tuple[str, ...], Mapping[str, str]] = {}

    def __contains__(self, number: int) -> bool:
        """Whether a model is.

        Raises:
            InputError: another file is there, which is never overwritten.
        """
        config = shadow_config(self.config, self.paths, self.plan, number)
        files = Files(config.model.checkpoint)
        if not files.checkpoint.exists():
            return False
        chosen = self.plan.models.included[number]
        members = Selection(*(getattr(self.pool.selection, field.name)[chosen] for field in fields(Selection)))
        return already_trained(files, training_identity(config, members, self._data_digests), self.digest_of)

    def _data_digests(self, data: DataConfig) -> Mapping[str, str]:
        splits = tuple(data.splits())
        if splits not in self._digests:
            self._digests[splits] = data_digests(data)
        return self._digests[splits]


def training_launches(config: Config) -> list[dict[str, Any]]:
    """How the models were trained that are the audit's references, as run.json has it of a stage."""
    references, found = config.references, []
    for field, file in reference_weights(references).items() if references and references.shadows else ():
        told = json_text.read(Files(file).provenance)
        kept = ("sha256", "seed", "epochs", "accuracy", "test_accuracy", "seconds", "rank_size")
        found.append({**told["launch"], "stage": "shadows", "model": field, **{key: told.get(key) for key in kept}})
    return found


def result_line(paths: ShadowPaths, plan: ShadowPlan, number: int) -> str:
    """What became of a model, from what is beside its checkpoint."""
    files = Files(paths.checkpoint(number))
    found = json_text.read(files.provenance)
    n_own, n_all = int(plan.models.included[number].sum()), plan.models.included.shape[1]
    return (
        f"{files.checkpoint.name}: accuracy {found['accuracy']:.4f} on the {n_own} samples it was trained on, "
        f"{found.get('test_accuracy', np.nan):.4f} on the other {n_all - n_own}"
    )


def config_lines(paths: ShadowPaths, count: int) -> list[str]:
    """The section of a config by which the models are its references."""
    folder = json.dumps(str(paths.root), ensure_ascii=False)
    return ["references:", f"  shadows: {folder}", f"  count: {count}"]


def warn_of_names(config: Config) -> None:
    """Say where the audited checkpoint has other names than those that training writes."""
    for key in ("prefix", "rename"):
        if getattr(config.model, key) is not None:
            log.info("model.%s: is of the audited checkpoint; models trained here have the network's own names", key)


def run_shadow_stage(args: argparse.Namespace, stop: StopRequest) -> int:
    """Train one model of a plan that is there, or wait for the process that does; returns the exit code."""
    config = load_config(args.config, need=("data",), changes=args.changes)
    paths = ShadowPaths(named_folder(OUT, args.out))
    if args.brief:
        logging.getLogger("mia_batch.stages.train").setLevel(logging.WARNING)
    with named_in(config.path):
        plan = plan_there(config, paths, pool_of(config))
    if not 0 <= args.only < plan.models.n_references:
        raise InputError(f"--only: must be from 0 to {plan.models.n_references - 1}, got {args.only}")
    own = shadow_config(config, paths, plan, args.only)
    if not launched_first():  # its files and its lock are for the first of several ranks alone
        return train_here(own, stop, test=True)
    return _train_alone(own, paths, plan, args.only, stop)


def _train_alone(config: Config, paths: ShadowPaths, plan: ShadowPlan, number: int, stop: StopRequest) -> int:
    """Train a model once no other process does, which two audits with one folder may ask for; the exit code."""
    waits = False
    while True:
        with trained_here(paths, number) as alone:
            if alone:
                write_samples(paths, plan, number)
                return train_here(config, stop, test=True)
        if stop:
            return RESUME
        if not waits:
            log.info("waits for another process, which trains %s", paths.checkpoint(number).name)
        waits = True
        time.sleep(WAIT_SECONDS)
