"""What references tell of the samples of an audit, as attacks take it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import OF_REFERENCES
from mia_batch.attacks.registry import ATTACKS
from mia_batch.data.digests import refuse_twins
from mia_batch.data.inclusion import read_inclusion
from mia_batch.errors import InputError
from mia_batch.rundir.features import Features
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_store import StoredSamples, read_phi, reference_paths
from mia_batch.settings.schema import Config
from mia_batch.signals import SIGNALS
from mia_batch.stages.plan import reference_checkpoints

log = logging.getLogger(__name__)


def reference_columns(
    config: Config, manifest: Manifest, features: Features, methods: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The columns `OF_REFERENCES` of the samples; none where no method needs them, or there are no references.

    References that were trained on exactly the non-members are left out: what they say follows from the membership that
    is to be found.

    Args:
        config: of the audit.
        manifest: in force.
        features: of the audit's samples.
        methods: attacks that are to be made.

    Raises:
        InputError: outputs are missing or of other inputs, or the inclusion file is not of these samples.
    """
    needed = any(not ATTACKS[method].needs.isdisjoint(OF_REFERENCES) for method in methods)
    if config.references is None or not needed:
        return {}
    refuse_twins(manifest.digests, reference_checkpoints(config))
    assert features.label is not None
    samples = StoredSamples(features.split, features.sample_index, features.label)
    found = reference_paths(manifest, samples)
    _refuse_missing(found)
    weights = list(reference_checkpoints(config))
    included = read_inclusion(config.references.inclusion, len(weights), features.split, features.sample_index)
    kept = _not_complements(included, features.member)
    if not len(kept):
        return {}
    included = np.ascontiguousarray(included[:, kept])
    phi = read_phi([found[weights[k]] for k in kept], samples, features.content)
    return {"query_phi": _own_phi(found, samples, features), "reference_phi": phi, "reference_in": included}


def _refuse_missing(found: Mapping[str, ReferencePaths]) -> None:
    missing = [field for field, paths in found.items() if not paths.outputs.exists()]
    if missing:
        n = len(found) - len(missing)
        raise InputError(f"{missing[0]}: outputs must be in the store, got {n} of {len(found)}; run references first")


def _not_complements(included: NDArray[np.int8], member: NDArray[np.int8]) -> NDArray[np.intp]:
    """Numbers of the references that are not the complement of the target."""
    complement = (included == 1 - member[:, None]).all(axis=0)
    if complement.any():
        kept = included.shape[1] - int(complement.sum())
        log.info("references: %d left out, trained on exactly the non-members; %d stay", complement.sum(), kept)
    return np.flatnonzero(~complement)


def _own_phi(
    found: Mapping[str, ReferencePaths], samples: StoredSamples, features: Features
) -> NDArray[np.float64]:
    """The target's, (n_samples, n_queries): one query is that of features.h5."""
    if "model.checkpoint" in found:
        return read_phi([found["model.checkpoint"]], samples, features.content)[:, :, 0]
    assert features.logits is not None
    return SIGNALS["confidence"][0](features.logits, samples.label)[:, None]
