"""`audit`: what the stages attack and reduce do, of arrays in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.api.arrays import NAMES, AuditRows, read_rows, slice_columns
from mia_batch.api.references import read_references
from mia_batch.api.result import AuditResult
from mia_batch.api.settings import ATTACKS, OF_DATA, OF_REPORT, OPTIONS, attack_section, make_config, n_cores
from mia_batch.attacks.base import BLIND, REFERENCE_COLUMNS
from mia_batch.errors import InputError
from mia_batch.rundir.manifest import versions
from mia_batch.settings.schema import CLASS, Config
from mia_batch.stages.attack import EMPTY, results_in_memory
from mia_batch.stages.records import read_records
from mia_batch.stages.reduce import conclude

GIVEN_BY_KEYWORD = tuple(name for name in NAMES if name not in ("logits", "labels"))


def audit(
    logits: Any = None, labels: Any = None, member: Any = None, *, nonmember: Any = None, attacks: Any = None,
    gate: Any = None, n_jobs: int = -1, **options: Any,
) -> AuditResult:
    """Whether a model's answers tell who was in its training data.

    Two forms: `audit(logits, labels, member)` with a row for each sample, and
    `audit(member=(logits, labels), nonmember=(logits, labels))`. A side may also be a mapping, such as
    `{"probabilities": p, "labels": y, "groups": g}`. Arrays may be NumPy's, lists, or tensors of MindSpore or PyTorch.

    Args:
        logits: shape (n_samples, n_classes), or (n_samples,) where one tells two classes apart; taken as float32.
        labels: true classes, integers, shape (n_samples,).
        member: 1 or True for samples that the model was trained on, else 0, shape (n_samples,).
        nonmember: in the second form, the samples that the model has never seen.
        attacks: names, or a mapping of names to grids, or a list of mappings with `method` and `params` as
            `attack.methods` of a configuration; None for `correctness`, `threshold_loss`, `threshold_modified_entropy`
            and `lr`.
        gate: "tutorial", or a mapping with the keys of a configuration's section `gate`; None for the default rules.
        n_jobs: cores; -1 for all that this process may use. With 1 no other process is started.
        options: `probabilities` instead of logits, likewise, or `losses`: cross entropies, (n_samples,), of which
            attacks that need more are not run. `groups`, integers or words (n_samples,): samples of one group stay
            together; -1 is none. `inputs`, n_samples arrays: equal ones are found by their hash; those on both sides
            are left out, and their statistics go into the baseline without the model. `weak_model=True`: the model is
            weak or untrained on purpose. Any key of a configuration's section `attack` (`seed`, `eval`, `cv`,
            `features`, ...), and `nonmembers_used_for` and `max_duplicates` of `data`. `references`: a pair of their
            outputs, (n_references, n_samples, n_classes), and of 1 where one was trained on a sample, else 0,
            (n_references, n_samples). `slices`: subsets that are looked at too, `{"class": True, "ward": words}`, with
            a value for each sample. `fdr`: at most this share of the records that an attack claims are non-members. In
            the second form `references` and values of `slices` have the members first.

    Returns:
        Verdict, metrics and summary.

    Raises:
        InputError: a ValueError; a line for each problem, with what must be and what was given.
    """
    with named("audit"):
        _check_options(options)
        cores = n_cores(n_jobs)
        given = {name: options.pop(name, None) for name in GIVEN_BY_KEYWORD}
        rows = read_rows({"logits": logits, "labels": labels, **given}, member, nonmember)
        of_data = {key: options.pop(key) for key in OF_DATA if key in options}
        report = {key: options.pop(key) for key in OF_REPORT if key in options}
        more, slices = read_references(options.pop("references", None), rows), report.pop("slices", None) or {}
        weak_model = options.pop("weak_model", False)
        attack = attack_section(ATTACKS if attacks is None else attacks, cores, **options)
        columns = slice_columns(slices, len(rows.features.member))
        report |= {"slices": {CLASS: bool(slices.get(CLASS, False))}}
        config = make_config(attack, gate, weak_model=weak_model, report=report, **of_data)
        return conclude_rows(config, replace(rows, features=replace(rows.features, slices=columns)), cores, more)


def conclude_rows(
    config: Config, rows: AuditRows, n_jobs: int, more: Mapping[str, NDArray[Any]] = EMPTY
) -> AuditResult:
    """Make the attacks on these samples, and say what they say; `more` is what references tell."""
    results = results_in_memory(config, rows.features, n_jobs=n_jobs, more=more)
    blind = results.pop(BLIND)
    found = conclude(config, rows.features, results, blind, origin=_origin(config, rows, more), command="audit")
    records = read_records(config.report, rows.features, results)
    summary = found.summary.model_copy(update={"records": records.summary})
    return AuditResult(found.verdict, found.metrics, summary, results, config.report.metrics, records)


@contextmanager
def named(call: str) -> Iterator[None]:
    """Put the name of what was called before each problem."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{call}: {line}" for line in error.problems) from None


def _check_options(options: Mapping[str, Any]) -> None:
    valid = (*GIVEN_BY_KEYWORD, *OPTIONS)
    if unknown := [name for name in options if name not in valid]:
        raise InputError(f"{name}: unknown option; valid options: {', '.join(valid)}" for name in unknown)


def _origin(config: Config, rows: AuditRows, more: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Where the summary comes from: settings, versions, and SHA-256 of the arrays."""
    arrays = {name: getattr(rows.features, name) for name in ("logits", "loss", "label", "member", "group", "content")}
    arrays |= {name: more[name] for name in REFERENCE_COLUMNS[1:] if name in more}
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        for name, array in arrays.items() if array is not None
    }
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"), "versions": versions(),
        "config": {name: found for name, found in config.resolved().items() if name in ("attack", "gate", "report")},
        "digests": digests, "seeds": {"attack": config.attack.seed},
    }  # fmt: skip
