"""What the page shows beside the summary: curves, distributions and images, and which attacks were not tried."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping

import numpy as np

from mia_batch.attacks.base import REFERENCE_COLUMNS, Attack, AttackResult
from mia_batch.attacks.registry import ATTACKS
from mia_batch.data.sources import Source, open_source
from mia_batch.errors import InputError, one_line
from mia_batch.metrics.base import Effects
from mia_batch.metrics.distributions import histogram
from mia_batch.metrics.ranking import roc_fprs
from mia_batch.metrics.registry import roc
from mia_batch.network.datasets import open_dataset
from mia_batch.report.evidence import AttackEvidence, Evidence
from mia_batch.report.summary import ExposedSummary, RecordsSummary
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import Config

log = logging.getLogger(__name__)
IMAGE_PIXELS = 96  # of the longer side, at most


def make_evidence(
    config: Config, features: Features, results: Mapping[str, AttackResult], effects: Mapping[str, Effects],
    records: RecordsSummary | None,
) -> Evidence:
    """Bins and points, so that a page of very many samples is no larger than one of few.

    Args:
        config: of the audit.
        features: of the samples, n_samples rows.
        results: of the attacks, over the same rows.
        effects: how many samples count as one, by attack that has scores.
        records: with the members whose images may be shown.
    """
    images, no_images = _images(config, records)
    return Evidence(
        attacks={name: _of_attack(results[name], own) for name, own in effects.items()},
        loss=histogram(features.member, features.loss, log=True) if len(features.member) else None,
        images=images, no_images=no_images,
    )  # fmt: skip


def _of_attack(result: AttackResult, effects: Effects) -> AttackEvidence:
    member, scores = result.scored(result.member), result.scored(result.scores)
    fprs = roc_fprs(max(1, int((member == 0).sum())))
    return AttackEvidence(roc(member, scores, fprs, effects=effects), histogram(member, scores))


def not_tried(config: Config, features: Features) -> dict[str, str]:
    """Attacks that there are and that the configuration does not name, with the reason, by name."""
    configured = {method.method for method in config.attack.methods}
    return {name: _why_not(attack, config, features) for name, attack in ATTACKS.items() if name not in configured}


def _why_not(attack: Attack, config: Config, features: Features) -> str:
    if config.references is None and not attack.needs.isdisjoint(REFERENCE_COLUMNS):
        return "needs reference models, and the config has no section references"
    if features.statistics is None and "statistics" in attack.needs:
        return "needs statistics of the inputs, which are not known"
    return "not named in attack.methods of the config"


def _images(config: Config, records: RecordsSummary | None) -> tuple[dict[int, bytes], str]:
    """PNG files of the most exposed members by place, and why there are none though the configuration wants them."""
    exposed = records.exposed if records else ()
    if not config.report.thumbnails or not exposed:
        return {}, ""
    if config.imports or not config.data.is_image:
        return {}, "the samples are no images"
    try:
        source = open_source(config.data, open_dataset)
        found = {i: _png(source, each) for i, each in enumerate(exposed)}
    except InputError as error:  # the verdict does not depend on it: the data may have gone since the extraction
        log.warning("report.thumbnails: %s", one_line(error))
        return {}, one_line(error)
    return {i: png for i, png in found.items() if png}, ""


def _png(source: Source, sample: ExposedSummary) -> bytes | None:
    """None of what has neither one channel nor three."""
    from matplotlib.image import imsave

    inputs, _ = source.read(sample.split, np.array([sample.sample_index]))
    image = np.clip(np.asarray(inputs.columns[0][0], dtype=np.float64), 0, 255).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.ndim == 3 and image.shape[2] == 1 else image
    if image.ndim != 3 or image.shape[2] != 3:
        return None
    step = -(-max(image.shape[:2]) // IMAGE_PIXELS)
    file = io.BytesIO()
    imsave(file, image[::step, ::step], format="png")
    return file.getvalue()
