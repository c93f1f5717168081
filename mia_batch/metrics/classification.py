"""Metrics of a decision."""

from __future__ import annotations

from numpy.typing import ArrayLike

from mia_batch.metrics.base import (
    LEVEL,
    NO_MEMBERS,
    NO_POSITIVES,
    NO_SAMPLES,
    Estimate,
    check_binary,
    check_level,
    estimate,
    melded_lower,
    missing_class,
    proportion,
    undefined,
)


def accuracy(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of samples whose membership is predicted right, with its Clopper-Pearson interval.

    With fixed numbers of members and non-members the count is a sum of two binomials, which spreads less than the one
    binomial of the interval: coverage is at least `level`.

    Args:
        member: membership, 0 or 1, shape (n_samples,).
        predicted: predicted membership, 0 or 1, shape (n_samples,).
        level: confidence level in (0, 1).

    Raises:
        ValueError: wrong shape, values other than 0 and 1, or a level out of range.
    """
    truth = check_binary("member", member)
    guess = check_binary("predicted", predicted, len(truth))
    return proportion("accuracy", int((truth == guess).sum()), len(truth), NO_SAMPLES, level)


def precision(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members among the samples predicted to be members; NaN where there are none.

    It holds for the base rate of the scored samples. The Clopper-Pearson interval takes the number of positive
    predictions as given. Args and Raises: see `accuracy`.
    """
    truth = check_binary("member", member)
    guess = check_binary("predicted", predicted, len(truth))
    return proportion("precision", int((truth & guess).sum()), int(guess.sum()), NO_POSITIVES, level)


def recall(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Share of members predicted to be members (TPR), with its Clopper-Pearson interval; NaN without members.

    Args and Raises: see `accuracy`.
    """
    truth = check_binary("member", member)
    guess = check_binary("predicted", predicted, len(truth))
    return proportion("recall", int((truth & guess).sum()), int(truth.sum()), NO_MEMBERS, level)


def balanced_accuracy(member: ArrayLike, predicted: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Mean of TPR and TNR: the accuracy at equal numbers of members and non-members; NaN with one class only.

    Its interval melds the two Clopper-Pearson intervals (Fay, Proschan & Brittain 2015, "Combining one-sample
    confidence procedures for inference in the two-sample case", Biometrics 71): enumerated over all outcomes for up to
    30 against 30 samples, either bound misses with a probability of at most (1 - level) / 2. Args and Raises: see
    `accuracy`.
    """
    truth = check_binary("member", member)
    guess = check_binary("predicted", predicted, len(truth))
    check_level(level)
    if cause := missing_class(truth):
        return undefined("balanced_accuracy", cause)
    right = (int((truth & guess).sum()), int((~truth & ~guess).sum()))
    total = (int(truth.sum()), int((~truth).sum()))
    tail = (1 - level) / 2
    low = melded_lower(right, total, tail)
    high = 1 - melded_lower((total[0] - right[0], total[1] - right[1]), total, tail)
    return estimate((right[0] / total[0] + right[1] / total[1]) / 2, (low, high))
