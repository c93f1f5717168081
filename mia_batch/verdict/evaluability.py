"""Whether an audit of this model can say anything: what a model has not learned it cannot leak, nor a broken input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mia_batch import signals
from mia_batch.verdict.rules import Gate

GUESSING_LEVEL = 0.01  # error of calling members' accuracy better than guessing
BELOW_LEVEL = 1e-4  # error of calling non-members' accuracy worse than guessing
LOW_ACCURACY = 0.9  # on members, of a model that may be fed otherwise than it was in training
TIED = 0.1  # share of a side with one confidence in the label, above which the outputs are too coarse for "no leak"
MANY = 50  # samples of a side, from which on an accuracy says something of the labels
LEAST_TIED = 10  # samples of a side: fewer may be equal by chance
SIDES = ("members", "non-members")
CONSTANT = 1e-6  # of the largest output: outputs that differ by less are the same
LOG_OF_ZERO = float(np.log(np.float32(signals.LEAST)))
BLOCK_VALUES = 1 << 21  # of outputs looked at together


@dataclass(frozen=True)
class Side:
    """How well the model does on members, or on non-members.

    Attributes:
        n: samples.
        accuracy: share whose largest output is at the label; NaN without samples.
        loss: mean cross entropy; NaN without samples.
    """

    n: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Evaluability:
    """The model's own figures, and why an audit of it would mean nothing.

    Attributes:
        members: on the samples that it was trained on.
        nonmembers: on the others.
        reasons: a sentence each, with what to look at; empty if the model is evaluable.
        expected: the model is known to be weak, so that how well it does decides nothing.
        n_rounded: probabilities that their type has rounded to 0.
        known: False where losses are all that is known, which do not say how often the model is right.
        imported: the outputs came from files, so that nothing is known of how the model was fed.
        labels: what the accuracies say against the labels, a sentence each: cautions, as a model may be so.
        tied: of members and of non-members, the largest share that the outputs do not tell apart: see `tied_share`.
    """

    members: Side
    nonmembers: Side
    reasons: tuple[str, ...] = ()
    expected: bool = False
    n_rounded: int = 0
    known: bool = True
    imported: bool = False
    labels: tuple[str, ...] = ()
    tied: tuple[float, float] = (0.0, 0.0)


EXCHANGED = "Look whether the two sides are exchanged, or the non-members easier than the members by themselves."
UNKNOWN = (
    "whether the model is evaluable is not known: losses alone do not say how often it is right on its members. One "
    "that has learned nothing, or was fed wrongly, looks like one that does not leak."
)
LOOK = (
    "Look at the checkpoint, at the labels (data.label, their order) and at the preprocessing (data.mean, data.std,"
    " data.image_size), or set gate.weak_model: true if the model is meant to be so."
)
LOOK_AT_FILES = (
    "Look at the labels in the files and at how the outputs were computed (checkpoint, preprocessing, order of classes "
    "and samples), or set gate.weak_model: true if the model is meant to be so."
)


def evaluability(
    outputs: NDArray[np.floating], labels: NDArray[np.integer], member: NDArray[np.integer], *,
    output: str = "logits", weak: bool = False, imported: bool = False,
) -> Evaluability:
    """Look at the model's outputs before any attack's.

    Args:
        outputs: logits, shape (n_samples, n_classes); may be mapped from a file, and is read in blocks.
        labels: true classes, shape (n_samples,).
        member: membership, shape (n_samples,), 0 or 1.
        output: what the outputs are declared to be, of `signals.OUTPUTS`; probabilities have been made logits already.
        weak: the model is untrained or weak on purpose: how well it does decides nothing, what its outputs are does.
        imported: the outputs came from files.

    Raises:
        ValueError: wrong shapes or values.
    """
    if output not in signals.OUTPUTS:
        raise ValueError(f"output: must be one of {', '.join(signals.OUTPUTS)}, got {output!r}")
    right, loss = signals.correctness(outputs, labels), signals.loss(outputs, labels)
    seen = np.asarray(member) == 1
    members, nonmembers = (_side(right[rows], loss[rows]) for rows in (seen, ~seen))
    look = LOOK_AT_FILES if imported else LOOK
    faults = _faults_of_outputs(outputs, output, imported=imported)
    if not faults and not weak:
        faults = _faults_of_learning(members, nonmembers, np.asarray(labels)[seen], outputs.shape[1], look)
    doubts = [] if faults else _doubts_of_labels(members, nonmembers, np.asarray(labels)[~seen], outputs.shape[1])
    n_rounded = sum(int((block <= LOG_OF_ZERO).sum()) for block in _blocks(outputs)) if output != "logits" else 0
    return Evaluability(
        members, nonmembers, tuple(faults), weak, n_rounded, imported=imported, labels=tuple(doubts)
    )  # fmt: skip


def evaluability_of_losses(
    loss: NDArray[np.floating], labels: NDArray[np.integer] | None, member: NDArray[np.integer], *, weak: bool = False
) -> Evaluability:
    """What losses alone say: a fault that they show is one, and without any, evaluability is not known.

    Args:
        loss: cross entropies, shape (n_samples,).
        labels: true classes, shape (n_samples,); None where they are not known.
        member: membership, shape (n_samples,), 0 or 1.
        weak: as `evaluability` has it.
    """
    seen = np.asarray(member) == 1
    members, nonmembers = (Side(len(own), math.nan, float(own.mean()) if len(own) else math.nan)
                           for own in (loss[seen], loss[~seen]))  # fmt: skip
    faults = []
    if len(loss) > 1 and loss.max() - loss.min() <= CONSTANT * max(loss.max(), CONSTANT):
        faults = ["the model has the same loss on every sample. Look at the checkpoint and at the preprocessing."]
    elif labels is not None and not weak and members.n:
        faults = _gross_loss(members, int(labels.max()) + 1, LOOK_AT_FILES)
    return Evaluability(members, nonmembers, tuple(faults), weak, known=False, imported=True)


def gap_exceeds(model: Evaluability, gate: Gate) -> str:
    """That whoever calls a member what the model is right on (Yeom et al. 2018) exceeds the gate's level; else "".

    Also where it is right on more of the non-members.
    """
    gap = model.members.accuracy - model.nonmembers.accuracy
    balanced, level = (1 + abs(gap)) / 2, gate.level
    if level is None or not balanced > level:
        return ""
    said = (
        f"the model is right on {model.members.accuracy:.1%} of members and {model.nonmembers.accuracy:.1%} of "
        f"non-members, which alone is a balanced accuracy of {balanced:.4f}, above {level:g}"
    )
    advice = "The attacks that were made miss it. Add the attack correctness." if gap > 0 else EXCHANGED
    return f"{said}. {advice}"


def tied_share(signal: NDArray[np.floating], same: NDArray[np.integer] | None = None) -> float:
    """The largest share of samples with one value of a signal of the label; 0 where that is fewer than `LEAST_TIED`.

    The confidence of an honest network differs from sample to sample however sure it is: its float32 logits are apart
    where probabilities are all 1. Where many tie, outputs were rounded, or kept in a type that is too short.

    Args:
        signal: of the samples of a side, shape (n_samples,).
        same: a number for each different input, shape (n_samples,): samples of one input tie by themselves, and count
            as one; None where inputs are not known.
    """
    values = signal if same is None else signal[np.unique(same, return_index=True)[1]]
    largest = int(np.unique(values, return_counts=True)[1].max(initial=0))
    return largest / len(values) if largest >= LEAST_TIED else 0.0


def too_coarse(model: Evaluability) -> str:
    """That the outputs do not tell many samples of a side apart, so that no attack can; else ""."""
    shares = [f"{share:.1%} of {side}" for share, side in zip(model.tied, SIDES, strict=True) if share > TIED]
    if not shares:
        return ""
    advice = "Export logits, or probabilities" if model.known else "Export logits instead, or losses"
    return (
        f"the outputs are too coarse: by them {' and '.join(shares)} have one and the same confidence in their label, "
        f"and a leak among those does not show. {advice} with all their digits, neither rounded nor in float16."
    )


def not_known(model: Evaluability) -> str:
    """Why "no leak" cannot be said where nobody knows whether the model is evaluable; "" where that is known."""
    if model.known or model.reasons or model.expected:
        return ""
    return (
        "losses alone do not say whether the model is evaluable, and one that was fed wrongly does not seem to leak "
        "either. Import logits or probabilities, or set gate.weak_model: true to judge it all the same."
    )


def low_accuracy(model: Evaluability) -> str | None:
    """What to look at where a model is right on fewer of its members than trained ones mostly are."""
    if model.expected or model.reasons or not model.members.accuracy < LOW_ACCURACY:
        return None
    keys = "" if model.imported else " (data.mean, data.std, data.image_size)"
    return (
        f"the model is right on {model.members.accuracy:.1%} of its members. If it was right on more of them in "
        f"training, the preprocessing differs from that of training{keys}, which hides a leak."
    )


def _side(right: NDArray[np.float64], loss: NDArray[np.float64]) -> Side:
    n = len(right)
    return Side(n, float(right.mean()), float(loss.mean())) if n else Side(0, math.nan, math.nan)


def _faults_of_outputs(outputs: NDArray[np.floating], output: str, *, imported: bool = False) -> list[str]:
    """Outputs that are all the same, or are not what they are declared to be."""
    low, high = np.full(outputs.shape[1], np.inf), np.full(outputs.shape[1], -np.inf)
    probable = output == "logits"
    for block in _blocks(outputs):
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        off = abs(block.sum(axis=1) - 1)
        probable = probable and bool((block >= 0).all()) and bool((off < signals.SUM_TOLERANCE).all())
    if len(outputs) > 1 and (high - low).max() <= CONSTANT * max(abs(low).max(), abs(high).max(), CONSTANT):
        return ["the model gives every sample the same outputs. Look at the checkpoint and at the preprocessing."]
    advice = (
        "data.columns.probabilities to their name" if imported else "model.output: probabilities, or take the softmax "
        "out of the network, or out of the function of model.output"
    )
    if probable and len(outputs):
        return [
            "every row of outputs is at least 0 and sums to 1: they are probabilities, and logits are declared. Set "
            f"{advice}."
        ]
    if output == "logits" and _is_one_probability(low, high):
        return [
            "the one output for each sample is in [0, 1] everywhere: it is a probability, and a logit is declared. Set "
            f"{advice.replace('softmax', 'sigmoid')}."
        ]
    return []


def _is_one_probability(low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether the one logit z of rows [0, z] is never outside [0, 1].

    A logit that is never negative calls no sample a 0; one that is never above 1 is nowhere surer than 73 %.
    """
    return len(low) == 2 and low[0] == high[0] == 0 and low[1] >= 0 and high[1] <= 1


