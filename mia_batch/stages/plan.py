"""What a run will do, checked before anything is queued."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.digests import digests
from mia_batch.data.forms import Form
from mia_batch.data.inclusion import read_inclusion
from mia_batch.data.outputs import Outputs
from mia_batch.data.selection import Selection, form_of, read_inputs, select
from mia_batch.data.slices import named_slices, slice_columns
from mia_batch.data.sources import open_source
from mia_batch.data.user_preprocess import UserPreprocess
from mia_batch.errors import InputError
from mia_batch.files import Between
from mia_batch.network.checkpoint_bytes import check_whole
from mia_batch.network.checkpoint_origin import origin_of
from mia_batch.network.datasets import open_dataset
from mia_batch.network.rename import read_rename
from mia_batch.rundir.manifest import CheckpointOrigin, Manifest, versions
from mia_batch.rundir.reference_files import inclusion_digest, inclusion_file, reference_weights
from mia_batch.settings.loading import named_in
from mia_batch.settings.outputs import NoModel, OutputsConfig
from mia_batch.settings.schema import PREPROCESSING, AttackConfig, Config, DataConfig, ReferencesConfig
from mia_batch.verdict.sentences import borrowed_preprocessing

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOKED_AT = 16  # samples of each split


@dataclass(frozen=True)
class Plan:
    """A config whose files have been looked at."""

    selection: Selection
    manifest: Manifest
    form: Form


def make_plan(config: Config, *, whole_checkpoint: bool = True, n_looked_at: int = LOOKED_AT) -> Plan:
    """Choose the samples and digest the files that `config` names.

    Args:
        config: the configuration.
        whole_checkpoint: refuse one that is cut short or malformed. Not for an array, in which such a one fails alone.
        n_looked_at: samples of each split to read; one where all are read next.

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
        for field, file in reference_weights(config.references).items():
            if file.exists():  # else it is still to be trained
                attempt(partial(_check_whole_reference, file, field))
    if config.model.rename:
        attempt(partial(read_rename, config.model.rename))
    samples = attempt(lambda: look_at(config.data, n_looked_at))
    if samples is not None:
        attempt(partial(check_splits, config.attack, samples[0].member, samples[0].group))
        attempt(partial(check_inclusion, config, samples[0]))
        attempt(partial(named_slices, config.report.slice_files(), samples[0].split, samples[0].sample_index))
        attempt(partial(check_slice_columns, config, samples[0]))
    warn_of_borrowed(config.data)
    warn_of_unused(config)
    manifest = None if problems else attempt(lambda: make_manifest(config))
    if samples is None or manifest is None:
        raise InputError(problems)
    return Plan(samples[0], manifest, samples[1])


@contextmanager
def weights_of(field: str) -> Iterator[None]:
    """Say that what is wrong with a checkpoint is wrong with that of `field`."""
    try:
        yield
    except InputError as error:
        raise InputError(line.replace("model.checkpoint", field) for line in error.problems) from error


def _check_whole_reference(file: Path, field: str) -> None:
    with weights_of(field):
        check_whole(file)


def check_inclusion(config: Config, selection: Selection) -> None:
    """Refuse an inclusion file that does not say of every reference and sample what it must.

    Raises:
        InputError: it does not.
    """
    if config.references and inclusion_digest(config.references):
        inclusion_of(config.references, selection.split, selection.sample_index)


