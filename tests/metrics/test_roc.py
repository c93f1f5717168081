"""ROC curves with bands: at each point what `tpr_at_fpr` says, with and without ties, and of samples that are fewer."""

from __future__ import annotations

import numpy as np
import pytest

from mia_batch.metrics.ranking import FPRS, fpr_name, roc_band, roc_fprs, tpr_at_fpr
from mia_batch.metrics.registry import evaluate, roc


def samples(n: int, *, ties: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + ties)
    member = np.arange(n) % 3 > 0
    scores = rng.normal(member * 1.0)
    return member.astype(np.int8), np.round(scores * ties) / ties if ties else scores


@pytest.mark.parametrize(("n", "ties"), [(30, 0), (600, 0), (3000, 0), (600, 4), (3000, 1)])
def test_each_point_is_that_of_tpr_at_fpr(n: int, ties: int) -> None:
    member, scores = samples(n, ties=ties)
    fprs = roc_fprs(int((member == 0).sum()), n_points=12)
    found = roc_band(member, scores, fprs, level=0.9)
    for i, fpr in enumerate(fprs):
        alone = tpr_at_fpr(member, scores, float(fpr), level=0.9)
        assert (found.tpr[i], found.low[i], found.high[i]) == (alone.value, alone.low, alone.high)
    assert (np.diff(found.tpr) >= 0).all()
    assert found.tpr[-1] == 1


def test_the_band_of_samples_that_belong_together_is_that_of_the_metrics() -> None:
    member, scores = samples(1500)
    metrics = evaluate(member, scores > 0, scores, effects=(1.7, 2.0))
    found = roc(member, scores, FPRS, effects=(1.7, 2.0))
    for i, fpr in enumerate(FPRS):
        alone = metrics[fpr_name(fpr)]
        assert (found.tpr[i], found.low[i], found.high[i]) == (alone.value, alone.low, alone.high)
    wide, narrow = roc(member, scores, [0.1], effects=(4.0, 4.0)), roc(member, scores, [0.1])
    assert wide.low[0] < narrow.low[0] < narrow.high[0] < wide.high[0]


def test_fprs_are_steps_that_are_there() -> None:
    for n in (1, 2, 7, 1000, 500_000):
        found = roc_fprs(n)
        assert found[-1] == 1
        assert (np.diff(found) > 0).all()
        assert len(found) <= 32 + len(FPRS)
        steps = found[~np.isin(found, FPRS)] * n
        assert steps == pytest.approx(np.round(steps), abs=1e-6)
        assert set(FPRS) <= set(found)


def test_one_class_has_no_curve() -> None:
    found = roc_band([1, 1, 1], [0.1, 0.2, 0.3], [0.1, 1.0])
    assert np.isnan(found.tpr).all()
    assert (found.low.tolist(), found.high.tolist()) == ([0, 0], [1, 1])
    with pytest.raises(ValueError, match="fpr"):
        roc_band([1, 0], [0.1, 0.2], [1.5])