def _blocks(outputs: NDArray[np.floating]) -> Iterator[NDArray[np.float64]]:
    rows = max(1, BLOCK_VALUES // outputs.shape[1])
    return (np.asarray(outputs[start : start + rows], dtype=np.float64) for start in range(0, len(outputs), rows))


def _faults_of_learning(
    members: Side, nonmembers: Side, labels: NDArray[np.integer], n_classes: int, look: str
) -> list[str]:
    """A model that does not know what it was trained on."""
    if not members.n:
        return []
    chance, guess = 1 / n_classes, _guess(labels, n_classes)
    right = round(members.accuracy * members.n)
    if stats.binom.sf(right - 1, members.n, guess) > GUESSING_LEVEL:
        return [
            f"the model is right on {members.accuracy:.1%} of its {members.n} members, no better than guessing "
            f"({guess:.1%}, by an exact binomial test at {GUESSING_LEVEL:g}). {look}"
        ]
    if fault := _gross_loss(members, n_classes, look):
        return fault
    if nonmembers.n and stats.binom.cdf(round(nonmembers.accuracy * nonmembers.n), nonmembers.n, chance) < BELOW_LEVEL:
        return [
            f"the model is right on {nonmembers.accuracy:.1%} of {nonmembers.n} non-members, less often than by "
            f"guessing ({chance:.1%}, by an exact binomial test at {BELOW_LEVEL:g}): their labels or images are not "
            f"those of the members' kind. {look}"
        ]
    return []


def _guess(labels: NDArray[np.integer], n_classes: int) -> float:
    """How often a guess of the commonest class is right.

    Samples of one class alone say nothing of that.
    """
    counts, chance = np.bincount(labels), 1 / n_classes
    return max(chance, float(counts.max()) / len(labels)) if np.count_nonzero(counts) > 1 else chance


def _doubts_of_labels(
    members: Side, nonmembers: Side, labels: NDArray[np.integer], n_classes: int
) -> list[str]:
    """Accuracies that labels in another order, or made from the outputs, give; `labels` are the non-members'."""
    if min(members.n, nonmembers.n) < MANY:
        return []
    if members.accuracy == nonmembers.accuracy == 1:
        return [
            f"the model is right on all {members.n} members and all {nonmembers.n} non-members. If the labels are its "
            "own predictions instead of the true classes, that hides a leak."
        ]
    guess, right = _guess(labels, n_classes), round(nonmembers.accuracy * nonmembers.n)
    by_chance = stats.binom.sf(right - 1, nonmembers.n, guess) > GUESSING_LEVEL
    if by_chance and members.accuracy >= (1 + guess) / 2:
        return [
            f"the model is right on {members.accuracy:.1%} of members and on {nonmembers.accuracy:.1%} of non-members, "
            f"no better than guessing ({guess:.1%}). If the non-members' labels are not in the order of their outputs, "
            "as of a loader that shuffles and was read twice, the audit finds that and no leak."
        ]
    return []


def _gross_loss(members: Side, n_classes: int, look: str) -> list[str]:
    if n_classes < 2 or not members.loss > math.log(n_classes):
        return []
    return [
        f"the model's mean loss on its members is {members.loss:.2f}, more than that of equal probabilities "
        f"(ln {n_classes} = {math.log(n_classes):.2f}). {look}"
    ]
