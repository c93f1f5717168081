"""PMIA: proxies stand for the IN references that a sample does not have.

arXiv 2511.04716. Offline, and for samples that came after the references: how a network answers on what it was trained
on is taken from other samples, its proxies; how it answers on what it was not, from the sample's own OUT references.
"""

from __future__ import annotations

import numpy as np

from mia_batch.attacks.lira import log_normal, out_variance
from mia_batch.attacks.sides import LEAST_SD, MANY, Bools, Floats, References, Scores, offline_scores, sides


def pmia(references: References) -> Scores:
    """log N(phi; med, sd of the IN phi of all samples together) - log N(phi; med_out, s_out), any number.

    The former's sd divides by their number; s_out is pooled over samples below 64 references.
    """
    everyone = np.ones(len(references.target), dtype=bool)
    centre, variance = _of_proxies(references, everyone)
    return _scores(references, centre[np.newaxis], variance[np.newaxis])


def pmia_class(references: References) -> Scores:
    """The same with the samples of x's class as its proxies; all, where no reference was trained on one of those."""
    assert references.label is not None
    seen = (references.inside == 1).any(axis=1)
    centre, variance = (np.empty_like(references.target) for _ in range(2))
    for each in np.unique(references.label):
        own = references.label == each
        centre[own], variance[own] = _of_proxies(references, own if (own & seen).any() else np.ones_like(own))
    return _scores(references, centre, variance)


def _of_proxies(references: References, proxies: Bools) -> tuple[Floats, Floats]:
    """Median and variance of the IN phi of some samples, (n_queries,) each."""
    rows = slice(None) if proxies.all() else np.flatnonzero(proxies)
    chosen = references.inside[rows] == 1
    values = [references.others[rows, query][chosen] for query in range(references.target.shape[1])]
    centre, variance = (np.array([of(each) for each in values]) for of in (np.median, np.var))
    return centre, np.maximum(variance, LEAST_SD**2)


def _scores(references: References, centre: Floats, variance: Floats) -> Scores:
    _, out = sides(references, medians=True)
    scores = log_normal(references.target, centre, variance)
    scores -= log_normal(references.target, out.centre, out_variance(out, own=references.n_references >= MANY))
    return offline_scores(scores, out.n)
