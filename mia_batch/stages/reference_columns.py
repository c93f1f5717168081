"""What references tell of the samples of an audit, as attacks take it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.inclusion import column_of_another, inclusion_problem, is_complement_of_target, own_areas
from mia_batch.attacks.registry import needs_references
from mia_batch.data.digests import refuse_twins
from mia_batch.errors import InputError
from mia_batch.rundir.features import Features
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_files import inclusion_digest, inclusion_file, recorded_references, reference_weights
from mia_batch.rundir.reference_store import StoredSamples, read_phi, reference_fields, reference_paths
from mia_batch.settings.schema import Config
from mia_batch.signals import SIGNALS
from mia_batch.stages.groups import groups_of
from mia_batch.stages.plan import inclusion_of

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Group = NDArray[np.int64] | None
MOST_SAME = 0.9  # of the answers of two models that are equal bit for bit


def reference_columns(
    config: Config, manifest: Manifest, features: Features, methods: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The columns `REFERENCE_COLUMNS` of `attacks.base`; none where no method needs them, or there are no references.

    References that were trained on exactly the non-members are left out: what they say follows from the membership that
    is to be found.

    Args:
        config: of the audit.
        manifest: in force.
        features: of the audit's samples.
        methods: attacks that are to be made.

    Raises:
        InputError: outputs are missing or of other inputs, the inclusion file is not of these samples, or who was
            trained on what betrays the target's members.
    """
    needed = any(needs_references(method) for method in methods)
    return audited_references(manifest, features) if config.references is not None and needed else {}


def audited_references(manifest: Manifest, features: Features) -> dict[str, NDArray[Any]]:
    """The columns `REFERENCE_COLUMNS` of an audit whose configuration has references; none where none is left.

    Raises:
        InputError: as of `reference_columns`.
    """
    refuse_twins(manifest.digests, reference_files(manifest))
    refuse_other_inclusion(manifest)
    refuse_missing(manifest, features)
    where, included = inclusion_source(manifest), included_samples(manifest, features)
    kept = kept_references(included, features.member)
    if not len(kept):
        return {}
    fields, group = list(reference_files(manifest)), groups_of(features)
    names, included = [fields[k] for k in kept], np.ascontiguousarray(included[:, kept])
    refuse_betrayal(where, included, features.member, names, group)
    own, phi = answers_of(manifest, features, kept)
    refuse_same_answers(names, _kept_as_references(manifest, features, own), phi)
    refuse_turned_round(where, phi, included, names, group)
    return {"query_phi": own, "reference_phi": phi, "reference_in": included}


def reference_files(manifest: Manifest) -> dict[str, Path]:
    """The references' weights, by field."""
    return reference_weights(recorded_references(manifest))


def inclusion_source(manifest: Manifest) -> str:
    """For messages, the file and the field of what says who was trained on what."""
    field, file = inclusion_file(recorded_references(manifest))
    return f"{file}: {field}"


def included_samples(manifest: Manifest, features: Features) -> NDArray[np.int8]:
    """1 where a sample was in a reference's training data, of all references, (n_samples, n_references).

    Raises:
        InputError: the file is not of these samples.
    """
    return inclusion_of(recorded_references(manifest), features.split, features.sample_index)


def refuse_other_inclusion(manifest: Manifest, of: str = "") -> None:
    """Refuse what says who was trained on what, if it has changed since the stage references has run.

    Args:
        manifest: in force.
        of: for the message, whose it is; "" of the audit itself.

    Raises:
        InputError: it has.
    """
    references = recorded_references(manifest)
    if inclusion_digest(references) != manifest.digests.get(inclusion_file(references)[0]):
        rule = f"{inclusion_source(manifest)}{of}: must be as it was when the stage references has run"
        raise InputError(f"{rule}, got another content; run references again")


def kept_references(included: NDArray[np.int8], member: NDArray[np.int8]) -> NDArray[np.int64]:
    """Numbers of the references that are not the complement of a target with these members."""
    kept = np.flatnonzero(~is_complement_of_target(included, member))
    if len(kept) < included.shape[1]:
        log.info("references: %d of %d; the others are the target's complement", len(kept), included.shape[1])
    return kept


def refuse_betrayal(
    where: str, included: NDArray[np.int8], member: NDArray[np.int8], names: Sequence[str], group: Group = None
) -> None:
    """Refuse references of whom what they were trained on tells the target's members.

    Args:
        where: for the message, what says who was trained on what.
        included: (n_samples, n_references), without the target's complement.
        member: of the target, (n_samples,).
        names: of the references.
        group: numbers of the samples' groups, (n_samples,); None for samples that stand alone.

    Raises:
        InputError: it does.
    """
    problem = inclusion_problem(included, member=member, names=names, group=group)
    if problem:
        raise InputError(f"{where}: must not betray members: {problem}")


