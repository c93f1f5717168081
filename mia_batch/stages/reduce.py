"""Turn the attacks' scores into metrics, a summary and the verdict.

Exit code 0 no leak above the gate's levels, 3 leak, 4 inconclusive or not evaluable, 2 bad input.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import BLIND, INCLUSION_DOUBT, AttackResult, taken
from mia_batch.attacks.grouping import design_effects, twins
from mia_batch.attacks.trajectories import lt_iqr
from mia_batch.data.selection import canaries
from mia_batch.errors import InputError
from mia_batch.files import sha256, write_text
from mia_batch.metrics.base import INDEPENDENT, Effects, Estimate, UndefinedMetricWarning
from mia_batch.metrics.epsilon import out_of_fold_decisions, out_of_fold_ranks
from mia_batch.metrics.registry import evaluate
from mia_batch.process.exit_codes import BY_OUTCOME
from mia_batch.process.progress import Progress
from mia_batch.report.build import build_summary, with_checks, with_counts, with_facts
from mia_batch.report.evidence import Evidence
from mia_batch.report.junit import to_junit
from mia_batch.report.media import shell, terminal
from mia_batch.report.page import to_page
from mia_batch.report.summary import Summary, to_csv, to_json
from mia_batch.report.tables import has_colours
from mia_batch.report.text import full_text
from mia_batch.rundir.claim import in_force_with, put_in_force
from mia_batch.rundir.crashes import refuse_crashed
from mia_batch.rundir.features import Features, read_features
from mia_batch.rundir.identity import features_digest, mark_of
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack
from mia_batch.rundir.state import accepted_marks
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import Config
from mia_batch.signals import signal_columns
from mia_batch.stages.arguments import forget_verdict, load_run
from mia_batch.stages.checks import self_checks
from mia_batch.stages.curves import over_training
from mia_batch.stages.evaluable import look_at_model
from mia_batch.stages.evidence import make_evidence, not_tried
from mia_batch.stages.groups import groups_of
from mia_batch.stages.records import make_records
from mia_batch.stages.slices import look_at_slices
from mia_batch.stages.trajectory_columns import Checkpoint, earlier_checkpoints, losses_of
from mia_batch.verdict.cautions import AUGMENTED, inclusion_caution
from mia_batch.verdict.detectable import Detectable, detectable
from mia_batch.verdict.duplicates import IMPORTED, NOT_KNOWN, duplicates_caution
from mia_batch.verdict.evaluability import UNKNOWN, Evaluability, gap_exceeds, low_accuracy, not_known, too_coarse
from mia_batch.verdict.gate import decide
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.missed import Looks, halves, missed
from mia_batch.verdict.privacy import (
    PrivacyAudit,
    delta_of,
    judge_claim,
    privacy,
    randomised_samples,
    with_privacy,
)
from mia_batch.verdict.rules import Gate, Verdict
from mia_batch.verdict.sentences import of_data

log = logging.getLogger(__name__)
Begins = Callable[[str], None]


def ignore(_name: str) -> None:
    """Whom nobody watches tells this function what begins."""


def read_results(
    config: Config, paths: RunPaths, manifest: Manifest, features: Features
) -> dict[str, AttackResult]:
    """Every configured attack's result, in the order of the configuration.

    Raises:
        InputError: results are missing, damaged, of other features or disagree in the rows that they score.
    """
    names = [method.method for method in config.attack.methods]
    missing = [name for name in names if not paths.attack(name).exists()]
    if missing:
        raise InputError([_missing(config, paths, name) for name in missing])
    results: dict[str, AttackResult] = {}
    problems: list[str] = []
    for name in names:
        result = _read_result(paths, name)
        problems += [line] if (line := _foreign(result, name, paths, manifest, features)) else []
        results[name] = _sharing(result, features.member, next(iter(results.values()), None))
    if problems or (problems := _other_rows(results, paths)):
        raise InputError(problems)
    return results


def _sharing(result: AttackResult, member: NDArray[np.int8], first: AttackResult | None) -> AttackResult:
    """The result, with the arrays that others have too in memory once."""
    shared: dict[str, Any] = {"member": member} if np.array_equal(result.member, member) else {}
    if first and np.array_equal(result.scored_by, first.scored_by):
        shared["scored_by"] = first.scored_by
    return replace(result, **shared)


def read_blind(paths: RunPaths, manifest: Manifest, features: Features) -> AttackResult | None:
    """The blind baseline's result; None if there is none, as of features of the version before.

    Raises:
        InputError: it is missing, damaged, or of other features or settings.
    """
    if not paths.attack(BLIND).exists():
        if features.content is None and not features.imported:
            return None
        raise InputError(f"{paths.attack(BLIND)}: must be there beside the attacks; run attack again")
    result = _read_result(paths, BLIND)
    if problem := _foreign(result, BLIND, paths, manifest, features):
        raise InputError(problem)
    return result


def _read_result(paths: RunPaths, name: str) -> AttackResult:
    """Its reason in one line: it stands in tables and sentences."""
    result = read_attack(paths.attack(name))
    return replace(result, reason=" ".join(result.reason.split()))


def _other_rows(results: Mapping[str, AttackResult], paths: RunPaths) -> list[str]:
    """A line for each attack that scores other rows than the first; one that is not evaluable scores none."""
    rows = {name: result.evaluated for name, result in results.items() if not result.reason}
    first = next(iter(rows), "")
    return [
        f"{paths.attack(name)}: evaluated: must be the rows that {first} scores; remove it and run attack again"
        for name in rows if not np.array_equal(rows[name], rows[first])
    ]  # fmt: skip


def _missing(config: Config, paths: RunPaths, name: str) -> str:
    return f"{paths.attack(name)}: must be there for method {name}; make it with: {_command(config, paths, name)}"


def _command(config: Config, paths: RunPaths, name: str) -> str:
    changes = [word for change in config.changes for word in ("--set", change)]
    return shell("python", "jobs/attack.py", str(config.path), "--out", str(paths.root), "--method", name, *changes)


def _foreign(
    result: AttackResult, name: str, paths: RunPaths, manifest: Manifest, features: Features
) -> str | None:
    path = paths.attack(name)
    if result.method != name:
        return f"{path}: method: must be {name}, got {result.method}"
    ours = mark_of(result.provenance) in accepted_marks(paths, manifest)[name]
    if not ours or not np.array_equal(result.member, features.member):
        rule = f"must come from {paths.features} and this config"
        return f"{path}: {rule}, got a result of another run or of other settings; run attack again"
    return None


def _effects(result: AttackResult, group: NDArray[np.integer] | None) -> Effects:
    rows = result.evaluated
    own = None if group is None else taken(group, rows)
    return design_effects(result.scored(result.member), own, cross_fitted=bool(result.scored_by.max() > 0))


def evaluate_all(
    results: Mapping[str, AttackResult], group: NDArray[np.integer] | None = None, begins: Begins = ignore
) -> dict[str, dict[str, Estimate]]:
    """Metrics of each evaluable method on rows that it was not fitted on; what has no value is logged by method.

    Args:
        results: by method.
        group: rows of one number belong together, (n_samples,).
        begins: told what begins.
    """
    found = {}
    for name, result in results.items():
        begins(f"metrics of {name}")
        if result.reason:
            said = "not run, because" if result.not_run else "not evaluable:"
            log.log(logging.INFO if result.not_run else logging.WARNING, "%s: %s %s", name, said, result.reason)
            continue
        with undefined_logged(name):
            found[name] = evaluate(
                *(result.scored(column) for column in (result.member, result.predicted, result.scores)),
                effects=_effects(result, group),
            )
    return found


@contextmanager
def undefined_logged(name: str) -> Iterator[None]:
    """Log metrics that have no value, by method."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UndefinedMetricWarning)
        yield
    for warning in caught:
        log.warning("%s: %s", name, warning.message)


