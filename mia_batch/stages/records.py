"""Which samples each attack claims to be members: records.csv, beside the summary."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.grouping import twins
from mia_batch.inputs import NO_GROUP
from mia_batch.metrics.records import Claims, Exposure, claims, fewest_claims, highest_rows, ranks
from mia_batch.report.records import AttackColumns, write_records
from mia_batch.report.summary import ClaimsSummary, ExposedSummary, RecordsSummary
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import ReportConfig

log = logging.getLogger(__name__)
N_EXPOSED = 20  # members that the summary names
Chosen = NDArray[np.int64] | slice
NOTHING: Mapping[str, NDArray[np.float64]] = MappingProxyType({})


@dataclass(frozen=True)
class Records:
    """What the rows of records.csv have: columns of the samples, columns of each attack, and what is said of both."""

    samples: Mapping[str, NDArray[Any] | None]
    attacks: Mapping[str, AttackColumns]
    summary: RecordsSummary


def make_records(
    report: ReportConfig, path: Path, features: Features, results: Mapping[str, AttackResult],
    exposure: Mapping[str, NDArray[np.float64]] = NOTHING,
) -> RecordsSummary | None:
    """Write records.csv of the attacks that have scores; without rows, remove that of an earlier reduction.

    Arguments as of `read_records`, and the file.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    if not report.records:
        path.unlink(missing_ok=True)
        return None
    found = read_records(report, features, results, exposure)
    write_records(path, found.samples, found.attacks)
    summary = found.summary
    if summary.n_rows < summary.n_samples:
        told = f"the {summary.n_rows} samples of the highest scores of {summary.n_samples}"
        log.info("%s: %s (report.records)", path, told)
    return summary


def read_records(
    report: ReportConfig, features: Features, results: Mapping[str, AttackResult],
    exposure: Mapping[str, NDArray[np.float64]] = NOTHING,
) -> Records:
    """What is said of each sample, of the attacks that have scores.

    What is held of each attack are the rows of the file, not all samples.

    Args:
        report: how many rows there are, and the share of false claims.
        features: of the samples, n_samples rows.
        results: of the attacks, over the same rows.
        exposure: what the checkpoints of the training tell of each sample, (n_samples,), by column.
    """
    attacks = {name: result for name, result in results.items() if not result.reason}
    n_samples, rows = len(features.member), _chosen(attacks, len(features.member), report.records)
    columns, counts, exposed = {}, {}, Exposure(n_samples)
    for name, result in attacks.items():
        found = _claims(result, report.fdr)
        columns[name] = _columns(result, found, rows)
        member = result.scored(result.member)[found.claimed] == 1
        counts[name] = ClaimsSummary(members=int(member.sum()), nonmembers=int((~member).sum()))
        last = ranks(result.scored(result.scores), last=True)
        exposed.add(*(_over_all(result, column) for column in (last, found.claimed, found.p)))
    known = _samples(features, rows) | {name: column[rows] for name, column in exposure.items()}
    return Records(known, columns, RecordsSummary(
        fdr=report.fdr, n_rows=len(features.member[rows]), n_samples=n_samples, fewest=_fewest(attacks, report.fdr),
        claimed=counts, exposed=tuple(_exposed(features, exposed, list(attacks))),
    ))  # fmt: skip


def _exposed(features: Features, exposure: Exposure, attacks: Sequence[str]) -> Iterator[ExposedSummary]:
    for row in exposure.most(features.member, N_EXPOSED):
        yield ExposedSummary(
            split=str(features.split[row]), sample_index=int(features.sample_index[row]),
            sample_id=None if features.sample_id is None else features.sample_id[row].decode("utf-8"),
            label=None if features.label is None else int(features.label[row]),
            n_claims=int(exposure.n_claims[row]), rank=int(exposure.rank[row]),
            attack=attacks[exposure.attack[row]], p=float(exposure.p[row]),
        )  # fmt: skip


def _chosen(attacks: Mapping[str, AttackResult], n_samples: int, most: int) -> Chosen:
    """The rows of the file."""
    if n_samples <= most:
        return slice(None)
    last = (ranks(result.scored(result.scores), last=True) for result in attacks.values())
    over_all = (_over_all(result, each) for result, each in zip(attacks.values(), last, strict=True))
    return highest_rows(over_all, n_samples, most)


def _claims(result: AttackResult, fdr: float) -> Claims:
    return claims(*(result.scored(column) for column in (result.member, result.scores, result.scored_by)), q=fdr)


def _fewest(attacks: Mapping[str, AttackResult], fdr: float) -> int | None:
    """All attacks score the same rows."""
    first = next(iter(attacks.values()), None)
    if first is None:
        return None
    return fewest_claims(first.scored(first.member), first.scored(first.scored_by), q=fdr)


def _columns(result: AttackResult, found: Claims, rows: Chosen) -> AttackColumns:
    return AttackColumns(
        result.evaluated[rows], result.scores[rows],
        *(_over_all(result, column)[rows] for column in (found.p, found.claimed, ranks(result.scored(result.scores)))),
    )  # fmt: skip


def _over_all(result: AttackResult, column: NDArray[Any]) -> NDArray[Any]:
    """A column of the scored rows, over all rows; 0 where there is no score."""
    scored = result.evaluated
    if scored.all():
        return column
    found = np.zeros(len(scored), dtype=column.dtype)
    found[scored] = column
    return found


def _samples(features: Features, rows: Chosen) -> dict[str, NDArray[Any] | None]:
    """What is known of the samples, by column."""
    group = None if features.group is None else features.group[rows]
    known: dict[str, NDArray[Any] | None] = {
        "sample_index": features.sample_index[rows], "split": features.split[rows],
        "class": None if features.label is None else features.label[rows],
        "group": None if group is None or (group == NO_GROUP).all() else _named(features, group, rows),
    }  # fmt: skip
    known |= {} if features.sample_id is None else {"sample_id": features.sample_id[rows]}
    twin = twins(features.content, features.member)
    known |= {"twin": twin[rows].astype(np.int8)} if twin.any() else {}
    return known | {"member": features.member[rows]}


def _named(features: Features, group: NDArray[np.int64], rows: Chosen) -> NDArray[Any]:
    """Names of groups, and nothing where none is declared; numbers in a run of a version that kept no names."""
    if features.group_name is not None:
        return features.group_name[rows]
    found = group.astype(object)
    found[group == NO_GROUP] = None
    return found
