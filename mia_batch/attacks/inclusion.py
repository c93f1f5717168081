"""Whether references' training sets betray membership by themselves: the self-test of every run with references.

Where each sample is in exactly half of the models, or the complement of the target is among its references, the number
of references that were trained on a sample tells whether the target was, and every attack with references measures
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from mia_batch.attacks.grouping import design_effects
from mia_batch.metrics.base import Estimate
from mia_batch.metrics.ranking import auc
from mia_batch.metrics.registry import bounded, views

ALPHA = 0.001  # how often sound references may be refused; unsound ones are far beyond any error
Pairs = Sequence[tuple[int, int]]
Group = NDArray[np.integer] | None
NUMBER = "the number of references trained on a sample"


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
    names: Sequence[str] | None = None, group: Group = None, alpha: float = ALPHA,
) -> str:
    """Why attacks with these references would measure how their training sets were drawn; "" if nothing shows that.

    Each reference plays the target, without its complements: the AUC of the number of the others that were trained on a
    sample must cover .5. So must, where the target's membership is given, that of all of them for the target itself,
    and that of each alone: of a pair of which one is trained on most of the target's members, and the other on most
    non-members, the number tells nothing, and how surely each of the two answers tells all. No score ever uses it.

    Args:
        reference_in: (n_samples, n_references), 0 or 1; the target's complement is left out.
        pairs: columns that are complements of each other; None finds those that are exactly.
        member: of the target, (n_samples,), 0 or 1.
        names: of the references; None numbers them from 0.
        group: samples of one number were drawn together, (n_samples,); None for samples that stand alone.
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
    level = 1 - alpha / (2 * inside.shape[1] + 1)
    for k, name in enumerate(called):
        left_out = {k, *(other for pair in found if k in pair for other in pair)}
        count = total - inside[:, sorted(left_out)].sum(axis=1)
        if problem := _betrayal(inside[:, k], count, level, group, f"of {name} {NUMBER}"):
            return problem
    return "" if member is None else _target_betrayal(np.asarray(member), inside, level, group, called)


def own_areas(
    phi: ArrayLike, reference_in: ArrayLike, *, group: Group = None, alpha: float = ALPHA
) -> dict[int, Estimate]:
    """How well each reference's phi tells what it was trained on: AUC, with intervals that hold together.

    Below .5: its inclusion is turned round. All around .5: inclusion is in another order than the samples, or the
    references have learned nothing of single samples; then attacks with them find nothing, whatever the target leaks.

    Args:
        phi: of the references, (n_samples, n_queries, n_references).
        reference_in: (n_samples, n_references), 0 or 1.
        group: as of `inclusion_problem`.
        alpha: error of all intervals together.

    Returns:
        By column, of each reference that was trained on some of the samples and not on others.
    """
    inside = np.asarray(reference_in)
    means, level = np.asarray(phi).mean(axis=1), 1 - alpha / max(1, inside.shape[1])
    playing = np.flatnonzero(inside.any(axis=0) & ~inside.all(axis=0)).tolist()
    return {k: _area(inside[:, k], means[:, k], level, group) for k in playing}


def column_of_another(
    phi: ArrayLike, reference_in: ArrayLike, k: int, *, group: Group = None, alpha: float = ALPHA
) -> tuple[int, Estimate] | None:
    """The column of `reference_in` that the phi of reference k tells best, if that is not its own; None if none.

    To be asked of a reference whose phi does not tell its own column. Columns that were drawn independently tell
    nothing of each other, so that another one shows that they are in another order than the references.

    Args:
        phi: of the references, (n_samples, n_queries, n_references).
        reference_in: (n_samples, n_references), 0 or 1.
        k: the reference.
        group: as of `inclusion_problem`.
        alpha: how often that is said by chance, over all references and columns.

    Returns:
        The column, and the AUC by which it is told, whose interval is above .5.
    """
    inside, values = np.asarray(reference_in), np.asarray(phi)[:, :, k].mean(axis=1)
    n_in = inside.sum(axis=0, dtype=np.int64)
    n_out = len(inside) - n_in
    above = rankdata(values) @ inside - n_in * (n_in + 1) / 2
    areas = np.where(np.minimum(n_in, n_out) > 0, above / np.maximum(n_in * n_out, 1), 0.0)
    best = int(np.argmax(areas))
    found = _area(inside[:, best], values, 1 - alpha / inside.shape[1] ** 2, group) if areas[best] > 0 else None
    return (best, found) if found and best != k and found.low > 0.5 else None