@dataclass(frozen=True)
class Conclusion:
    """What attacks have said, as a verdict, as numbers and as the summary of both."""

    verdict: Verdict
    metrics: dict[str, dict[str, Estimate]]  # by attack that is evaluable, and name
    summary: Summary
    effects: dict[str, Effects]  # how many samples count as one, by attack that is evaluable


def summarise(config: Config, paths: RunPaths, begins: Begins = ignore) -> tuple[Summary, Evidence]:
    """Read the run's files, write records.csv from them, build the summary and what the page draws beside it.

    Args:
        config: of the audit.
        paths: of its run.
        begins: told what begins, as of `conclude`, and records.csv and the page.
    """
    manifest = in_force_with(paths, config)
    refuse_crashed(paths)
    features = read_features(paths.features)
    results = read_results(config, paths, manifest, features)
    blind = read_blind(paths, manifest, features)
    put_in_force(paths, manifest)
    origin = {**manifest.as_json(), "identity": features_digest(manifest), "seeds": {"attack": config.attack.seed}}
    command = _command(config, paths, BLIND)
    found = conclude(config, features, results, blind, origin=origin, command=command, begins=begins)
    begins(paths.records.name)
    exposure = exposure_of(config, Checkpoint(paths, manifest, features))
    records = make_records(config.report, paths.records, features, results, exposure)
    evidence = make_evidence(config, features, results, found.effects, records)
    begins(paths.page.name)
    curves = over_training(paths, manifest, found.summary, config.attack.trajectory)
    return found.summary.model_copy(update={"records": records}), replace(evidence, curves=curves)


