"""The final fit scores very many rows in blocks, and adds up a forest's votes, with the scores that it has of few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mia_batch.samples import Lookup, Part, Samples, Split
from mia_batch.search import refit
from mia_batch.search.folds import fold_numbers
from mia_batch.search.refit import Refit, Scored

N, N_FIT = 400, 150


def samples(X: Any) -> Samples:
    """150 rows fit, 250 are scored."""
    y = np.random.default_rng(1).integers(0, 2, N).astype(np.int8)
    return Samples(y, [Split(np.arange(N_FIT), fold_numbers(y[:N_FIT], 3), np.arange(N_FIT, N))], features=X)


def scored(method: str, params: dict[str, Any], X: Any) -> Scored:
    """All chunks, combined."""
    fit, view = Refit(method, params, 1), samples(X).view(Part(method))
    found = fit.combine([fit.run(view, chunk) for chunk in fit.chunks()])
    return Scored(view.of_evaluated(found.scores), view.of_evaluated(found.predicted), found.nonconverged)


@pytest.mark.parametrize(
    ("method", "params"), [("lr", {"C": 1.0}), ("knn", {"n_neighbors": 5}), ("rf", {"n_estimators": 23})]
)
def test_blocks_and_sums_give_the_same_scores(
    method: str, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(0).normal(size=(N, 4))
    whole = scored(method, params, X)
    monkeypatch.setattr(refit, "BLOCK_VALUES", 40)
    blocks = scored(method, params, X)
    np.testing.assert_allclose(blocks.scores, whole.scores, rtol=0, atol=1e-12)
    assert np.array_equal(blocks.predicted, whole.predicted)


@pytest.mark.parametrize(("method", "params"), [("lr", {"C": 1.0}), ("rf", {"n_estimators": 10})])
def test_a_lookup_is_the_matrix_that_it_stands_for(method: str, params: dict[str, Any]) -> None:
    table, row = np.random.default_rng(0).normal(size=(7, 3)), np.random.default_rng(2).integers(0, 7, N)
    short, long = scored(method, params, Lookup(table, row.astype(np.int32))), scored(method, params, table[row])
    np.testing.assert_allclose(short.scores, long.scores, rtol=0, atol=1e-12)
    assert np.array_equal(short.predicted, long.predicted)
