"""What references tell of the samples of an audit, as attacks take it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import REFERENCE_COLUMNS
from mia_batch.attacks.inclusion import inclusion_problem, is_complement_of_target, own_areas
from mia_batch.attacks.registry import ATTACKS
from mia_batch.data.digests import refuse_twins
from mia_batch.errors import InputError
from mia_batch.rundir.features import Features
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_files import inclusion_digest, inclusion_file, reference_weights
from mia_batch.rundir.reference_store import StoredSamples, read_phi, reference_fields, reference_paths
from mia_batch.settings.schema import Config, ReferencesConfig
from mia_batch.signals import SIGNALS
from mia_batch.stages.plan import inclusion_of

log = logging.getLogger(__name__)


def reference_columns(
    config: Config, manifest: Manifest, features: Features, methods: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The columns `REFERENCE_COLUMNS` of the samples; none where no method needs them, or there are no references.

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
    needed = any(not ATTACKS[method].needs.isdisjoint(REFERENCE_COLUMNS) for method in methods)
    if config.references is None or not needed:
        return {}
    references, weights = config.references, reference_weights(config.references)
    refuse_twins(manifest.digests, weights)
    _refuse_other_inclusion(references, manifest)
    assert features.label is not None
    samples = StoredSamples(features.split, features.sample_index, features.label)
    found = reference_paths(manifest, samples)
    _refuse_missing(found, reference_fields(manifest))
    included = inclusion_of(references, features.split, features.sample_index)
    kept = np.flatnonzero(~is_complement_of_target(included, features.member))
    log.info("references: %d of %d; the others are the target's complement", len(kept), len(weights))
    if not len(kept):
        return {}
    included = np.ascontiguousarray(included[:, kept])
    names = [list(weights)[k] for k in kept]
    problem = inclusion_problem(included, member=features.member, names=names)
    field, file = inclusion_file(references)
    if problem:
        raise InputError(f"{file}: {field}: must not betray members: {problem}")
    phi = read_phi([found[name] for name in names], samples, features.content)
    _refuse_another_order(f"{file}: {field}", phi, included)
    return {"query_phi": _own_phi(found, samples, features), "reference_phi": phi, "reference_in": included}


def _refuse_another_order(where: str, phi: NDArray[np.float64], included: NDArray[np.int8]) -> None:
    """Refuse inclusion that is turned round, and warn of one that the references' own answers do not bear out."""
    areas = own_areas(phi, included)
    best = max(areas, key=lambda each: each.value, default=None)
    if best is None:
        return
    told = f"the references' phi tells what they were trained on with AUC {best.value:.4f} at most"
    if all(each.high < 0.5 for each in areas):
        rule = "must be 1 where a reference was trained on a sample"
        raise InputError(f"{where}: {rule}, got {told}")
    if all(each.low <= 0.5 for each in areas):
        log.warning("%s: %s; is it in the order of the samples?", where, told)


def _refuse_other_inclusion(references: ReferencesConfig, manifest: Manifest) -> None:
    """Refuse what says who was trained on what, if it has changed since the stage references has run."""
    field, file = inclusion_file(references)
    if inclusion_digest(references) != manifest.digests.get(field):
        rule = "must be as it was when the stage references has run"
        raise InputError(f"{file}: {field}: {rule}, got another content; run references again")


def _refuse_missing(found: Mapping[str, ReferencePaths], fields: Sequence[str]) -> None:
    missing = [field for field in fields if field not in found or not found[field].outputs.exists()]
    if missing:
        n = len(fields) - len(missing)
        raise InputError(f"{missing[0]}: outputs must be in the store, got {n} of {len(fields)}; run references first")


def _own_phi(
    found: Mapping[str, ReferencePaths], samples: StoredSamples, features: Features
) -> NDArray[np.float64]:
    """The target's, (n_samples, n_queries): one query is that of features.h5."""
    if "model.checkpoint" in found:
        return read_phi([found["model.checkpoint"]], samples, features.content)[:, :, 0]
    assert features.logits is not None
    return SIGNALS["confidence"][0](features.logits, samples.label)[:, None]