def exposure_of(config: Config, own: Checkpoint) -> dict[str, NDArray[np.float64]]:
    """What the checkpoints of the training say of how exposed each sample is, by column of records.csv.

    Raises:
        InputError: as of `trajectory_columns`.
    """
    if not config.attack.trajectory or not config.report.records:
        return {}
    return {"lt_iqr": lt_iqr(losses_of(own, [*earlier_checkpoints(config, own), own])).values}


def conclude(
    config: Config, features: Features, results: Mapping[str, AttackResult], blind: AttackResult | None, *,
    origin: Mapping[str, Any], command: str, begins: Begins = ignore,
) -> Conclusion:
    """The verdict of an audit, and its summary. No file is read but index files of `data.canaries` and
    `report.slices`.

    Args:
        config: of the audit.
        features: of the samples, n_samples rows.
        results: of every configured attack, over the same rows.
        blind: the blind baseline's; None if it was not made.
        origin: the summary's provenance.
        command: what makes the baseline.
        begins: told what begins: metrics and epsilon of each attack, and the self-checks.
    """
    twin, group = twins(features.content, features.member), groups_of(features)
    evaluations = evaluate_all(results, group, begins)
    begins("self-checks")
    checks = self_checks(
        config, features, twin, results, blind, effects=_effects(blind, group) if blind else INDEPENDENT,
        command=command, group=group,
    )  # fmt: skip
    model, gate = look_at_model(config, features), config.gate.gate()
    attacks = {name: scored(results[name], estimates, gate, group) for name, estimates in evaluations.items()}
    made = _judged(results)
    trusted = not model.reasons and not (checks.baseline and checks.baseline.confounds(True))
    privacy_audit = audit_privacy(config, features, results, attacks, not_evaluable=not trusted, begins=begins)
    verdict = with_privacy(decide(
        attacks, gate, methods=list(made),
        reasons={name: result.reason for name, result in made.items() if result.reason},
        not_evaluable=" ".join(model.reasons),
        too_weak=lambda: (
            gap_exceeds(model, gate) or not_known(model) or too_coarse(model)
            or missed(attacks, _looks(features, next(made[name] for name in attacks), group), gate)
        ),
        cautions=(
            *_cautions(config, features, twin, model), *_not_run(results), *_of_references(results), *checks.cautions,
        ),
        baseline=checks.baseline,
    ), privacy_audit)  # fmt: skip
    summary = with_checks(build_summary(
        results, evaluations, verdict, gate, origin, augment_members=config.data.augment_members, model=model,
        privacy=privacy_audit,
    ), checks)  # fmt: skip
    with named_in(config.path):
        slices = look_at_slices(config.report, features, results, group)
    detectable = _detectable(attacks, made, gate, verdict)
    summary = _with_facts(config, features, summary.model_copy(update={"slices": slices}), detectable)
    effects = {name: attack.effects for name, attack in attacks.items()}
    return Conclusion(verdict, evaluations, _counted(summary, features, twin, group), effects)


