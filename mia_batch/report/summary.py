"""The summary of an audit: what its file holds, how it is written and read, its JSON schema, and its CSV.

Read by commands that list many audits: nothing here imports SciPy, which takes a second.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from mia_batch import json_text
from mia_batch.errors import InputError, one_line
from mia_batch.files import read_text
from mia_batch.verdict.parity import Parity
from mia_batch.verdict.rules import OUTCOMES, ClaimVerdict, JointRule, MethodVerdict, Rule

SCHEMA: Literal[2] = 2
COLUMNS = ("method", "metric", "value", "low", "high", "reason", "slice")


class _Part(BaseModel):
    # Keys that a later version adds are not a fault of the file.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class MetricSummary(_Part):
    """A metric's value and interval, None where there is none: then `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None

    @model_validator(mode="after")
    def _value_or_reason(self) -> MetricSummary:
        there = [number is not None for number in (self.value, self.low, self.high)]
        if any(there) != all(there) or not (any(there) or self.reason):
            raise ValueError("must have value, low and high, or a reason why they are null")
        return self


class BoundSummary(_Part):
    """A figure of epsilon; None is infinite, or has no number: then `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


class GuessesSummary(_Part):
    """Of a one-run audit: the randomised samples that were scored, those guessed and those guessed right."""

    n_canaries: int
    n_guesses: int
    n_right: int


class EpsilonSummary(_Part):
    """What one attack says of epsilon at `delta`, each figure at the summary's level for itself."""

    delta: float
    figures: dict[str, BoundSummary]
    guesses: GuessesSummary | None  # None where inclusion was not randomised: there are no one-run bounds


class CandidateSummary(_Part):
    """A candidate of a grid search: its cross-validated accuracy, of several searches of the same grid the mean."""

    params: dict[str, Any]
    score: float
    std: float | None  # over folds; of several searches the mean


class FewerReferencesSummary(_Part):
    """What an attack finds with so many of its references: AUC and TPR at an FPR of 1 %, by name."""

    n_references: int
    metrics: dict[str, MetricSummary]


class MethodSummary(_Part):
    """What one attack found; of one that is not evaluable `reason` says why, and no metric has a value."""

    metrics: dict[str, MetricSummary]
    best_params: dict[str, Any]
    cv_score: float | None
    cv_score_reason: str | None = None
    n_candidates: int
    n_fit: int
    n_eval: int
    n_nonconverged: dict[str, int] | int | None
    seconds: float | None
    provenance: dict[str, Any]
    reason: str | None = None
    not_run: bool = False  # with a reason: the samples lack what it needs, and the gate does not look at it
    search: tuple[CandidateSummary, ...] = ()  # the best of its grid, best first
    over_references: tuple[FewerReferencesSummary, ...] = ()  # nested sets, ascending, all of them last
    epsilon: EpsilonSummary | None = None  # None of an attack that is not evaluable, and in a file of before


class SamplesSummary(_Part):
    """How many samples fitted the attacks and scored them."""

    n_fit: int
    n_scored: int
    n_members: int
    n_nonmembers: int
    base_rate: float | None
    base_rate_reason: str | None = None
    n_twins: int | None = None  # of all rows, those whose input is on both sides; None where it is not known
    n_groups: int | None = None  # of the rows without a twin


class VerdictSummary(_Part):
    """The verdict and its gate; `leak` is None where the audit is inconclusive.

    A file of schema 1 has a joint `rule` and none of `rules`, `alpha`, `tutorial`, `notes` and `by_rules`.
    """

    leak: bool | None
    methods: dict[str, MethodVerdict]
    sentence: str
    cautions: tuple[str, ...]
    not_evaluable: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    by_rules: str | None = None  # the outcome of the gate or its rules, where a joint rule or a claim decides
    rule: JointRule | None  # decides instead of `rules`; None without one
    rules: tuple[Rule, ...] = ()
    alpha: float | None = None
    tutorial: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> str:
        """`leak` in a word, as in `OUTCOMES`."""
        return OUTCOMES[self.leak]


