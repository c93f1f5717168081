"""LiRA with a variance that is learnt from all samples and the sample's own references: a normal-inverse-gamma prior.

Brännvall 2026, "Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA", arXiv 2603.11799, BaVarIA-t.
With few references the variance is that of all samples, with many each sample's own.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from mia_batch.attacks.sides import Floats, References, Scores, Side, pooled_variances, sides

K0, NU0 = 0.1, 16.0  # how many references the prior's mean, and its variance, is worth


def log_predictive(phi: Floats, side: Side, variance: Floats, *, k0: float, nu0: float) -> Floats:
    """Log density of phi under what a sample's references on one side predict, (n_samples, n_queries).

    Posterior of n values with the prior (m0, k0, a0, b0): k = k0 + n; m = (k0 m0 + n mean) / k; a = a0 + n / 2;
    b = b0 + sum (phi_i - mean)^2 / 2 + k0 n (mean - m0)^2 / (2 k). The prediction is Student's t with 2 a degrees of
    freedom, location m and scale sqrt(b (k + 1) / (a k)). The prior is empirical: m0 is the mean of all values of the
    side, a0 = nu0 / 2, b0 = a0 times `variance`. A sample without references on the side has the prior's prediction.

    Args:
        phi: the target's, (n_samples, n_queries).
        side: with means as centres.
        variance: within samples, pooled over all, (n_queries,).
        k0: above 0.
        nu0: above 0.

    Returns:
        Without the constant log(pi) / 2.
    """
    n = side.n
    prior_mean = np.nansum(n * side.centre, axis=0) / max(float(n.sum()), 1.0)
    mean, squares = (np.where(n > 0, each, other) for each, other in ((side.centre, prior_mean), (side.squares, 0.0)))
    k, a = k0 + n, (nu0 + n) / 2
    m = (k0 * prior_mean + n * mean) / k
    b = (nu0 * variance + squares + k0 * n / k * (mean - prior_mean) ** 2) / 2
    width = 2 * b * (k + 1) / k  # 2 a times the squared scale
    return -special.betaln(a, 0.5) - np.log(width) / 2 - (a + 0.5) * np.log1p((phi - m) ** 2 / width)


def lira_bayes(references: References, *, k0: float = K0, nu0: float = NU0) -> Scores:
    """`log_predictive` of the IN references less that of the OUT references.

    As nu0 grows and k0 vanishes it becomes LiRA with fixed variances times (1 + 1/n). Its offline form, for a sample
    with a missing side, takes the prior's prediction for that side: so no sample is without a score.
    """
    inside, out = sides(references)
    variances = pooled_variances(inside, out)
    scores_in, scores_out = (
        log_predictive(references.target, side, variance, k0=k0, nu0=nu0)
        for side, variance in zip((inside, out), variances, strict=True)
    )
    missing = (inside.n < 1) | (out.n < 1)
    return Scores(scores_in - scores_out, missing[:, 0], np.zeros(len(missing), dtype=bool))
