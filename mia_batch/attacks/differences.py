"""Attacks that compare the target's answer with its references', without a model of their spread."""

from __future__ import annotations

import numpy as np

from mia_batch.attacks.sides import Floats, References, Scores, mean_of, offline_scores


def attack_r(references: References) -> Scores:
    """Share of the OUT references whose loss is at least the target's, in [0, 1]; .5 without OUT references.

    Ye et al. 2022, "Enhanced Membership Inference Attacks against Machine Learning Models", arXiv 2111.09679. A lower
    loss is a higher phi. The share has as many steps as there are OUT references: many samples tie.
    """
    shares = np.empty_like(references.target)
    for rows, values, inside in references.blocks():
        shares[rows] = mean_of((values <= references.target[rows, :, np.newaxis]).astype(np.float64), ~inside)
    return offline_scores(shares, references.counts()[1], neutral=0.5)


def calibration(references: References) -> Scores:
    """phi - mean_out: how much surer the target is than networks that have not seen the sample; any number.

    Watson et al. 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks", arXiv 2111.08440,
    on phi instead of the loss.
    """
    return offline_scores(references.target - references.both(mean_of)[1], references.counts()[1])


def squared_difference(references: References) -> Scores:
    """0 where mean_in < mean_out, else (phi - mean_out)^2 - (phi - mean_in)^2, any number.

    Imitative membership inference. Up to a factor it is LiRA with one variance for everything; of a sample whose IN
    references are less sure than its OUT references it says nothing. A sample needs one reference on each side. In its
    offline form the mean of the missing side is that of the other, less or plus the average difference of the two over
    all samples that have both: such samples then rank as by `calibration`, and compare with the others.
    """
    means = references.both(mean_of)
    missing = np.isnan(means[0] - means[1])
    gap = np.nanmean(means[0] - means[1], axis=0)
    mean_in, mean_out = (
        np.where(np.isnan(mean), other + shift, mean)
        for mean, other, shift in zip(means, means[::-1], (gap, -gap), strict=True)
    )
    scores = squared_differences(references.target, mean_in, mean_out)
    return Scores(scores, missing[:, 0], np.zeros(len(missing), dtype=bool))


def squared_differences(phi: Floats, mean_in: Floats, mean_out: Floats) -> Floats:
    """The score of `squared_difference` from both means, arrays of one shape; as a product, exact for large numbers."""
    gap: Floats = np.maximum(mean_in - mean_out, 0.0)
    return gap * ((phi - mean_out) + (phi - mean_in))