class SideSummary(_Part):
    """How well the model does on one side; None without samples of it."""

    n: int
    accuracy: float | None
    loss: float | None


class ModelSummary(_Part):
    """The model's own figures, and why an audit of it means nothing; empty if it does."""

    members: SideSummary
    nonmembers: SideSummary
    reasons: tuple[str, ...]
    weak_model: bool  # on purpose
    n_rounded: int  # probabilities that their type has rounded to 0
    known: bool = True  # False: losses alone do not say whether the model is evaluable


class BlindSummary(_Part):
    """The blind baseline: what tells members from non-members without the model; `reason` says why it was not made."""

    auc: MetricSummary | None
    best: str | None  # attack, of the largest AUC
    best_auc: MetricSummary | None
    difference: MetricSummary | None  # its AUC less the baseline's; `low` allows for the choice among the attacks
    statistics: bool  # whether the baseline has the inputs' statistics, not the labels alone
    confounded: bool
    reason: str | None


class PermutationSummary(_Part):
    """Whether any attack tells members from non-members at all; decides nothing. `reason` says why p is None."""

    p_value: float | None
    auc: float | None  # the largest of the attacks'; of several splits the mean
    best: str | None
    n_permutations: int
    reason: str | None
    n_drawn: int | None = None  # samples that were drawn for it; None where it is of all that were scored


class ChecksSummary(_Part):
    """What the audit has checked of itself."""

    blind: BlindSummary
    permutation: PermutationSummary
    parity: Parity


class RandomisedSummary(_Part):
    """The samples of which fair coins are said to have decided whether they are members, and why it was not so."""

    n_members: int
    n_nonmembers: int
    n_scored: int
    unfair: str | None


class ClaimsSummary(_Part):
    """How many samples an attack calls members in records.csv, by what they are."""

    members: int
    nonmembers: int


class ExposedSummary(_Part):
    """A member that attacks rank high."""

    split: str
    sample_index: int
    sample_id: str | None
    label: int | None
    n_claims: int  # attacks that call it a member at `fdr`
    rank: int  # the first that an attack gives it, 1 for the highest score
    attack: str  # which does
    p: float  # conformal p-value by that attack


class RecordsSummary(_Part):
    """What is in records.csv, and which members attacks expose most: the most claimed first, then the highest ranks."""

    fdr: float  # the share of non-members among an attack's claims is at most this
    n_rows: int  # samples in the file
    n_samples: int  # samples of the audit; where that is more, the file has those that some attack ranks highest
    fewest: int | None  # samples that must be claimed at once, for any to be; None without a score
    claimed: dict[str, ClaimsSummary]  # by attack that has scores, of all samples
    exposed: tuple[ExposedSummary, ...] = ()


class SliceSummary(_Part):
    """Metrics of a subset of the scored samples; of one that has too few `reason` says so, and none has a value."""

    name: str
    n_members: int
    n_nonmembers: int
    reason: str | None
    metrics: dict[str, dict[str, MetricSummary]]  # by attack and name, each interval for itself


class WorstSummary(_Part):
    """The slice of the highest lower bound, by an interval that holds together with those of all others."""

    slice: str
    value: float
    low: float
    high: float


class SlicesSummary(_Part):
    """Subsets of the samples. They decide nothing."""

    n_slices: int  # that have enough samples
    n_attacks: int  # the worst ones' intervals allow for so many slices of so many attacks
    slices: tuple[SliceSummary, ...]
    worst: dict[str, dict[str, WorstSummary]]  # by attack and metric


class DetectableSummary(_Part):
    """What the samples let the audit find by balanced accuracy: the effect with a probability of `power`.

    A model without a leak passes by it with a probability of `passing` from `needed` scored samples a side on. Either
    is None where no rule asks for it. Nothing reaches an effect of 1 or more, nor what is `never`.
    """

    effect: float | None
    power: float
    needed: float | None
    passing: float
    never: bool = False


