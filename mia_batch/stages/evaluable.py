"""Whether an audit can say anything, from features.h5 alone: asked before the attacks, and by the reducer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.grouping import group_codes, twins
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import Config
from mia_batch.signals import OUTPUTS
from mia_batch.verdict.duplicates import too_many_duplicates
from mia_batch.verdict.evaluability import Evaluability, evaluability, evaluability_of_losses, tied_share


def look_at_model(config: Config, features: Features) -> Evaluability:
    """The model's own figures, and why an audit of it, on these samples, would mean nothing."""
    weak, imported = config.gate.weak_model, features.imported
    if features.logits is None or features.label is None:
        model = evaluability_of_losses(features.loss, features.label, features.member, weak=weak)
        model = replace(model, tied=_tied(features, features.loss))
        return _without_many_twins(model, config, features)
    declared = str(features.attrs.get("outputs")) if imported else config.model.output
    output = declared if declared in OUTPUTS else "logits"  # what a function gives
    model = evaluability(
        features.logits, features.label, features.member, output=output, weak=weak, imported=imported
    )
    # Rounded, as sums of the same numbers in another order are the same.
    model = replace(model, tied=_tied(features, np.round(signals.phi(features.logits, features.label), 9)))
    return _without_many_twins(model, config, features)


def _without_many_twins(model: Evaluability, config: Config, features: Features) -> Evaluability:
    if features.content is None:
        return model
    twin = twins(features.content, features.member)
    fault = too_many_duplicates(twin, features.member, config.data.max_duplicates, outputs=features.by_outputs)
    return replace(model, reasons=(*model.reasons, fault)) if fault else model


def _tied(features: Features, signal: NDArray[np.floating]) -> tuple[float, float]:
    """Of members, then of non-members; samples with equal inputs count as one where inputs are known."""
    content = features.content
    same = None if content is None else group_codes(content, None, len(signal))
    members, others = (
        tied_share(signal[rows], None if same is None else same[rows])
        for rows in (features.member == 1, features.member == 0)
    )
    return members, others
