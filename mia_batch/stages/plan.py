"""What a run will do, checked before anything is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TypeVar

import numpy as np

from mia_batch.data.digests import digests
from mia_batch.data.selection import Selection, select
from mia_batch.data.sources import open_source
from mia_batch.errors import InputError
from mia_batch.network.checkpoint_bytes import check_whole
from mia_batch.network.checkpoint_origin import origin_of
from mia_batch.network.datasets import open_dataset
from mia_batch.rundir.manifest import Manifest, versions
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import AttackConfig, Config, DataConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A config whose files have been looked at."""

    selection: Selection
    manifest: Manifest


def make_plan(config: Config, *, whole_checkpoint: bool = True) -> Plan:
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
        attempt(partial(check_attack, config.attack, selection))
    manifest = None if problems else attempt(lambda: make_manifest(config))
    if selection is None or manifest is None:
        raise InputError(problems)
    return Plan(selection, manifest)


def select_samples(chosen: DataConfig) -> Selection:
    """The samples of `chosen`; one image of each split is read, so that what is wrong with all of them shows now."""
    source = open_source(chosen, open_dataset)
    selection = select(chosen, source)
    for split, first in zip(*np.unique(selection.split, return_index=True), strict=True):
        source.images(str(split), selection.sample_index[first : first + 1])
    return selection


def check_attack(attack: AttackConfig, selection: Selection) -> None:
    """Refuse before the extraction what the attack stage would refuse after it.

    Raises:
        InputError: too few samples for the split, the folds or a grid.
    """
    from mia_batch.attacks.grouping import group_codes
    from mia_batch.attacks.split import make_splits
    from mia_batch.search.folds import check_grids

    group = group_codes(None, selection.group, len(selection))
    for split in make_splits(selection.member, group=group, **attack.splitting()):
        check_grids(split, {method.method: dict(method.params) for method in attack.methods})


def make_manifest(config: Config) -> Manifest:
    """What a run of `config` is, as it and its files are now."""
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"), config_file=str(config.path),
        config=config.resolved(), digests=digests(config), versions=versions(),
        checkpoint=origin_of(config.model.checkpoint),
    )  # fmt: skip
