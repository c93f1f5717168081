"""Audits of made-up attacks, concluded as the reducer does, with what report.html is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mia_batch.api.settings import attack_section, make_config
from mia_batch.attacks.base import AttackResult, not_evaluable
from mia_batch.attacks.fewer_references import OVER_REFERENCES, point
from mia_batch.report.evidence import Evidence
from mia_batch.report.summary import Summary
from mia_batch.rundir.features import Features
from mia_batch.settings.schema import Config, DossierConfig, ReportConfig
from mia_batch.stages.evidence import make_evidence
from mia_batch.stages.records import make_records
from mia_batch.stages.reduce import conclude

HOSTILE = (
    '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "</style><b>x", "{{ 7 * 7 }}{% raw %}", "&lt;&#60;",
    "a\x00b\x1b[31mc\r\x7f", "left\u202eright\u2066\u200b", r"$\frac{1}{0}$ @0@",
    "日本語 עברית 🎉", "x" * 300, "-->", "' onload='x",
)  # fmt: skip
GRID = [{"C": 0.1}, {"C": 1.0}]


def made_features(n: int, *, n_classes: int = 4, gap: float = 2.0, **columns: Any) -> Features:
    """Half of n samples are members; the model is right on most of both sides, surer of members by `gap`."""
    rng, half = np.random.default_rng(1), n // 2
    member = np.repeat([1, 0], [half, n - half]).astype(np.int8)
    label = (np.arange(n) % n_classes).astype(np.int32)
    logits = rng.normal(size=(n, n_classes)).astype(np.float32)
    logits[np.arange(n), label] += 3 + gap * member
    loss = np.log(np.exp(logits.astype(np.float64)).sum(axis=1)) - logits[np.arange(n), label]
    known: dict[str, Any] = {
        "sample_index": np.concatenate([np.arange(half), np.arange(n - half)]),
        "split": np.repeat(["train", "test"], [half, n - half]), "label": label, "member": member, "logits": logits,
        "loss": loss, "attrs": {"outputs": "logits", "schema": 3},
    }  # fmt: skip
    return Features(**known | columns)


def made_result(name: str, features: Features, signal: float, *, seed: int = 0, splits: int = 5) -> AttackResult:
    """An attack whose scores are so far apart, with a grid that was searched."""
    member = features.member
    scores = np.random.default_rng(seed).normal(signal * member)
    params = ['{"C": 0.1}', '{"C": 1.0}']
    return AttackResult(
        name, scores, (scores > signal / 2).astype(np.int8), (np.arange(len(member)) % splits).astype(np.int32), member,
        best_params={"C": 1.0}, best_score=0.7,
        cv_results={"params": params, "mean_test_score": [0.6, 0.7], "std_test_score": [0.01, 0.02]},
        provenance={"seconds": 1.5, "n_fit": len(member) // 2, "tasks": [{"seconds": 0.5, "cpu_seconds": 0.4}]},
    )  # fmt: skip


def made_curve(sizes: Sequence[int], *, n: int = 200) -> dict[str, Any]:
    """For an attack's provenance: scores that tell more with each reference."""
    member, rng = np.repeat([1, 0], n).astype(np.int8), np.random.default_rng(1)
    return {OVER_REFERENCES: [point(k, member, rng.normal(np.log2(1 + k) * member), (1.0, 1.0)) for k in sizes]}


def made_config(*, gate: Any = None, weak_model: bool = False, report: Mapping[str, Any] | None = None,
                dossier: Mapping[str, Any] | None = None) -> Config:  # fmt: skip
    config = make_config(attack_section({"lr": {"C": [0.1, 1.0]}}, 1), gate, weak_model=weak_model)
    changes = {"report": ReportConfig(**report or {}), "dossier": DossierConfig(**dossier or {})}
    return config.model_copy(update=changes)


def made_audit(
    folder: Any, *, n: int = 400, signals: Mapping[str, float] | None = None, config: Config | None = None,
    features: Features | None = None, lost: Mapping[str, str] | None = None, origin: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Summary, Evidence]:
    """The summary and what is drawn beside it, of attacks with these signals; `lost` ones have a reason instead.

    More of what results say of themselves is in `provenance`, by attack.
    """
    config, features = config or made_config(), features or made_features(n)
    results = {
        name: made_result(name, features, signal, seed=i)
        for i, (name, signal) in enumerate((signals if signals is not None else {"lr": 2.0, "knn": 1.0}).items())
    }
    results |= {name: not_evaluable(name, features.member, reason) for name, reason in (lost or {}).items()}
    for name, more in (provenance or {}).items():
        results[name] = replace(results[name], provenance={**results[name].provenance, **more})
    blind = made_result("blind", features, 0.0, seed=99)
    known = {
        "created": "2030-01-01T00:00:00+00:00", "config_file": "/w/audit.yaml", "config": config.resolved(),
        "digests": {"model.checkpoint": "a" * 64}, "versions": {"mia_batch": "0.1.0"}, "changes": [],
        "launches": [{"stage": "extract", "started": "2030-01-01T00:00:01+00:00", "seconds": 2.0, "parameters": 1000}],
    }  # fmt: skip
    found = conclude(config, features, results, blind, origin={**known, **(origin or {})}, command="attack")
    records = make_records(config.report, folder / "records.csv", features, results)
    evidence = make_evidence(config, features, results, found.effects, records)
    return found.summary.model_copy(update={"records": records}), evidence