def inclusion_of(
    references: ReferencesConfig, split: NDArray[np.str_], sample_index: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Which reference was trained on which sample of an audit, as `read_inclusion` gives it, (n_samples, K)."""
    (_, file), planned = inclusion_file(references), references.shadows is not None
    return read_inclusion(file, references.n_references, split, sample_index, first=planned)


def check_slice_columns(config: Config, selection: Selection) -> None:
    """Refuse files of values that have not one for each sample of their split.

    Raises:
        InputError: as of `data.slices.slice_columns`.
    """
    if config.report.slices_by:
        source = open_source(config.data, open_dataset)
        sizes = {split: source.size(split) for split in config.data.splits()}
        slice_columns(config.report.slices_by, selection.split, selection.sample_index, sizes)


def warn_of_borrowed(data: DataConfig) -> None:
    """One loud line where the network's input is preprocessed with CIFAR's values because nothing else is said."""
    if data.borrowed:
        log.warning("%s", borrowed_preprocessing(data.borrowed))


def warn_of_unused(config: Config) -> None:
    """Say where there are references, and no attack that they are for."""
    if config.references is None:
        return
    # scikit-learn takes a second
    from mia_batch.attacks.base import REFERENCE_COLUMNS
    from mia_batch.attacks.registry import ATTACKS

    using = [name for name, attack in ATTACKS.items() if not attack.needs.isdisjoint(REFERENCE_COLUMNS)]
    if not {method.method for method in config.attack.methods} & set(using):
        log.warning("attack.methods: none of them uses the references; those that do: %s", ", ".join(using))


def look_at(chosen: DataConfig, n_looked_at: int = LOOKED_AT) -> tuple[Selection, Form]:
    """The samples of `chosen` and what each of them has; some are read, and go through a function of the user's."""
    source = open_source(chosen, open_dataset)
    selection = select(chosen, source)
    form = form_of(chosen, source, selection)
    change = None if chosen.preprocess in PREPROCESSING else UserPreprocess(chosen.preprocess, n_looked_at)
    for rows in looked_at(selection.split, n_looked_at):
        inputs = read_inputs(source, selection, rows, form)
        if change:
            change(form.stack(inputs), np.arange(len(rows)))
    return selection, form


def looked_at(split: NDArray[np.str_], n: int = LOOKED_AT) -> list[NDArray[np.int64]]:
    """Rows of each split: the first, and up to n - 1 drawn by a fixed seed."""
    drawn = np.random.default_rng(1)
    rows = [np.flatnonzero(split == name) for name in np.unique(split)]
    return [np.append(own[0], drawn.choice(own[1:], min(n, len(own)) - 1, replace=False)) for own in rows]


def check_splits(attack: AttackConfig, member: NDArray[np.integer], group: NDArray[np.int64] | None) -> None:
    """Refuse before the extraction what the attack stage would refuse after it.

    Args:
        attack: how rows are split, and the grids.
        member: membership, (n_samples,).
        group: declared groups, (n_samples,); None for samples that stand alone.

    Raises:
        InputError: too few samples for the split, the folds or a grid.
    """
    from mia_batch.attacks.grouping import group_codes  # scikit-learn takes a second
    from mia_batch.stages.attack_settings import splits_of

    splits_of(attack, member, group_codes(None, group, len(member)))


def planned_manifest(config: Config) -> Manifest:
    """What a run of `config` is to be, after a look at its files, of imported outputs only at what they say of them.

    Raises:
        InputError: as `make_plan`.
    """
    if not isinstance(config.data, OutputsConfig):
        return make_plan(config).manifest
    with named_in(config.path):
        Outputs(config.data)
        return make_manifest(config)


def make_manifest(config: Config, between: Between = None) -> Manifest:
    """What a run of `config` is, as it and its files are now; `between` is called between blocks of them."""
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"), config_file=str(config.path),
        config=config.resolved(), digests=digests(config, between), versions=versions(),
        checkpoint=_origin(config), changes=config.changes,
    )  # fmt: skip


def _origin(config: Config) -> CheckpointOrigin:
    """Of the checkpoint; where none is named, the time of the newest file of its outputs."""
    if not isinstance(config.model, NoModel):
        return origin_of(config.model.checkpoint)
    newest = max(file.stat().st_mtime for file in config.data.named_files().values())
    modified = datetime.fromtimestamp(newest, timezone.utc).isoformat(timespec="microseconds")
    return CheckpointOrigin(modified=modified)
