"""The self-checks of whole audits, from features.h5 to the exit code: equal inputs, leaks, brighter members."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import change_and_seal, make_of_before

from mia_batch.attacks.base import BLIND
from mia_batch.errors import InputError
from mia_batch.inputs import NO_GROUP, STATISTICS
from mia_batch.metrics.registry import evaluate
from mia_batch.process.exit_codes import run_main
from mia_batch.process.stop import StopRequest
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.claim import claim
from mia_batch.rundir.features import FeatureStore, block_dtype
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack
from mia_batch.rundir.state import left_to_do, read_state
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.attack import attack
from mia_batch.stages.plan import make_manifest
from mia_batch.stages.reduce import reduce, summarise

N = 800  # rows, half of them members
CLASSES = 4


@dataclass(frozen=True)
class Audit:
    config_path: Path
    config: Config
    paths: RunPaths

    def attack(self, only: str | None = None) -> None:
        assert attack(self.config, self.paths, only, StopRequest()) == 0

    def reduce(self) -> tuple[int, Summary]:
        parser = stage_parser("reduce", "")
        add_verdict_arguments(parser)
        args = parser.parse_args([str(self.config_path), "--out", str(self.paths.root)])
        return run_main(lambda: reduce(args)), read_summary(self.paths.summary_json)


@pytest.fixture
def make_audit(tmp_path: Path, write_config: Callable[..., Path]) -> Callable[..., Audit]:
    def make(
        *, leak: float = 0.0, brighter: float = 0.0, changes: dict[str, Any] | None = None,
        group: np.ndarray | None = None, twins: int = 0,
    ) -> Audit:
        """A model whose confidence in the label grows with what it has seen, and with how bright an input is."""
        lr = {"method": "lr", "params": {"C": [1.0]}}
        path = write_config({"attack.methods": [lr], "attack.eval_fraction": 0.5, **(changes or {})})
        audit = Audit(path, load_config(path), RunPaths(tmp_path / "run"))
        manifest, rng = claim(audit.paths, make_manifest(audit.config)), np.random.default_rng(0)
        member, label = np.repeat([1, 0], N // 2), rng.integers(0, CLASSES, N)
        columns = {
            "sample_index": np.arange(N), "split": np.array(["train"] * N), "label": label, "member": member,
            "group": np.full(N, NO_GROUP) if group is None else group,
        }  # fmt: skip
        rows = np.zeros(N, dtype=block_dtype(CLASSES))
        rows["row"], rows["content"] = np.arange(N), rng.integers(0, 256, (N, 16))
        rows["content"][N // 2 : N // 2 + twins] = rows["content"][:twins]
        brightness = rng.normal(brighter * member)
        rows["statistics"] = rng.normal(size=(N, len(STATISTICS)))
        rows["statistics"][:, STATISTICS.index("mean")] = 100 + 20 * brightness
        confidence = 4 + brightness + leak * member + rng.normal(0, 0.3, N)
        rows["logits"] = rng.normal(size=(N, CLASSES)) + confidence[:, None] * (label[:, None] == np.arange(CLASSES))
        rows["loss"] = np.logaddexp.reduce(rows["logits"], axis=1) - rows["logits"][np.arange(N), label]
        origin = manifest.model_dump(include={"config", "digests"})
        with FeatureStore.create(audit.paths.features, columns, CLASSES, origin) as store:
            store.write(rows)
        return audit

    return make


@pytest.mark.parametrize(
    ("leak", "brighter", "codes", "confounded"),
    [
        (0.0, 0.0, (0, 4), False),
        (3.0, 0.0, (3,), False),
        (0.0, 1.5, (4,), True),
        (3.0, 0.5, (3,), False),
    ],
    ids=["nothing", "a leak", "brighter members", "a leak beyond brighter members"],
)
def test_whole_audits(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture, leak: float, brighter: float,
    codes: tuple[int, ...], confounded: bool,
) -> None:
    audit = make_audit(leak=leak, brighter=brighter)
    audit.attack()
    code, summary = audit.reduce()
    printed, checks = " ".join(capsys.readouterr().out.split()), summary.checks
    assert code in codes
    assert checks is not None
    assert (checks.blind.confounded, checks.blind.best, checks.blind.statistics) == (confounded, "lr", True)
    assert ("The audit is confounded" in summary.verdict.sentence) == confounded
    assert "Without the model, by labels and input statistics alone: AUC 0." in printed
    assert checks.permutation.p_value is not None
    assert (checks.permutation.p_value < 0.05) == bool(leak or brighter)
    assert "It decides nothing." in printed
    assert checks.parity.configured == checks.parity.scored == (N // 2, N // 2)
    assert checks.parity.left_out == (0, 0)
    assert list(summary.methods) == list(summary.verdict.methods) == ["lr"]  # the baseline is none of them
    assert read_summary(audit.paths.summary_json) == summary


def test_a_baseline_that_was_not_made(make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture) -> None:
    """No verdict comes without it: a result that was removed could hide that the audit is confounded."""
    audit = make_audit(leak=3.0)
    audit.attack("lr")
    assert left_to_do(read_state(audit.paths)).attacks == (BLIND,)
    with pytest.raises(InputError, match="must be there beside the attacks; run attack again"):
        summarise(audit.config, audit.paths)
    audit.attack()
    assert read_attack(audit.paths.attack(BLIND)).provenance["statistics"] is True
    code, summary = audit.reduce()
    assert code == 3
    assert summary.checks is not None
    assert summary.checks.blind.auc is not None
    assert not any("not checked" in text for text in summary.verdict.cautions)


def test_of_features_without_statistics_it_is_by_labels(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture
) -> None:
    audit = make_audit(brighter=1.5, changes={"attack.eval": "holdout"})
    make_of_before(audit.paths.features)
    audit.attack()
    _, summary = audit.reduce()
    assert "Without the model, by labels alone: AUC 0." in " ".join(capsys.readouterr().out.split())
    assert summary.checks is not None
    assert (summary.checks.blind.confounded, summary.checks.parity.sizes, summary.checks.parity.ranges) == (
        False, None, None
    )  # fmt: skip


def test_a_baseline_of_other_settings_is_refused(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture
) -> None:
    audit = make_audit()
    audit.attack()

    def from_another_run(file: h5py.File) -> None:
        provenance = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps({**provenance, "identity": "of another run"})

    change_and_seal(audit.paths.attack(BLIND), from_another_run)
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)
    args = parser.parse_args([str(audit.config_path), "--out", str(audit.paths.root)])
    assert run_main(lambda: reduce(args)) == 2
    assert f"{audit.paths.attack(BLIND)}: must come from" in capsys.readouterr().err


def test_the_attack_stage_keeps_groups_together_and_leaves_twins_out(make_audit: Callable[..., Audit]) -> None:
    """Views of one image that fit and score would be a leak of the split; an input on both sides has no answer."""
    group = np.arange(N) // 8
    audit = make_audit(leak=3.0, group=group, twins=10)
    audit.attack()
    for name in ("lr", BLIND):
        result = read_attack(audit.paths.attack(name))
        twin = np.arange(N) % (N // 2) < 10
        assert np.array_equal(result.evaluated, ~twin)
        by_group = [set(result.scored_by[(group == each) & ~twin].tolist()) for each in range(N // 8)]
        assert {len(splits) for splits in by_group} <= {0, 1}
        assert set().union(*by_group) == {0, 1}
    _, summary = audit.reduce()
    assert (summary.samples.n_twins, summary.samples.n_scored) == (20, N - 20)
    found, lr = summary.methods["lr"].metrics["auc"], read_attack(audit.paths.attack("lr"))
    rows = lr.evaluated
    alone = evaluate(lr.member[rows], lr.predicted[rows], lr.scores[rows], names=("auc",))["auc"]
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low > 2 * (alone.high - alone.low)  # 8 of a group count as one, and two that are pooled


def change_logits(audit: Audit, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """As another network would have given them, with their losses."""

    def put(file: h5py.File) -> None:
        logits, label = change(file["logits"][:]), file["label"][:]
        file["logits"][:] = logits
        file["loss"][:] = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(N), label]

    change_and_seal(audit.paths.features, put)


def test_no_attack_is_fitted_where_the_features_already_show_that_nothing_can_be_said(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture
) -> None:
    audit = make_audit()
    change_logits(audit, np.zeros_like)
    audit.attack()
    for name in ("lr", BLIND):
        result = read_attack(audit.paths.attack(name))
        assert result.reason.startswith("the audit is not: ")
        assert "tasks" not in result.provenance
    code, summary = audit.reduce()
    assert (code, summary.verdict.outcome) == (4, "inconclusive")
    assert summary.verdict.sentence.startswith("NOT EVALUABLE: the model gives every sample the same outputs.")


def test_attacks_that_miss_what_the_accuracies_show_do_not_pass(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture
) -> None:
    """The model is wrong on half of the non-members, and the one attack does not look at labels."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, CLASSES, N)
    audit = make_audit(changes={"attack.methods": [{"method": "threshold_entropy"}]})
    change_and_seal(audit.paths.features, lambda file: file["label"].__setitem__(slice(None), label))
    wrong = (np.arange(N) >= N // 2) & (rng.random(N) < 0.5)
    answered = np.where(wrong, (label + 1) % CLASSES, label)
    sure = 6.0 * (answered[:, None] == np.arange(CLASSES)) + rng.normal(0, 0.3, (N, CLASSES))
    change_logits(audit, lambda logits: sure.astype(logits.dtype))
    audit.attack()
    code, summary = audit.reduce()
    assert (code, summary.verdict.outcome) == (4, "inconclusive")
    assert "Add the attack correctness" in summary.verdict.sentence


def test_sides_that_are_exchanged_do_not_pass(
    make_audit: Callable[..., Audit], capsys: pytest.CaptureFixture
) -> None:
    """An attack that takes a low loss for membership finds nothing where the non-members have it; all are right."""
    audit, rng = make_audit(changes={"attack.methods": [{"method": "threshold_loss"}]}), np.random.default_rng(2)
    with h5py.File(audit.paths.features, "r") as file:
        own = file["label"][:][:, None] == np.arange(CLASSES)
    sure = (10 - 3 * (np.arange(N) < N // 2) + rng.normal(0, 0.3, N))[:, None] * own
    change_logits(audit, lambda logits: sure.astype(logits.dtype))
    audit.attack()
    code, summary = audit.reduce()
    assert (code, summary.verdict.outcome) == (4, "inconclusive")
    assert "by threshold_loss non-members look more like members than members do" in summary.verdict.sentence
