"""References that a caller hands over: their answers, and which of the samples each was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.api.arrays import AuditRows, as_array, as_logits
from mia_batch.errors import InputError
from mia_batch.stages.groups import groups_of
from mia_batch.stages.reference_columns import (
    kept_references,
    refuse_betrayal,
    refuse_same_answers,
    refuse_turned_round,
)

FIELD = "references"


def read_references(value: Any, rows: AuditRows) -> dict[str, NDArray[Any]]:
    """The columns `attacks.base.REFERENCE_COLUMNS`; none without references, or where all are the target's complement.

    Args:
        value: None, or a pair: their outputs, (n_references, n_samples, n_classes), of the kind that the target's are,
            and 1 where one was trained on a sample, else 0, (n_references, n_samples).
        rows: the samples of the audit.

    Raises:
        InputError: wrong forms, or who was trained on what betrays the target's members.
    """
    if value is None:
        return {}
    features = rows.features
    if features.logits is None or features.label is None:
        raise InputError(f"{FIELD}: must be given beside logits or probabilities, got losses")
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"{FIELD}: must be ({rows.output}, included), got {type(value).__name__}")
    phi, included = _phi(value[0], rows), _included(value[1], len(features.member))
    if included.shape[1] != phi.shape[2]:
        rule = f"must have a row for each of the {phi.shape[2]} references"
        raise InputError(f"{FIELD}[1]: {rule}, got {included.shape[1]}")
    kept = kept_references(included, features.member)
    if not len(kept):
        return {}
    included, phi = np.ascontiguousarray(included[:, kept]), np.ascontiguousarray(phi[:, :, kept])
    names, group = [f"{FIELD}[0][{k}]" for k in kept], groups_of(features)
    refuse_betrayal(f"{FIELD}[1]", included, features.member, names, group)
    own = signals.phi(features.logits, features.label)[:, np.newaxis]
    refuse_same_answers(names, own, phi)
    refuse_turned_round(f"{FIELD}[1]", phi, included, names, group)
    return {"query_phi": own, "reference_phi": phi, "reference_in": included}


def _phi(value: Any, rows: AuditRows) -> NDArray[np.float64]:
    """(n_samples, 1, n_references)."""
    wanted = rows.features.logits
    assert wanted is not None
    assert rows.features.label is not None
    try:
        each = list(value)
    except TypeError as error:
        rule = f"must be of shape (references, {', '.join(map(str, wanted.shape))})"
        raise InputError(f"{FIELD}[0]: {rule}, got {type(value).__name__}") from error
    found = []
    for k, answers in enumerate(each):
        logits, where = as_logits(answers, rows.output, f"{FIELD}[0][{k}]."), f"{FIELD}[0][{k}]"
        if logits.shape != wanted.shape:
            raise InputError(f"{where}: must be of shape {wanted.shape} as the target's, got {logits.shape}")
        try:
            found.append(signals.phi(logits, rows.features.label))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
    if not found:
        raise InputError(f"{FIELD}[0]: must have a reference at least, got none")
    return np.stack(found, axis=1)[:, np.newaxis]


def _included(value: Any, n: int) -> NDArray[np.int8]:
    """(n_samples, n_references)."""
    found = as_array(value, f"{FIELD}[1]")
    if found.ndim != 2 or found.shape[1] != n or found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        rule = f"must be 0 or 1 of shape (references, {n})"
        raise InputError(f"{FIELD}[1]: {rule}, got {found.dtype} of shape {found.shape}")
    return np.ascontiguousarray(found.T.astype(np.int8))