class FactsSummary(_Part):
    """Of the model and its training data: as the run has found, or as the config's section `dossier` states."""

    parameters: int | None
    parameters_stated: bool
    training_records: int | None  # where nobody states it, the members of the audit
    training_records_stated: bool
    parameters_per_record: float | None


class Summary(_Part):
    """Everything that the audit found, and from what: summary.json."""

    schema_version: Literal[1, 2] = Field(alias="schema")
    verdict: VerdictSummary
    level: float  # of the intervals
    samples: SamplesSummary
    augment_members: bool
    methods: dict[str, MethodSummary]
    provenance: dict[str, Any]
    audited: ModelSummary | None = None  # None in a file of schema 1
    checks: ChecksSummary | None = None  # None in a file of before
    randomised: RandomisedSummary | None = None  # None where nobody says that inclusion was
    claim: ClaimVerdict | None = None  # None where none was made
    records: RecordsSummary | None = None  # None without records.csv
    slices: SlicesSummary | None = None  # None where none are asked for
    detectable: DetectableSummary | None = None  # None where no rule is about balanced accuracy
    facts: FactsSummary | None = None  # None in a file of before
    not_tried: dict[str, str] = {}  # why, by attack that there is and that was none of the audit's
    files: dict[str, str] = {}  # SHA-256 of the other files of the verdict, by name; none in a file of before


def json_schema() -> dict[str, Any]:
    """JSON schema of summary.json, as this version writes it."""
    made = Summary.model_json_schema(mode="serialization", by_alias=True)
    made["properties"][json_text.SEAL] = {"type": "string", "description": "SHA-256 of all the rest"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "summary.json of mia_batch"}


def plain(value: Any) -> Any:
    """`value` as JSON types alone: arrays and tuples as lists, NumPy scalars as numbers, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def to_json(summary: Summary) -> str:
    """Text of summary.json: strict JSON, sealed."""
    return json_text.written(summary.model_dump(mode="json", by_alias=True))


def read_summary(path: Path) -> Summary:
    """The summary in a file of this version or of one before.

    Raises:
        InputError: it is not there, damaged or of another schema; says which of its fields.
    """
    try:
        text = read_text(path)
        found = Summary.model_validate_json(text, strict=True)
        json_text.parse(text)  # pydantic takes the last of two equal keys, and whatever has changed since
        return found
    except ValidationError as error:
        raise InputError(f"{path}: {_problem(error)}") from error
    except OSError as error:
        raise InputError(f"{path}: must be a summary that can be read, got: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: must be JSON text in UTF-8, got {one_line(error)}") from error


def _problem(error: ValidationError) -> str:
    """Field, rule and value of the first of pydantic's errors."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"must be JSON, got {first['msg'].removeprefix('Invalid JSON: ')}"
    if first["type"] == "missing":
        return f"{field}: is required"
    rule = re.sub(r"^(Input should be|Value error, must be)", "must be", first["msg"].removeprefix("Value error, "))
    rule = re.sub(r"an object|a valid dictionary or instance of \w+", "a mapping", rule)
    value = " ".join(repr(first["input"]).split())
    return f"{field or 'summary'}: {rule}, got {value if len(value) <= 120 else f'{value[:117]}...'}"


def metric_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for each metric and figure of epsilon of each method, by `COLUMNS`; None is missing or infinite.

    Behind them those of slices; of all samples the slice is None.
    """
    rows = [
        {"method": method, "metric": metric, **numbers.model_dump(), "slice": None}
        for method, found in summary.methods.items()
        for metric, numbers in (found.metrics | (found.epsilon.figures if found.epsilon else {})).items()
    ]
    return rows + [
        {"method": method, "metric": metric, **numbers.model_dump(), "slice": each.name}
        for each in (summary.slices.slices if summary.slices else ())
        for method, metrics in each.metrics.items() for metric, numbers in metrics.items()
    ]  # fmt: skip


def to_csv(summary: Summary) -> str:
    """Text of summary.csv: `metric_rows`, numbers in full. One that is missing or infinite is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(metric_rows(summary))
    return text.getvalue()