def _with_facts(config: Config, features: Features, summary: Summary, detectable: Detectable | None) -> Summary:
    """With what the audit could find, what it has not tried, and what the configuration says of the model."""
    return with_facts(
        summary, detectable=detectable, not_tried=not_tried(config, features), parameters=config.dossier.parameters,
        training_records=config.dossier.training_records,
    )  # fmt: skip


def _counted(
    summary: Summary, features: Features, twin: NDArray[np.bool_], group: NDArray[np.integer] | None
) -> Summary:
    """With the samples that have a twin, and the groups of the others; where nothing is known of them, as it is."""
    if group is None:
        return summary
    n_twins = None if features.content is None else int(twin.sum())
    return with_counts(summary, n_twins=n_twins, n_groups=len(np.unique(group[~twin])))


def _detectable(
    attacks: Mapping[str, Scored], made: Mapping[str, AttackResult], gate: Gate, verdict: Verdict
) -> Detectable | None:
    """None where the verdict does not go by the gate's rules."""
    first = next(iter(attacks.values()), None)
    if first is None or gate.by_joint_alone or not verdict.notes:
        return None
    (m, n), effects = first.sides, first.effects
    return detectable(gate, n_attacks=len(made), n_members=m, n_nonmembers=n, effects=effects)


def _looks(features: Features, result: AttackResult, group: NDArray[np.integer] | None) -> Looks:
    """What the model says of the labels of the rows that attacks score, and halves of these rows."""
    if features.logits is None or features.label is None:
        columns = {"threshold_loss": -features.loss.astype(np.float64)}
    else:
        found = signal_columns(features.logits, features.label, ("correctness", "confidence"))
        columns = {"correctness": found["correctness"], "threshold_confidence": found["confidence"]}
    rows = result.evaluated
    own = None if group is None else taken(group, rows)
    return Looks(
        {name: taken(column, rows) for name, column in columns.items()}, halves(int(rows.sum()), own),
        _effects(result, group),
    )  # fmt: skip


def _judged(results: Mapping[str, AttackResult]) -> Mapping[str, AttackResult]:
    """What the gate looks at: not the attacks that these samples do not allow, unless there are no others."""
    return {name: result for name, result in results.items() if not result.not_run} or results


