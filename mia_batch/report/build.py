"""From an audit's results to its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.fewer_references import OVER_REFERENCES
from mia_batch.metrics.base import LEVEL, Estimate
from mia_batch.metrics.registry import METRICS
from mia_batch.report.summary import (
    SCHEMA,
    BlindSummary,
    BoundSummary,
    CandidateSummary,
    ChecksSummary,
    DetectableSummary,
    EpsilonSummary,
    FactsSummary,
    GuessesSummary,
    MethodSummary,
    MetricSummary,
    ModelSummary,
    PermutationSummary,
    RandomisedSummary,
    SamplesSummary,
    SideSummary,
    Summary,
    VerdictSummary,
    plain,
)
from mia_batch.verdict.checks import Checks
from mia_batch.verdict.detectable import PASSING, POWER, Detectable
from mia_batch.verdict.evaluability import Evaluability, Side
from mia_batch.verdict.privacy import Privacy, PrivacyAudit, Randomised
from mia_batch.verdict.rules import Gate, Verdict

N_CANDIDATES = 10  # of a grid search, that the summary has


def build_summary(
    results: Mapping[str, AttackResult],
    evaluations: Mapping[str, Mapping[str, Estimate]],
    verdict: Verdict,
    gate: Gate,
    provenance: Mapping[str, Any],
    *,
    augment_members: bool,
    model: Evaluability | None = None,
    privacy: PrivacyAudit | None = None,
) -> Summary:
    """Everything that the audit found, and from what.

    Args:
        results: by method; all that are evaluable score the same rows.
        evaluations: metrics by method, of those that are evaluable.
        verdict: the audit's outcome by `gate`.
        gate: what decides.
        provenance: resolved config, SHA-256 of checkpoint and data, versions, launches, seeds.
        augment_members: whether members, and only they, were cropped and flipped.
        model: how well the model itself does.
        privacy: what is said of epsilon.
    """
    scored = next((result for result in results.values() if not result.reason), None)
    return Summary(
        schema=SCHEMA,
        verdict=VerdictSummary(
            **asdict(verdict), rule=gate.joint, rules=gate.rules, alpha=gate.alpha, tutorial=gate.tutorial
        ),
        level=LEVEL,
        samples=_samples(scored),
        augment_members=augment_members,
        methods={
            name: _method(result, evaluations.get(name, {}), privacy.by_method.get(name) if privacy else None)
            for name, result in results.items()
        },
        provenance=plain(provenance),
        audited=_audited(model) if model else None,
        randomised=_randomised(privacy.randomised) if privacy and privacy.randomised else None,
        claim=privacy.claim if privacy else None,
    )


def with_checks(summary: Summary, checks: Checks) -> Summary:
    """The summary with what the audit has checked of itself."""
    found, test = checks.baseline, checks.permutation
    figures = {
        name: _metric(estimate) if (estimate := getattr(found, name, None)) else None
        for name in ("auc", "best_auc", "difference")
    }
    blind = BlindSummary(
        **figures, best=found.best if found else None, statistics=found is not None and found.statistics,
        confounded=found is not None and found.confounds(summary.verdict.leak), reason=checks.unchecked or None,
    )  # fmt: skip
    permutation = PermutationSummary(
        p_value=plain(test.p_value), auc=plain(test.statistic), best=None if test.reason else checks.attacks[test.best],
        n_permutations=test.n_permutations, reason=test.reason, n_drawn=test.n_drawn,
    )  # fmt: skip
    block = ChecksSummary(blind=blind, permutation=permutation, parity=checks.parity)
    return summary.model_copy(update={"checks": block})


def with_counts(summary: Summary, *, n_twins: int | None, n_groups: int) -> Summary:
    """The summary with how many samples have a twin on the other side, and how many groups the others make."""
    samples = summary.samples.model_copy(update={"n_twins": n_twins, "n_groups": n_groups})
    return summary.model_copy(update={"samples": samples})


def with_facts(
    summary: Summary, *, detectable: Detectable | None, not_tried: Mapping[str, str], parameters: int | None = None,
    training_records: int | None = None,
) -> Summary:
    """The summary with what the audit could have found, facts of model and data, and attacks that were not tried.

    Args:
        summary: with its provenance.
        detectable: None where no rule is about balanced accuracy.
        not_tried: the reason, by attack.
        parameters: of the model, as the configuration states it; what the run has counted goes before.
        training_records: as the configuration states it.
    """
    return summary.model_copy(update={
        "detectable": _detectable(detectable) if detectable else None,
        "facts": _facts(summary, parameters, training_records), "not_tried": dict(not_tried),
    })  # fmt: skip


def _detectable(found: Detectable) -> DetectableSummary:
    never = found.needed is not None and math.isinf(found.needed)
    return DetectableSummary(
        effect=found.effect, power=POWER, needed=plain(found.needed), passing=PASSING, never=never
    )  # fmt: skip


def _facts(summary: Summary, stated: int | None, stated_records: int | None) -> FactsSummary:
    """The network's parameters are of the last launch that has counted them."""
    launches = summary.provenance.get("launches", [])
    counted = [launch["parameters"] for launch in launches if launch.get("parameters")]
    members = summary.checks.parity.configured[0] if summary.checks else summary.samples.n_members
    parameters = counted[-1] if counted else stated
    records = stated_records or members or None
    return FactsSummary(
        parameters=parameters, parameters_stated=not counted and parameters is not None,
        training_records=records, training_records_stated=stated_records is not None,
        parameters_per_record=parameters / records if parameters and records else None,
    )  # fmt: skip


