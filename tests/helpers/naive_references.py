"""Attacks with references as a reader of the papers would write them: sample by sample, query by query."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mia_batch.attacks.sides import References

NEUTRAL = 0.0


def naive(name: str, refs: References, **params: float) -> np.ndarray:
    """Scores, (n, n_queries), of the attack of this name; `a` is given for the ratio family."""
    scores = np.empty_like(refs.target)
    for i in range(len(scores)):
        for q in range(scores.shape[1]):
            scores[i, q] = ATTACKS[name](refs, i, q, **params)
    return scores


def at(refs: References, i: int, q: int) -> tuple[float, list[float], list[float]]:
    """Phi, of the target, of the IN references and of the OUT references."""
    inside = [float(refs.others[i, q, k]) for k in range(refs.n_references) if refs.inside[i, k]]
    out = [float(refs.others[i, q, k]) for k in range(refs.n_references) if not refs.inside[i, k]]
    return float(refs.target[i, q]), inside, out


def pooled(refs: References, q: int, side: int) -> float | None:
    """Sum of squared residuals / sum (n - 1) of a side."""
    total, free = 0.0, 0
    for i in range(len(refs.target)):
        values = at(refs, i, q)[side]
        if len(values) > 1:
            total += sum((value - np.mean(values)) ** 2 for value in values)
            free += len(values) - 1
    return total / free if free else None


def pooled_or(refs: References, q: int, side: int) -> float:
    own, other = pooled(refs, q, side), pooled(refs, q, 3 - side)
    return max(own if own is not None else other if other is not None else 1.0, 1e-12)


def logpdf(x: float, mean: float, variance: float) -> float:
    return float(stats.norm.logpdf(x, mean, math.sqrt(variance)))


def own_variance(values: list[float]) -> float:
    return max(float(np.var(values)), 1e-12)


def one_sided(refs: References, i: int, q: int, own: bool, centre: object) -> float:
    phi, _, out = at(refs, i, q)
    if not out:
        return NEUTRAL
    alone = pooled(refs, q, 2)
    common = 1.0 if alone is None else max(alone, 1e-12)
    return (phi - centre(out)) / math.sqrt(own_variance(out) if own and len(out) > 1 else common)  # type: ignore[operator]


def lira(refs: References, i: int, q: int) -> float:
    phi, inside, out = at(refs, i, q)
    if min(len(inside), len(out)) < 2:
        return one_sided(refs, i, q, True, np.median)
    return logpdf(phi, np.median(inside), own_variance(inside)) - logpdf(phi, np.median(out), own_variance(out))


def lira_fixed(refs: References, i: int, q: int) -> float:
    phi, inside, out = at(refs, i, q)
    if min(len(inside), len(out)) < 1:
        return one_sided(refs, i, q, False, np.mean)
    means = [logpdf(phi, np.mean(values), pooled_or(refs, q, side)) for side, values in ((1, inside), (2, out))]
    return means[0] - means[1]


def lira_offline(refs: References, i: int, q: int) -> float:
    return one_sided(refs, i, q, refs.n_references >= 64, np.median)


def lira_bayes(refs: References, i: int, q: int, k0: float = 0.1, nu0: float = 16.0) -> float:
    found = []
    for side in (1, 2):
        everything = [value for j in range(len(refs.target)) for value in at(refs, j, q)[side]]
        phi, values = at(refs, i, q)[0], at(refs, i, q)[side]
        m0, a0 = np.mean(everything), nu0 / 2
        b0, n = a0 * pooled_or(refs, q, side), len(values)
        mean = np.mean(values) if values else m0
        k = k0 + n
        m, a = (k0 * m0 + n * mean) / k, a0 + n / 2
        b = b0 + sum((value - mean) ** 2 for value in values) / 2 + k0 * n * (mean - m0) ** 2 / (2 * k)
        found.append(stats.t.logpdf(phi, 2 * a, m, math.sqrt(b * (k + 1) / (a * k))))
    return float(found[0] - found[1])


def p(phi: float) -> float:
    return 1 / (1 + math.exp(-phi))


def log_ratio_offline(refs: References, i: int, q: int, a: float) -> float:
    phi, _, out = at(refs, i, q)
    if not out:
        return NEUTRAL
    return math.log(p(phi) / (0.5 * ((1 + a) * np.mean([p(value) for value in out]) + (1 - a))))


def log_ratio(refs: References, i: int, q: int, a: float) -> float:
    phi, inside, out = at(refs, i, q)
    if min(len(inside), len(out)) < 1:
        return log_ratio_offline(refs, i, q, a)
    return math.log(p(phi) / ((np.mean([p(value) for value in inside]) + np.mean([p(value) for value in out])) / 2))


def attack_r(refs: References, i: int, q: int) -> float:
    phi, _, out = at(refs, i, q)
    return sum(math.log1p(math.exp(-value)) >= math.log1p(math.exp(-phi)) for value in out) / len(out) if out else 0.5


def calibration(refs: References, i: int, q: int) -> float:
    phi, _, out = at(refs, i, q)
    return phi - float(np.mean(out)) if out else NEUTRAL


def squared_difference(refs: References, i: int, q: int) -> float:
    phi, inside, out = at(refs, i, q)
    sides = [at(refs, j, q)[1:] for j in range(len(refs.target))]
    gap = float(np.mean([np.mean(one) - np.mean(other) for one, other in sides if one and other]))
    mean_in = np.mean(inside) if inside else np.mean(out) + gap
    mean_out = np.mean(out) if out else np.mean(inside) - gap
    return 0.0 if mean_in < mean_out else float((phi - mean_out) ** 2 - (phi - mean_in) ** 2)


def _pmia(refs: References, i: int, q: int, proxies: list[int]) -> float:
    phi, _, out = at(refs, i, q)
    if not out:
        return NEUTRAL
    seen = [value for j in proxies for value in at(refs, j, q)[1]]
    variance = own_variance(out) if refs.n_references >= 64 and len(out) > 1 else pooled(refs, q, 2)
    known = logpdf(phi, np.median(seen), own_variance(seen))
    return known - logpdf(phi, np.median(out), 1.0 if variance is None else max(variance, 1e-12))


def pmia(refs: References, i: int, q: int) -> float:
    return _pmia(refs, i, q, list(range(len(refs.target))))


def pmia_class(refs: References, i: int, q: int) -> float:
    assert refs.label is not None
    everyone = list(range(len(refs.target)))
    own = [j for j in everyone if refs.label[j] == refs.label[i]]
    return _pmia(refs, i, q, own if refs.inside[own].any() else everyone)


ATTACKS = {
    each.__name__: each
    for each in (lira, lira_fixed, lira_offline, lira_bayes, log_ratio, log_ratio_offline, attack_r, calibration,
                 squared_difference, pmia, pmia_class)
} | {"rmia": log_ratio, "rmia_offline": log_ratio_offline}


def naive_shares(log_r: np.ndarray, population: np.ndarray, gamma: float) -> np.ndarray:
    """RMIA's shares, all pairs."""
    n, n_queries = log_r.shape
    hits = np.zeros(n)
    for q in range(n_queries):
        for x in range(n):
            hits[x] += sum(math.exp(log_r[x, q] - log_r[z, q]) >= gamma for z in population)
    return hits / (len(population) * n_queries)