def _not_run(results: Mapping[str, AttackResult]) -> list[str]:
    """The attacks that the samples do not allow, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, result in results.items():
        if result.not_run:
            by_reason.setdefault(result.reason, []).append(name)
    return [f"not run, because {reason}: {', '.join(names)}." for reason, names in by_reason.items()]


def _of_references(results: Mapping[str, AttackResult]) -> list[str]:
    """What references say against what they are stated to be trained on."""
    kept = {name: result.provenance.get(INCLUSION_DOUBT, "") for name, result in results.items()}
    caution = inclusion_caution({name: doubt for name, doubt in kept.items() if doubt})
    return [caution] if caution else []


def audit_privacy(
    config: Config, features: Features, results: Mapping[str, AttackResult], attacks: Mapping[str, Scored], *,
    not_evaluable: bool, begins: Begins = ignore,
) -> PrivacyAudit:
    """Figures of epsilon of the evaluable attacks, and what they say of the configuration's claim.

    Raises:
        InputError: a canary is neither member nor non-member, or its index file is bad.
    """
    data, gate, claim = config.data, config.gate.gate(), config.audit.claim()
    with named_in(config.path):
        coins = canaries(data.canaries, features.split, features.sample_index) | data.randomised
    rows = next((results[name].evaluated for name in attacks), np.zeros(len(coins), dtype=bool))
    randomised = randomised_samples(coins, features.member, features.split, rows)
    found = {}
    for name, attack in attacks.items():
        begins(f"epsilon of {name}")
        with undefined_logged(name):
            found[name] = privacy(ranked(attack, results[name]), delta=delta_of(gate), randomised=randomised)
    judged = judge_claim(
        claim, attacks, randomised, n_attacks=len(_judged(results)), alpha=gate.alpha, not_evaluable=not_evaluable
    ) if claim else None  # fmt: skip
    return PrivacyAudit(found, randomised, judged)


def ranked(attack: Scored, result: AttackResult) -> Scored:
    """With the ranks of cross-fitted scores, which of many samples take much memory: of one attack at a time."""
    scored_by = result.scored(result.scored_by)
    if scored_by.max() == 0:
        return attack
    return replace(attack, ranks=out_of_fold_ranks(attack.member, attack.scores, scored_by))


def _cautions(
    config: Config, features: Features, twin: NDArray[np.bool_], model: Evaluability
) -> list[str]:
    """What to know of the samples."""
    said = [*of_data(config.data.borrowed, config.data.nonmembers_used_for)]
    said += [AUGMENTED] if config.data.augment_members else []
    said += [low] if (low := low_accuracy(model)) else []
    said += model.labels
    said += [] if model.known or model.reasons else [UNKNOWN]
    if features.by_outputs or (features.content is None and features.imported):
        said += [IMPORTED]
    if features.content is None:
        return said if features.imported else [*said, NOT_KNOWN]
    caution = duplicates_caution(twin, features.member, outputs=features.by_outputs)
    return [*said, caution] if caution else said


def scored(
    result: AttackResult, estimates: Mapping[str, Estimate], gate: Gate, group: NDArray[np.integer] | None = None
) -> Scored:
    """What the gate is told of an attack. Of cross-fitted scores it looks at the extreme ones too, for epsilon."""
    scores, scored_by = result.scored(result.scores), result.scored(result.scored_by)
    member, predicted = result.scored(result.member) == 1, result.scored(result.predicted) == 1
    found = Scored(member, predicted, scores, estimates, effects=_effects(result, group))
    if scored_by.max() == 0:
        return found
    return replace(
        found, extreme=out_of_fold_decisions(member, scores, scored_by, delta=delta_of(gate)),
        one_split=scored_by == 0,
    )  # fmt: skip


def _digests(paths: RunPaths) -> dict[str, str]:
    """SHA-256 of what is written beside summary.json, by name."""
    return {file.name: sha256(file) for file in (paths.summary_csv, paths.records, paths.page) if file.exists()}


def reduce(args: argparse.Namespace) -> int:
    """The whole stage; returns the exit code."""
    forget_verdict(args)
    config, paths = load_run(args)
    n_steps = 2 * len(config.attack.methods) + 3
    with Progress(n_steps, what="reduce", unit="steps", summed_up=False) as progress:
        summary, evidence = summarise(config, paths, progress.begin)
        write_text(paths.summary_csv, to_csv(summary))
        write_text(paths.page, to_page(summary, evidence))
    if args.junit:
        write_text(Path(args.junit), to_junit(summary))
    summary = summary.model_copy(update={"files": _digests(paths)})
    write_text(paths.summary_json, to_json(summary))  # last: it is what says that the stage is done
    width = shutil.get_terminal_size((80, 24)).columns
    print(full_text(summary, config.report.metrics, width=width, colours=has_colours()))
    print(f"\nReport: {terminal(str(paths.page))}", flush=True)
    return BY_OUTCOME[summary.verdict.outcome]
