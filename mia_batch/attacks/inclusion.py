"""Whether references' training sets betray membership by themselves: the self-test of every run with references.

Where each sample is in exactly half of the models, or the complement of the target is among its references, the number
of references that were trained on a sample tells whether the target was, and every attack with references measures
that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import auc

ALPHA = 0.001  # how often sound references may be refused; unsound ones are far beyond any error
Pairs = Sequence[tuple[int, int]]


def complements(reference_in: ArrayLike) -> list[tuple[int, int]]:
    """Pairs of references of which each was trained on exactly the samples that the other was not.

    Args:
        reference_in: (n_samples, n_references), 0 or 1.

    Returns:
        Columns (j, k), j < k, in ascending order.
    """
    inside = np.asarray(reference_in) == 1
    own, opposite = _keys(inside), _keys(~inside)
    where: dict[bytes, list[int]] = {}
    for k, key in enumerate(own):
        where.setdefault(key, []).append(k)
    return [(j, k) for j, key in enumerate(opposite) for k in where.get(key, ()) if j < k]


def is_complement_of_target(reference_in: ArrayLike, member: ArrayLike) -> NDArray[np.bool_]:
    """Which references were trained on exactly the samples that the target was not, (n_references,).

    Args:
        reference_in: (n_samples, n_references), 0 or 1.
        member: of the target, (n_samples,), 0 or 1.
    """
    return np.asarray((np.asarray(reference_in) == 1) != (np.asarray(member) == 1)[:, np.newaxis]).all(axis=0)


def inclusion_problem(
    reference_in: ArrayLike, pairs: Pairs | None = None, *, member: ArrayLike | None = None,
    names: Sequence[str] | None = None, alpha: float = ALPHA,
) -> str:
    """Why attacks with these references would measure how their training sets were drawn; "" if nothing shows that.

    Each reference plays the target, without its complements: the AUC of the number of the others that were trained on a
    sample must cover .5. So must that of all of them for the target itself, where its membership is given; no score
    ever uses it.

    Args:
        reference_in: (n_samples, n_references), 0 or 1; the target's complement is left out.
        pairs: columns that are complements of each other; None finds those that are exactly.
        member: of the target, (n_samples,), 0 or 1.
        names: of the references; None numbers them from 0.
        alpha: error of all intervals together.

    Raises:
        ValueError: wrong shape, or neither 0 nor 1.
    """
    inside = np.asarray(reference_in)
    if inside.ndim != 2 or not np.isin(inside, (0, 1)).all():
        raise ValueError(f"reference_in: must be 0 or 1, of shape (n_samples, n_references), got {inside.shape}")
    called = [f"reference {k}" for k in range(inside.shape[1])] if names is None else names
    if problem := _column_problem(inside, called) or _target_problem(inside, member, called):
        return problem
    found, total = complements(inside) if pairs is None else pairs, inside.sum(axis=1, dtype=np.int64)
    level = 1 - alpha / (inside.shape[1] + 1)
    for k, name in enumerate(called):
        left_out = {k, *(other for pair in found if k in pair for other in pair)}
        if problem := _count_problem(inside[:, k], total - inside[:, sorted(left_out)].sum(axis=1), level, name):
            return problem
    return "" if member is None else _count_problem(np.asarray(member), total, level, "the target")


def own_areas(phi: ArrayLike, reference_in: ArrayLike, *, alpha: float = ALPHA) -> list[Estimate]:
    """How well each reference's phi tells what it was trained on: AUC, with intervals that hold together.

    All below .5: inclusion is turned round. All around .5: it is in another order than the samples, or the references
    have learned nothing of single samples; then attacks with them find nothing, whatever the target leaks.

    Args:
        phi: of the references, (n_samples, n_queries, n_references).
        reference_in: (n_samples, n_references), 0 or 1.
        alpha: error of all intervals together.

    Returns:
        Of each reference that was trained on some of the samples and not on others.
    """
    inside = np.asarray(reference_in)
    means, level = np.asarray(phi).mean(axis=1), 1 - alpha / max(1, inside.shape[1])
    playing = np.flatnonzero(inside.any(axis=0) & ~inside.all(axis=0))
    return [auc(inside[:, k], means[:, k], level=level) for k in playing]


def own_areas_said(areas: Sequence[Estimate]) -> str:
    """The largest of `own_areas`, at least one, in words."""
    best = max(each.value for each in areas)
    return f"the references' phi tells what they were trained on with AUC {best:.4f} at most"


def inclusion_doubt(phi: ArrayLike, reference_in: ArrayLike) -> str:
    """What the references' own answers say against the stated inclusion; "" if any of them bears it out.

    Arguments as of `own_areas`.
    """
    areas = own_areas(phi, reference_in)
    return own_areas_said(areas) if areas and all(each.low <= 0.5 for each in areas) else ""


def _column_problem(inside: NDArray[np.integer], names: Sequence[str]) -> str:
    """Of references that tell nothing but who was trained on, or that are twins; those of other data are sound."""
    n, counts, first = len(inside), inside.sum(axis=0, dtype=np.int64), dict[bytes, str]()
    for name, count, key in zip(names, counts, _keys(inside == 1), strict=True):
        if count == n:
            return f"{name} was trained on all of the {n} samples"
        if count and key in first:
            return f"{name} was trained on the same of the samples as {first[key]}"
        first[key] = name
    return ""


def _target_problem(inside: NDArray[np.integer], member: ArrayLike | None, names: Sequence[str]) -> str:
    """Of references that have exactly the target's training set, or the rest."""
    if member is None:
        return ""
    for found, what in (
        (is_complement_of_target(inside, member), "was not"), (is_complement_of_target(1 - inside, member), "was")
    ):
        if found.any():
            return f"{names[int(np.argmax(found))]} was trained on exactly the samples that the target {what}"
    return ""


def _count_problem(member: NDArray[np.integer], count: NDArray[np.integer], level: float, name: str) -> str:
    """Whether the number of IN references tells the membership of a target, (n_samples,) each."""
    if len(np.unique(member)) < 2:  # a reference of other data plays no target
        return ""
    area = auc(member, count, level=level)
    if not area.defined or area.low <= 0.5 <= area.high:
        return ""
    return (
        f"of {name} the number of references trained on a sample tells the members with AUC {area.value:.4f} "
        f"({area.low:.4f} to {area.high:.4f}), which must cover 0.5"
    )


def _keys(inside: NDArray[np.bool_]) -> list[bytes]:
    """Each column as bytes."""
    return [column.tobytes() for column in np.packbits(inside, axis=0).T]
