"""Curves over the number of references, against the attack itself on so many of them."""

from __future__ import annotations

import numpy as np
import pytest
from made_references import BY_NAME, audit, pairs_by_coins, result_of, samples_of

from mia_batch.attacks.base import GROUPS
from mia_batch.attacks.fewer_references import MEASURES, OVER_REFERENCES, reference_order, reference_sizes
from mia_batch.attacks.grouping import design_effects
from mia_batch.metrics.registry import evaluate
from mia_batch.samples import Samples

WITH_FEWER = [name for name, attack in BY_NAME.items() if attack.with_fewer]


@pytest.mark.parametrize(("n", "sizes"), [
    (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (10, [1, 2, 4, 6, 8, 10]), (64, [1, 2, 4, 8, 16, 32, 64]),
    (256, [1, 2, 6, 14, 36, 98, 256]),
])  # fmt: skip
def test_sizes_are_even_and_few(n: int, sizes: list[int]) -> None:
    assert reference_sizes(n) == sizes


def test_pairs_stay_together_in_a_drawn_order() -> None:
    inside = pairs_by_coins(50, 8, np.random.default_rng(0))
    inside = np.column_stack([inside, np.random.default_rng(1).integers(2, size=50)])[:, [8, 0, 2, 4, 6, 1, 3, 5, 7]]
    order = reference_order(inside.astype(np.int8), seed=3)
    assert sorted(order) == list(range(9))
    assert order[-1] == 0  # it has no partner
    assert all((inside[:, a] + inside[:, b] == 1).all() for a, b in order[:-1].reshape(-1, 2))
    assert order.tolist() == reference_order(inside.astype(np.int8), seed=3).tolist()
    assert order.tolist() != reference_order(inside.astype(np.int8), seed=4).tolist()


def of_columns(samples: Samples, chosen: np.ndarray) -> Samples:
    """The same audit with some of its references."""
    columns = samples.columns
    return samples_of(
        columns["query_phi"], columns["reference_phi"][:, :, chosen], columns["reference_in"][:, chosen],
        samples.member, columns["label"],
    )  # fmt: skip


@pytest.mark.parametrize("name", WITH_FEWER)
def test_each_point_is_the_attack_on_so_many_references(name: str) -> None:
    samples = audit(300, 8, n_queries=2)
    result = result_of(name, samples)
    curve, order = result.provenance[OVER_REFERENCES], reference_order(samples.columns["reference_in"], seed=1)
    sizes = [each["n_references"] for each in curve]
    assert sizes == ([1, 2, 4, 6, 8] if "offline" in name else [2, 4, 6, 8])
    for size, each in zip(sizes, curve, strict=True):
        chosen = np.arange(8) if size == 8 else order[:size]
        alone = result_of(name, of_columns(samples, chosen))
        wanted = evaluate(
            alone.member, alone.predicted, alone.scores, names=MEASURES,
            effects=design_effects(alone.member, cross_fitted=True),
        )  # fmt: skip
        assert each["metrics"] == {measure: vars(found) for measure, found in wanted.items()}
    assert curve[0]["metrics"]["auc"]["value"] < curve[-1]["metrics"]["auc"]["value"]


def test_intervals_allow_for_groups() -> None:
    alone = audit(200, 4)
    together = Samples(alone.member, alone.splits, **alone.columns, **{GROUPS: np.arange(200) // 4})
    narrow, wide = (result_of("lira_fixed", each).provenance[OVER_REFERENCES][-1]["metrics"]["auc"]
                    for each in (alone, together))  # fmt: skip
    assert narrow["value"] == wide["value"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_one_reference_has_no_curve() -> None:
    assert OVER_REFERENCES not in result_of("lira_offline", audit(100, 1)).provenance
    assert [name for name in BY_NAME if OVER_REFERENCES in result_of(name, audit(100, 4)).provenance] == WITH_FEWER
