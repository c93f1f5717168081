"""What the checkpoints of a training tell of the samples of an audit, as attacks take it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.base import TRAJECTORY_COLUMNS
from mia_batch.attacks.registry import ATTACKS
from mia_batch.errors import InputError
from mia_batch.rundir.earlier import earlier_field, open_earlier
from mia_batch.rundir.features import Features, read_features
from mia_batch.rundir.identity import ON_TRAJECTORY, trajectory_identity
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.trainings import audited_by, audited_content, trainings
from mia_batch.settings.schema import Config
from mia_batch.stages.joining import Order, rows_as_in
from mia_batch.stages.reference_columns import (
    answers_of,
    included_samples,
    inclusion_source,
    kept_references,
    reference_files,
    refuse_missing,
    refuse_other_inclusion,
)

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
OWN = "the audited checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a training: the files of its audit, its run.json, and its samples."""

    paths: RunPaths
    manifest: Manifest
    features: Features

    @property
    def name(self) -> str:
        """How a message calls it."""
        return self.paths.root.name


def trajectory_columns(
    config: Config, own: Checkpoint, methods: Sequence[str], of_references: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The columns `TRAJECTORY_COLUMNS` of an audit's samples; none where no method takes them or none is earlier.

    Args:
        config: of the audit.
        own: the audited checkpoint.
        methods: attacks that are to be made.
        of_references: as of `reference_columns`.

    Raises:
        InputError: a run is not of an earlier checkpoint of this training, or of other samples.
    """
    needed = any(not ATTACKS[method].needs.isdisjoint(ON_TRAJECTORY) for method in methods)
    if not config.attack.trajectory or not needed or own.features.logits is None:
        return {}
    checkpoints = [*earlier_checkpoints(config, own), own]
    phi = [phi_of(own, each) for each in checkpoints]
    columns = dict(zip(TRAJECTORY_COLUMNS, (np.stack(phi, axis=1), losses_of(own, checkpoints)), strict=False))
    return columns | (reference_trajectories(checkpoints) if of_references else {})


def earlier_checkpoints(config: Config, own: Checkpoint) -> list[Checkpoint]:
    """Those of `attack.trajectory`, in the order of training.

    Raises:
        InputError: a run cannot be read, or is not of an earlier checkpoint of this training.
    """
    runs = dict(zip(map(earlier_field, count()), open_earlier(config.attack.trajectory), strict=False))
    place = _places({name: run.manifest for name, run in runs.items()} | {OWN: own.manifest})
    content = {audited_content(own.manifest): "the audited one"}
    for name, run in runs.items():
        found = content.setdefault(audited_content(run.manifest), f"that of {name}")
        if found != f"that of {name}":
            raise InputError(f"{name}: must be of a checkpoint of its own, got {run.paths.root}, of {found}")
        if place[name][0] != place[OWN][0]:
            raise InputError(f"{name}: must be of the training that is audited, got {run.paths.root}, of another one")
        if place[name] > place[OWN]:
            raise InputError(f"{name}: must be of an earlier checkpoint than the audited one, got {run.paths.root}")
    ordered = [runs[name] for name in sorted(runs, key=lambda name: place[name])]
    return [Checkpoint(run.paths, run.manifest, read_features(run.paths.features)) for run in ordered]


def _places(manifests: Mapping[str, Manifest]) -> dict[str, tuple[int, int]]:
    """The number of each audit's training, and which of its checkpoints the audit is of."""
    audits = [audited_by(name, manifest, trajectory_identity(manifest)) for name, manifest in manifests.items()]
    return {
        audit.run: (number, at)
        for number, training in enumerate(trainings(audits)) for at, (audit, _) in enumerate(training.audits)
    }  # fmt: skip


def _rows(own: Checkpoint, other: Checkpoint) -> Order:
    return rows_as_in(own.features, other.features, other.paths.features, own.name)


def losses_of(own: Checkpoint, checkpoints: Sequence[Checkpoint]) -> Floats:
    """Of the samples of an audit, in its order, at each checkpoint, (n_samples, n_checkpoints).

    Raises:
        InputError: the samples are others.
    """
    return np.stack([each.features.loss[_rows(own, each)] for each in checkpoints], axis=1)


def phi_of(own: Checkpoint, other: Checkpoint) -> Floats:
    """Of the target at a checkpoint, in the order of its own audit, (n_samples,).

    Raises:
        InputError: the samples are others, or of losses alone.
    """
    features = other.features
    if features.logits is None or features.label is None:
        raise InputError(f"{other.paths.features}: logits: must be there as those of {own.name} are, got losses alone")
    rows = _rows(own, other)
    return signals.phi(features.logits, features.label)[rows]


# --- references at the same checkpoints ------------------------------------------------------------------------------


def reference_trajectories(checkpoints: Sequence[Checkpoint]) -> dict[str, NDArray[Any]]:
    """Phi of the references at every checkpoint, as the last of `TRAJECTORY_COLUMNS`; none where they are not known.

    Each audit names the references' checkpoints of its own step. The k-th of one audit and the k-th of another are of
    one training, which their inclusion must bear out. Of several queries of a sample the first counts, as it is.

    Args:
        checkpoints: oldest first; the samples are in the order of the last.

    Raises:
        InputError: inclusion differs from audit to audit, or outputs of references are missing or damaged.
    """
    why = why_no_references(checkpoints)
    if why:
        log.info("no trajectories of references: %s", why)
        return {}
    own = checkpoints[-1]
    included = included_samples(own.manifest, own.features)
    kept = kept_references(included, own.features.member)
    found = [_of_checkpoint(own, each, included, kept) for each in checkpoints]
    return {TRAJECTORY_COLUMNS[2]: np.stack(found, axis=1)}


def why_no_references(checkpoints: Sequence[Checkpoint]) -> str:
    """Why there are no references at the same checkpoints; "" if there are."""
    lacking = [each.name for each in checkpoints if "references" not in each.manifest.config]
    if lacking:
        return f"the audit {lacking[0]} has none"
    first: dict[str, tuple[str, str]] = {}
    for each in checkpoints:
        for field in reference_files(each.manifest):
            weights = each.manifest.digests[field]
            if weights in first and first[weights][0] != each.name:
                before = " ".join(first[weights])
                return f"{each.name} {field} has the weights of {before}: each audit needs references of its own step"
            first[weights] = each.name, field
    return ""


def _of_checkpoint(
    own: Checkpoint, other: Checkpoint, included: NDArray[np.int8], kept: NDArray[np.int64]
) -> Floats:
    """The references' phi, (n_samples, n_kept)."""
    rows = _rows(own, other)
    refuse_other_inclusion(other.manifest, f" of {other.name}")
    found = included_samples(other.manifest, other.features)[rows]
    if not np.array_equal(found, included):
        alike = found.shape == included.shape
        got = _first_difference(own, found, included) if alike else f"{found.shape[1]} references"
        where = f"{inclusion_source(other.manifest)} of {other.name}"
        raise InputError(f"{where}: must be that of {own.name}, reference by reference, got {got}")
    refuse_missing(other.manifest, other.features)
    return answers_of(other.manifest, other.features, kept)[1][:, 0][rows]


def _first_difference(own: Checkpoint, found: NDArray[np.int8], included: NDArray[np.int8]) -> str:
    row, k = np.argwhere(found != included)[0]
    sample = f"{own.features.split[row]} {own.features.sample_index[row]}"
    return f"{found[row, k]} for reference {k} and {sample}, {included[row, k]} there"
