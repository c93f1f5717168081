"""LiRA: how likely the target's phi is under its IN references, against how likely under its OUT references.

Carlini et al. 2022, "Membership Inference Attacks From First Principles", arXiv 2112.03570, algorithm 1 and equation 4.
"""

from __future__ import annotations

import numpy as np

from mia_batch.attacks.sides import (
    MANY,
    Floats,
    References,
    Scores,
    Side,
    offline_scores,
    online_scores,
    pooled_variances,
    sides,
)


def log_normal(phi: Floats, centre: Floats, variance: Floats) -> Floats:
    """Log density of a normal distribution without its constant, which both sides have; arrays that broadcast."""
    return -0.5 * (np.log(variance) + (phi - centre) ** 2 / variance)


def out_variance(out: Side, *, own: bool) -> Floats:
    """Of the OUT references, (n_samples, n_queries): with `own` each sample's if it has two, else that of all."""
    pooled = np.broadcast_to(pooled_variances(out)[0], out.squares.shape)
    return np.where(out.n >= 2, out.own_variance(), pooled) if own else pooled


def lira(references: References) -> Scores:
    """log N(phi; med_in, s_in^2) - log N(phi; med_out, s_out^2), medians, and variances of each sample's own.

    Algorithm 1. A sample needs two references on each side; others are scored as by `lira_offline`.
    """
    inside, out = sides(references, medians=True)
    scores = log_normal(references.target, inside.centre, inside.own_variance())
    scores -= log_normal(references.target, out.centre, out.own_variance())
    return online_scores(scores, _one_sided(references.target, out, own=True), (inside.n >= 2) & (out.n >= 2))


def lira_fixed(references: References) -> Scores:
    """The same with means, and one variance for all samples of a side, as the paper has it below 64 references.

    A sample needs one reference on each side; others are scored as by `lira_offline`.
    """
    inside, out = sides(references)
    variance_in, variance_out = pooled_variances(inside, out)
    scores = log_normal(references.target, inside.centre, variance_in)
    scores -= log_normal(references.target, out.centre, variance_out)
    return online_scores(scores, _one_sided(references.target, out, own=False), (inside.n >= 1) & (out.n >= 1))


def lira_offline(references: References) -> Scores:
    """(phi - med_out) / s_out, which ranks as the one-sided test of equation 4 does.

    One variance for all samples below 64 references, from then on each sample's own.
    """
    _, out = sides(references, medians=True)
    return _one_sided(references.target, out, own=references.n_references >= MANY)


def _one_sided(phi: Floats, out: Side, *, own: bool) -> Scores:
    return offline_scores((phi - out.centre) / np.sqrt(out_variance(out, own=own)), out.n)