def _audited(model: Evaluability) -> ModelSummary:
    return ModelSummary(
        members=_side(model.members), nonmembers=_side(model.nonmembers), reasons=model.reasons,
        weak_model=model.expected, n_rounded=model.n_rounded, known=model.known,
    )  # fmt: skip


def _side(side: Side) -> SideSummary:
    return SideSummary(**plain(asdict(side)))


def _samples(result: AttackResult | None) -> SamplesSummary:
    if result is None:
        none = "no attack is evaluable"
        return SamplesSummary(n_fit=0, n_scored=0, n_members=0, n_nonmembers=0, base_rate=None, base_rate_reason=none)
    n_members = int((result.evaluated & (result.member == 1)).sum())
    n_scored = int(result.evaluated.sum())
    return SamplesSummary(
        n_fit=_n_fit(result), n_scored=n_scored, n_members=n_members,
        n_nonmembers=n_scored - n_members, base_rate=n_members / n_scored,
    )  # fmt: skip


def _n_fit(result: AttackResult) -> int:
    """Rows that fitted a model, at most: the version before had all that it did not score."""
    return int(result.provenance.get("n_fit", (~result.evaluated).sum()))


def _randomised(found: Randomised) -> RandomisedSummary:
    return RandomisedSummary(
        n_members=found.n_members, n_nonmembers=found.n_nonmembers, n_scored=int(found.scored.sum()),
        unfair=found.unfair,
    )  # fmt: skip


def _epsilon(found: Privacy) -> EpsilonSummary:
    return EpsilonSummary(
        delta=found.delta,
        figures={name: BoundSummary(**plain(asdict(figure))) for name, figure in found.figures.items()},
        guesses=GuessesSummary(**asdict(found.guesses)) if found.guesses else None,
    )


def _method(result: AttackResult, estimates: Mapping[str, Estimate], privacy: Privacy | None) -> MethodSummary:
    lifted = ("n_nonconverged", "seconds", OVER_REFERENCES)
    return MethodSummary(
        metrics=_no_metrics(_why_nothing(result)) if result.reason else {n: _metric(e) for n, e in estimates.items()},
        best_params=plain(result.best_params),
        cv_score=plain(result.best_score),
        cv_score_reason=_why_no_cv_score(result),
        n_candidates=len(result.cv_results.get("params", ())),
        n_fit=0 if result.reason else _n_fit(result),
        n_eval=int(result.evaluated.sum()),
        n_nonconverged=plain(result.provenance.get("n_nonconverged")),
        seconds=plain(result.provenance.get("seconds")),
        provenance=plain({name: value for name, value in result.provenance.items() if name not in lifted}),
        reason=result.reason or None,
        not_run=result.not_run,
        over_references=plain(result.provenance.get(OVER_REFERENCES, [])),
        search=tuple(_best_candidates(result.cv_results)),
        epsilon=_epsilon(privacy) if privacy else None,
    )


def _best_candidates(cv_results: Mapping[str, list[Any]]) -> Iterator[CandidateSummary]:
    """The best of a grid by cross-validated accuracy; cross-fitted attacks have searched it once for each split.

    Of a search in rounds the last counts: earlier ones are on fewer samples.
    """
    params, rounds = cv_results.get("params", []), np.asarray(cv_results.get("iter", 0))
    means, stds = (cv_results.get(f"{name}_test_score", [math.nan] * len(params)) for name in ("mean", "std"))
    found: dict[str, list[tuple[float, float]]] = {}
    for i, last in enumerate(np.broadcast_to(rounds == rounds.max(initial=0), len(params))):
        if last:
            found.setdefault(params[i], []).append((means[i], stds[i]))
    scores = {key: tuple(np.mean(values, axis=0)) for key, values in found.items()}
    finite = [key for key in scores if math.isfinite(scores[key][0])]
    for key in sorted(finite, key=lambda each: -scores[each][0])[:N_CANDIDATES]:
        yield CandidateSummary(params=json.loads(key), score=plain(scores[key][0]), std=plain(scores[key][1]))


def _metric(estimate: Estimate) -> MetricSummary:
    return MetricSummary(**plain(vars(estimate)))


def _why_nothing(result: AttackResult) -> str:
    return f"not run, because {result.reason}" if result.not_run else f"not evaluable: {result.reason}"


def _no_metrics(reason: str) -> dict[str, MetricSummary]:
    """The metrics of an attack without scores: every reader finds each, and why it has no value."""
    none = MetricSummary(value=None, low=None, high=None, reason=reason)
    return dict.fromkeys(METRICS, none)


def _why_no_cv_score(result: AttackResult) -> str | None:
    if math.isfinite(result.best_score):
        return None
    return _why_nothing(result) if result.reason else (
        "no candidate of the grid search has a finite score" if result.cv_results else "no grid was searched"
    )
