"""QMIA: the quantile, what an input explains and what it does not, and that no row is scored by what saw it."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.attacks.base import AttackResult, AttackSettings
from mia_batch.attacks.quantile import ALPHA, LEAST_NONMEMBERS, QMIA, quantile_margin
from mia_batch.attacks.split import make_splits
from mia_batch.metrics.ranking import auc, best_threshold
from mia_batch.samples import Samples
from mia_batch.search.tasks import CannotEvaluate
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples, run_attacks


def audit(n: int = 1200, *, leak: float, seed: int = 0) -> Samples:
    """Margins of an input's hardness, which its statistics tell but for noise, and of the leak."""
    rng = np.random.default_rng(seed)
    member, label, hardness = np.arange(n) % 2, rng.integers(0, 3, n), rng.normal(0, 4, n)
    hinge = hardness + leak * member + rng.normal(size=n) + 2 * label
    statistics = np.column_stack([hardness, rng.normal(size=n)])
    splits = make_splits(member.astype(np.int8), evaluation="cross_fit", eval_fraction=0.2, seed=1, cv=3)
    return Samples(member.astype(np.int8), splits, hinge=hinge, label=label, statistics=statistics)


def result_of(samples: Samples, **params: float) -> AttackResult:
    settings = AttackSettings({key: (value,) for key, value in params.items()})
    done = {task.key: task.work.run(samples) for task in QMIA.tasks(samples, settings)}  # type: ignore[union-attr]
    return QMIA.result(samples, settings, done)


def test_the_quantile_of_what_does_not_depend_on_the_input_is_that_of_all() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=4000)
    X, new = np.zeros((4000, 2)), np.zeros((5, 2))
    for alpha in (0.05, 0.5):
        found = quantile_margin(X, margin, new, alpha=alpha, seed=1)
        assert found == pytest.approx(np.quantile(margin, 1 - alpha), abs=0.05)


def test_the_quantile_follows_the_input() -> None:
    """A uniform margin on [0, 1] or [5, 6] by class: quantiles .9 and 5.9, and a tenth of new rows exceeds them."""
    rng = np.random.default_rng(0)
    X, new = (rng.integers(0, 2, (6000, 1)).astype(float) for _ in range(2))
    margin, later = (5 * each[:, 0] + rng.random(6000) for each in (X, new))
    found = quantile_margin(X, margin, new, alpha=0.1, seed=1)
    assert np.allclose(found, 5 * new[:, 0] + 0.9, atol=0.05)
    assert abs(np.mean(later > found) - 0.1) < 4 * np.sqrt(0.09 / 6000 + 0.09 / 6000)  # the quantile's own error, too


def test_it_sees_through_hard_and_easy_inputs() -> None:
    samples = audit(leak=1.5)
    result = result_of(samples)
    assert result.evaluated.all()
    alone = auc(samples.member, samples.columns["hinge"])
    assert auc(samples.member, result.scores).low > alone.high
    assert len(result.provenance["thresholds"]) == 5


def test_without_a_leak_false_alarms_are_as_many_as_hits() -> None:
    """Of 12 audits: no bound on one side, and the decisions' balanced accuracy is .5: no threshold was fooled."""
    areas, accuracies = [], []
    for seed in range(12):
        samples = audit(600, leak=0.0, seed=seed)
        result = result_of(samples)
        areas.append(auc(samples.member, result.scores).value)
        accuracies.append(np.mean([np.mean(result.predicted[samples.member == side] == side) for side in (0, 1)]))
    assert abs(np.mean(areas) - 0.5) < 4 * 0.024 / np.sqrt(12)  # 0.024: of an AUC of 300 against 300
    assert abs(np.mean(accuracies) - 0.5) < 4 * 0.021 / np.sqrt(12)


def test_a_row_has_no_part_in_its_own_quantile() -> None:
    """A margin that changes changes the score by as much, and the scores of no row of its split."""
    samples = audit(300, leak=1.0)
    before = result_of(samples)
    row = int(samples.splits[2].evaluated[0])
    hinge = samples.columns["hinge"].copy()
    hinge[row] += 7.0
    after = result_of(Samples(samples.member, samples.splits, **{**samples.columns, "hinge": hinge}))
    assert after.scores[row] - before.scores[row] == pytest.approx(7.0)
    others = np.setdiff1d(samples.splits[2].evaluated, [row])
    assert np.array_equal(after.scores[others], before.scores[others])


def test_members_have_no_part_in_a_quantile() -> None:
    samples = audit(300, leak=1.0)
    split = samples.splits[0]
    hinge = samples.columns["hinge"].copy()
    hinge[split.fit[samples.member[split.fit] == 1]] += 50.0
    changed = Samples(samples.member, samples.splits, **{**samples.columns, "hinge": hinge})
    before, after = (result_of(each).scores[split.evaluated] for each in (samples, changed))
    assert np.array_equal(before, after)


def test_the_threshold_is_of_rows_whose_fold_had_no_part_in_their_quantile() -> None:
    """By hand: each fold by the non-members of the other folds."""
    samples = audit(300, leak=1.0)
    split, member = samples.splits[0], samples.member
    X, hinge = np.column_stack([samples.columns["label"], samples.columns["statistics"]]), samples.columns["hinge"]
    scores = np.empty(len(split.fit))
    for fold in range(split.n_folds):
        own = split.fold_of == fold
        others = split.fit[~own]
        others = others[member[others] == 0]
        expected = quantile_margin(X[others], hinge[others], X[split.fit[own]], alpha=0.05, seed=1)
        scores[own] = hinge[split.fit[own]] - expected
    threshold, _ = best_threshold(scores, member[split.fit])
    assert result_of(samples).provenance["thresholds"][0] == threshold


def test_too_few_nonmembers_are_not_evaluable() -> None:
    with pytest.raises(CannotEvaluate, match=rf"qmia: must have {LEAST_NONMEMBERS} non-members to fit a quantile on, "):
        result_of(audit(100, leak=1.0))


def test_parameters_and_the_whole_stage() -> None:
    assert QMIA.check({"alpha": [0.1]}) == []
    assert QMIA.check({"alpha": [0.6]}) == [("params.alpha", "must be one number above 0 and at most 0.5, got [0.6]")]
    assert QMIA.check({"beta": [0.6]}) == [("params.beta", "is unknown: qmia takes alpha")]
    samples, attack = audit(400, leak=1.0), AttackConfig(methods=({"method": "qmia", "params": {"alpha": [0.1]}},))
    made = make_samples(samples.member, attack, **samples.columns)
    found = run_attacks(made, attack, n_jobs=2)["qmia"]
    assert np.array_equal(found.scores, result_of(made, alpha=0.1).scores)
    assert found.provenance["alpha"] == 0.1
    assert result_of(made).provenance["alpha"] == ALPHA.default
    without = make_samples(samples.member, attack, hinge=samples.columns["hinge"], label=samples.columns["label"])
    missing = run_attacks(without, attack, n_jobs=1)["qmia"]
    assert missing.not_run
    assert "it needs the inputs' statistics" in missing.reason