def refuse_turned_round(
    where: str, phi: Floats, included: NDArray[np.int8], names: Sequence[str], group: Group = None
) -> None:
    """Refuse inclusion that the references' own answers show to be turned round, or of another reference.

    Args:
        where: for the message, what says who was trained on what.
        phi: of the references, (n_samples, n_queries, n_references).
        included: (n_samples, n_references).
        names: of the references.
        group: as of `refuse_betrayal`.

    Raises:
        InputError: it is so, of one reference or more.
    """
    areas = own_areas(phi, included, group=group)
    all_turned = all(each.high < 0.5 for each in areas.values())  # then, of pairs, each also tells the other's row
    for k, own in areas.items():
        if own.low > 0.5:
            continue
        told = f"phi of {names[k]} tells its row of inclusion with AUC {own.value:.4f}"
        if not all_turned and (other := column_of_another(phi, included, k, group=group)):
            rule = "must have a row for each reference, in their order"
            raise InputError(f"{where}: {rule}, got {told} and that of {names[other[0]]} with {other[1].value:.4f}")
        if own.high < 0.5:
            raise InputError(f"{where}: must be 1 where a reference was trained on a sample, got {told}")


def refuse_same_answers(where: Sequence[str], own: Floats, phi: Floats) -> None:
    """Refuse a reference that is the target, as its answers show: the same weights in a file of other bytes.

    Args:
        where: for the message, the references.
        own: phi of the target from logits of the references' type, (n_samples, n_queries).
        phi: of the references, (n_samples, n_queries, n_references).

    Raises:
        InputError: most of a reference's answers are the target's, bit for bit.
    """
    if own.size and np.ptp(own) > 0:
        same = (phi == own[:, :, np.newaxis]).mean(axis=(0, 1))
        if same.max(initial=0.0) > MOST_SAME:
            k = int(np.argmax(same))
            raise InputError(f"{where[k]}: must be another model than the target, got {same[k]:.1%} equal answers")


def missing_outputs(manifest: Manifest, features: Features) -> str:
    """The first reference whose outputs are not in the store, and how many are; "" where all are."""
    found, fields = _stored(manifest, features)[1], reference_fields(manifest)
    missing = [field for field in fields if field not in found or not found[field].outputs.exists()]
    n = len(fields) - len(missing)
    return f"{missing[0]}: outputs must be in the store, got {n} of {len(fields)}" if missing else ""


def refuse_missing(manifest: Manifest, features: Features) -> None:
    """Refuse references whose outputs are not in the store.

    Raises:
        InputError: they are not.
    """
    if missing := missing_outputs(manifest, features):
        raise InputError(f"{missing}; run references first")


def answers_of(manifest: Manifest, features: Features, kept: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Phi of the target, (n_samples, n_queries), and of some references, (n_samples, n_queries, n_kept).

    One query of the target is that of features.h5.

    Raises:
        InputError: outputs are missing, or of other inputs.
    """
    samples, found = _stored(manifest, features)
    weights = list(reference_files(manifest))
    phi = read_phi([found[weights[k]] for k in kept], samples, features.content)
    if "model.checkpoint" in found:
        return read_phi([found["model.checkpoint"]], samples, features.content)[:, :, 0], phi
    assert features.logits is not None
    return SIGNALS["confidence"][0](features.logits, samples.label)[:, None], phi


def _kept_as_references(manifest: Manifest, features: Features, own: Floats) -> Floats:
    """Phi of the target from logits of the references' type, (n_samples, n_queries)."""
    section = manifest.config["references"]
    if section["queries"] is not None or section["logits"] == "float32":
        return own
    assert features.logits is not None
    assert features.label is not None
    most = float(np.finfo(section["logits"]).max)
    logits = np.clip(features.logits, -most, most).astype(section["logits"])
    return SIGNALS["confidence"][0](logits, features.label)[:, None]


def _stored(manifest: Manifest, features: Features) -> tuple[StoredSamples, Mapping[str, ReferencePaths]]:
    """The samples as the store has them, and where the outputs of each reference are."""
    assert features.label is not None
    samples = StoredSamples(features.split, features.sample_index, features.label)
    return samples, reference_paths(manifest, samples)
