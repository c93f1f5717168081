"""Samples that metrics are tried on, and references that are slow and plain."""

import math
from itertools import product

import numpy as np
from hypothesis import strategies as st

# Membership, predictions and heavily tied scores, both classes present or not.
SAMPLES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(-2, 2)), min_size=1, max_size=25)
TWO_CLASSES = SAMPLES.filter(lambda rows: {row[0] for row in rows} == {0, 1})


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    member, predicted, scores = (np.array(column) for column in zip(*rows, strict=True))
    return member, predicted, scores.astype(float)


def naive_auc(member: np.ndarray, scores: np.ndarray) -> float:
    pairs = list(product(scores[member == 1], scores[member == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def naive_points(member: np.ndarray, scores: np.ndarray) -> list[tuple[float, float]]:
    """(TPR, FPR) of every threshold, one at a time."""
    thresholds = [math.inf, *sorted(set(scores), reverse=True)]
    positives, negatives = scores[member == 1], scores[member == 0]
    return [(float(np.mean(positives >= t)), float(np.mean(negatives >= t))) for t in thresholds]
