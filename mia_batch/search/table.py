"""The table of a search: a row for each candidate, columns and ranks as in scikit-learn's `cv_results_`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def score_table(
    candidates: Sequence[Mapping[str, Any]], scores: NDArray[np.float64], n_nonconverged: NDArray[np.int64]
) -> dict[str, Any]:
    """Means, standard deviations and ranks over folds.

    Args:
        candidates: parameters, n_candidates of them, in the order of the grid.
        scores: accuracies, shape (n_candidates, n_folds), NaN where a fit failed.
        n_nonconverged: folds on which each did not converge, shape (n_candidates,).
    """
    mean = np.average(scores, axis=1)
    return {
        "params": [dict(params) for params in candidates],
        "mean_test_score": mean,
        "std_test_score": np.sqrt(np.average((scores - mean[:, np.newaxis]) ** 2, axis=1)),
        "rank_test_score": rankdata(-np.nan_to_num(mean, nan=-1.0), method="min").astype(np.int64),  # failed: last
        **{f"split{fold}_test_score": scores[:, fold] for fold in range(scores.shape[1])},
        "n_nonconverged": n_nonconverged,
    }


def best_index(table: Mapping[str, Any]) -> int | None:
    """The first of the best candidates, of the last round if the search went in rounds; None if all failed."""
    means = np.asarray(table["mean_test_score"], dtype=float)
    if "iter" in table:
        rounds = np.asarray(table["iter"])
        means = np.where(rounds == rounds.max(), means, np.nan)
    if np.isnan(means).all():
        return None
    return int(np.nanargmax(means) if "iter" in table else np.argmin(table["rank_test_score"]))


def listed(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The table's columns as lists of plain numbers, parameters as dictionaries."""
    return {name: list(column) if name == "params" else np.asarray(column).tolist() for name, column in table.items()}


def plain_columns(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The table as lists of numbers and text, parameters as JSON."""
    return {**listed(table), "params": [json.dumps(params, sort_keys=True) for params in table["params"]]}