def own_areas_said(areas: Iterable[Estimate]) -> str:
    """The largest of `own_areas`, at least one, in words."""
    best = max(each.value for each in areas)
    return f"the references' phi tells what they were trained on with AUC {best:.4f} at most"


def inclusion_doubt(phi: ArrayLike, reference_in: ArrayLike, *, group: Group = None, alpha: float = ALPHA) -> str:
    """What the references' own answers say against the stated inclusion; "" if any of them bears it out.

    A reference does if its phi is higher on what it was trained on than chance has it that drew whole groups. The
    intervals of `own_areas` take each group for one sample: sound references of large groups would not pass.

    Args:
        phi: of the references, (n_samples, n_queries, n_references).
        reference_in: (n_samples, n_references), 0 or 1.
        group: as of `inclusion_problem`.
        alpha: how often inclusion that is another's passes, at most.
    """
    inside, areas = np.asarray(reference_in), own_areas(phi, reference_in, group=group)
    own_group = np.arange(len(inside)) if group is None else np.unique(group, return_inverse=True)[1]
    means = np.asarray(phi).mean(axis=1)
    least = norm.isf(alpha / max(1, len(areas)))
    borne_out = (_excess(inside[:, k], means[:, k], own_group) > least for k in areas)
    return own_areas_said(areas.values()) if areas and not any(borne_out) else ""


def _excess(inside: NDArray[np.integer], values: NDArray[np.floating], group: NDArray[np.int64]) -> float:
    """By how many standard errors the rank sum of what is inside exceeds its mean; groups are independent, not rows.

    The variance is the sum of the groups' squared sums (Liang and Zeger 1986), about the mean of no relation: where
    there is one it is too large, which passes less.
    """
    ranks = rankdata(values)
    by_group = np.bincount(group, weights=(inside - inside.mean()) * (ranks - ranks.mean()))
    spread = float(np.sqrt((by_group**2).sum()))
    return float(by_group.sum()) / spread if spread else 0.0


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


def _target_betrayal(
    member: NDArray[np.integer], inside: NDArray[np.integer], level: float, group: Group, names: Sequence[str]
) -> str:
    """Whether the references tell the members of the target, all by their number or one alone."""
    counts = {f"of the target {NUMBER}": inside.sum(axis=1, dtype=np.int64)}
    alone = {f"of the target the training set of {name}": inside[:, k] for k, name in enumerate(names)}
    found = (_betrayal(member, count, level, group, told) for told, count in (counts | alone).items())
    return next(filter(None, found), "")


def _betrayal(
    member: NDArray[np.integer], count: NDArray[np.integer], level: float, group: Group, told: str
) -> str:
    """Whether the number of IN references tells the membership of a target, (n_samples,) each."""
    if len(np.unique(member)) < 2:  # a reference of other data plays no target
        return ""
    area = _area(member, count, level, group)
    if not area.defined or area.low <= 0.5 <= area.high:
        return ""
    return (
        f"{told} tells the members with AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f}), which must "
        "cover 0.5"
    )


def _area(member: NDArray[np.integer], scores: NDArray[np.number], level: float, group: Group) -> Estimate:
    """AUC, with the interval of as many samples as are independent."""
    effects = design_effects(member, group, cross_fitted=False)
    return bounded(partial(auc, level=level), *views(member, scores, effects))


def _keys(inside: NDArray[np.bool_]) -> list[bytes]:
    """Each column as bytes."""
    return [column.tobytes() for column in np.packbits(inside, axis=0).T]
