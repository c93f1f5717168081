"""Whether an audit can say anything, from features.h5 alone: asked before the attacks, and by the reducer."""

from __future__ import annotations

from dataclasses import replace

from mia_batch.attacks.grouping import twins
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import Config
from mia_batch.signals import OUTPUTS
from mia_batch.verdict.duplicates import too_many_duplicates
from mia_batch.verdict.evaluability import Evaluability, evaluability, evaluability_of_losses


def look_at_model(config: Config, features: Features) -> Evaluability:
    """The model's own figures, and why an audit of it, on these samples, would mean nothing."""
    weak, imported = config.gate.weak_model, features.imported
    if features.logits is None or features.label is None:
        model = evaluability_of_losses(features.loss, features.label, features.member, weak=weak)
        return _without_many_twins(model, config, features)
    declared = str(features.attrs.get("outputs")) if imported else config.model.output
    output = declared if declared in OUTPUTS else "logits"  # what a function gives
    model = evaluability(
        features.logits, features.label, features.member, output=output, weak=weak, imported=imported
    )
    return _without_many_twins(model, config, features)


def _without_many_twins(model: Evaluability, config: Config, features: Features) -> Evaluability:
    if features.content is None:
        return model
    twin = twins(features.content, features.member)
    fault = too_many_duplicates(twin, features.member, config.data.max_duplicates, outputs=features.by_outputs)
    return replace(model, reasons=(*model.reasons, fault)) if fault else model
