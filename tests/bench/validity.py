"""How often each interval holds the truth, and how wide it is, on populations whose true values are known.

    python tests/bench/validity.py                    # 2,000 trials of each design, some 20 minutes; a Markdown table
    python tests/bench/validity.py --trials 200 --details

A 95 % interval may miss in 5 % of the trials, half on either side. One that never misses is too wide to be of use.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from mia_batch.metrics.base import LEVEL, Counts, Estimate, Interval, UndefinedMetricWarning, rate_lower, rate_upper
from mia_batch.metrics.classification import accuracy, balanced_accuracy, precision, predictive_value, recall
from mia_batch.metrics.comparison import auc_difference
from mia_batch.metrics.ranking import FPRS, advantage, auc, fpr_name, tpr_at_fpr

SIDES = ((50, 50), (200, 200), (2000, 2000), (50, 500), (500, 50), (200, 2000))  # members, non-members
RATES = ((0.5, 0.5), (0.65, 0.4), (0.3, 0.02), (0.97, 0.1))  # TPR and FPR of decisions
PRIORS = (0.5, 0.1, 0.01)
ENOUGH = 10  # non-members expected above a threshold, from which on a TPR's interval must be narrow

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Population:
    """Scores of members and non-members with what is true of them.

    Attributes:
        name: in words.
        members: draws n scores.
        nonmembers: draws n scores.
        auc: probability of a member above a non-member, ties one half.
        advantage: the largest TPR - FPR.
        tpr: the largest TPR at which the FPR is at most the argument.
        tied: whether scores are equal so often that it matters.
    """

    name: str
    members: Draw
    nonmembers: Draw
    auc: float
    advantage: float
    tpr: Callable[[float], float]
    tied: bool = False


def exposed(share: float, shift: float) -> Population:
    """Non-members are standard normal, and so are members but for a share, which lies higher."""

    def members(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.normal(size=n) + shift * (rng.random(n) < share)

    def tpr(fpr: float) -> float:
        return (1 - share) * fpr + share * float(stats.norm.cdf(shift + stats.norm.ppf(fpr)))

    return Population(
        f"{share:.0%} of members {shift:g} higher", members, lambda rng, n: rng.normal(size=n),
        (1 - share) / 2 + share * float(stats.norm.cdf(shift / math.sqrt(2))),
        share * float(2 * stats.norm.cdf(shift / 2) - 1), tpr,
    )  # fmt: skip


def levels(name: str, members: Sequence[float], nonmembers: Sequence[float]) -> Population:
    """Scores on a few levels, lowest first, with these probabilities."""
    p, q = np.array(members), np.array(nonmembers)
    above = [(float(p[i:].sum()), float(q[i:].sum())) for i in range(len(p) + 1)]

    def draw(mass: np.ndarray) -> Draw:
        return lambda rng, n: rng.choice(len(mass), n, p=mass).astype(float)

    return Population(
        name, draw(p), draw(q), float(sum(p[i] * (q[:i].sum() + q[i] / 2) for i in range(len(p)))),
        max(tpr - fpr for tpr, fpr in above), lambda limit: max(tpr for tpr, fpr in above if fpr <= limit + 1e-12),
        tied=True,
    )  # fmt: skip


def rounded(step: float, shift: float) -> Population:
    """Normals shifted against each other, rounded to multiples of `step`."""
    edges = np.concatenate([[-np.inf], np.arange(-6, 8, step) + step / 2, [np.inf]])
    return levels(
        f"normals {shift:g} apart, rounded to {step:g}", np.diff(stats.norm.cdf(edges, shift)),
        np.diff(stats.norm.cdf(edges)),
    )  # fmt: skip


FEW_EXPOSED = exposed(0.1, 4.0)
POPULATIONS = (
    exposed(1.0, 0.0), exposed(1.0, 1.0), exposed(1.0, 3.0), FEW_EXPOSED, rounded(0.5, 1.0),
    levels("votes of 3 neighbours", stats.binom.pmf(range(4), 3, 0.7), stats.binom.pmf(range(4), 3, 0.4)),
)  # fmt: skip


@dataclass(frozen=True)
class Tally:
    """What became of one metric's intervals in one design.

    Attributes:
        metric: its name.
        design: population, or rates, and sides.
        expected: non-members expected above the threshold of a TPR at an FPR; NaN for other metrics.
        tied: whether scores are tied.
        trials: intervals that were made.
        too_high: share whose lower end is above the truth.
        too_low: share whose upper end is below it.
        width: mean.
        plain_width: mean of two steps at a quarter of the error each; NaN for other metrics.
    """

    metric: str
    design: str
    expected: float
    tied: bool
    trials: int
    too_high: float
    too_low: float
    width: float
    plain_width: float

    @property
    def coverage(self) -> float:
        """Share of intervals that hold the truth."""
        return 1 - self.too_high - self.too_low

    @property
    def narrowness(self) -> float:
        """Width in widths of the two steps."""
        return self.width / self.plain_width


def tally(metric: str, design: str, truth: float, intervals: Iterable[Interval], **more: float) -> Tally:
    """The counts of one metric; `more` are the fields that not every metric has."""
    low, high = np.array(list(intervals)).T
    fields = {"expected": math.nan, "tied": False, "plain_width": math.nan} | more
    rounding = 1e-9  # of a truth that equals an end
    return Tally(
        metric=metric, design=design, trials=len(low), too_high=float(np.mean(low > truth + rounding)),
        too_low=float(np.mean(high < truth - rounding)), width=float(np.mean(high - low)), **fields,
    )  # type: ignore[arg-type]  # fmt: skip


def score_tallies(population: Population, sides: tuple[int, int], *, trials: int, seed: int) -> Iterator[Tally]:
    """Intervals of the metrics of scores."""
    rng, member = np.random.default_rng(seed), np.repeat([1, 0], sides)
    found: dict[str, list[Interval]] = {name: [] for name in ("auc", "advantage", *map(fpr_name, FPRS))}
    plain: dict[float, list[Interval]] = {fpr: [] for fpr in FPRS}
    for _ in range(trials):
        scores = np.concatenate([population.members(rng, sides[0]), population.nonmembers(rng, sides[1])])
        estimates = {"auc": auc(member, scores), "advantage": advantage(member, scores)}
        estimates |= {fpr_name(fpr): tpr_at_fpr(member, scores, fpr) for fpr in FPRS}
        for name, estimate in estimates.items():
            found[name].append((estimate.low, estimate.high))
        for fpr in FPRS:
            plain[fpr].append(two_steps(scores[: sides[0]], scores[sides[0] :], fpr))
    design = f"{population.name}; {sides[0]} against {sides[1]}"
    yield tally("auc", design, population.auc, found["auc"], tied=population.tied)
    yield tally("advantage", design, population.advantage, found["advantage"], tied=population.tied)
    for fpr in FPRS:
        width = float(np.mean([high - low for low, high in plain[fpr]]))
        yield tally(
            fpr_name(fpr), design, population.tpr(fpr), found[fpr_name(fpr)], expected=sides[1] * fpr,
            tied=population.tied, plain_width=width,
        )  # fmt: skip


def two_steps(positives: np.ndarray, negatives: np.ndarray, fpr: float) -> Interval:
    """Bounds of the threshold by ranks of non-members, and of the TPR there, each at a quarter of the error."""
    few, many = _ranks(len(negatives), fpr)
    ordered, m, tail = np.sort(negatives)[::-1], len(positives), (1 - LEVEL) / 4

    def above(k: int) -> int:
        return int((positives > ordered[k]).sum()) if k < len(ordered) else m

    return float(rate_lower(above(few), m, tail)) if few >= 0 else 0.0, float(rate_upper(above(many), m, tail))


@cache
def _ranks(n: int, fpr: float) -> tuple[int, int]:
    tail = (1 - LEVEL) / 4
    few = int(stats.binom.ppf(tail, n, fpr))
    return few - int(stats.binom.cdf(few, n, fpr) > tail), int(stats.binom.isf(tail, n, fpr))


def difference_tally(sides: tuple[int, int], shift: float, shared: float, *, trials: int, seed: int) -> Tally:
    """Intervals of the AUC of one attack less that of another with half its shift, with a common part of the noise."""
    rng, member = np.random.default_rng(seed), np.repeat([1, 0], sides)
    truth = float(stats.norm.cdf(shift / math.sqrt(2)) - stats.norm.cdf(shift / math.sqrt(8)))
    intervals = []
    for _ in range(trials):
        common = math.sqrt(shared) * rng.normal(size=len(member))
        one, other = (common + rng.normal(s * member, math.sqrt(1 - shared)) for s in (shift, shift / 2))
        found = auc_difference(member, one, other)
        intervals.append((found.low, found.high))
    design = f"normals {shift:g} and {shift / 2:g} apart, noise {shared:.0%} common; {sides[0]} against {sides[1]}"
    return tally("auc difference", design, truth, intervals)


def decision_tallies(rates: tuple[float, float], sides: tuple[int, int], *, trials: int, seed: int) -> Iterator[Tally]:
    """Intervals of the metrics of decisions; a trial in which one has no value does not count for it."""
    rng, share = np.random.default_rng(seed), sides[0] / sum(sides)
    tp, fp = (rng.binomial(n, rate, trials).tolist() for n, rate in zip(sides, rates, strict=True))
    drawn = [_decision_estimates(Counts(a, sides[0] - a, b, sides[1] - b)) for a, b in zip(tp, fp, strict=True)]
    truth = {
        "accuracy": share * rates[0] + (1 - share) * (1 - rates[1]), "recall": rates[0],
        "precision": share * rates[0] / (share * rates[0] + (1 - share) * rates[1]),
        "balanced_accuracy": (rates[0] + 1 - rates[1]) / 2,
    }  # fmt: skip
    truth |= {f"value at prior {pi:g}": pi * rates[0] / (pi * rates[0] + (1 - pi) * rates[1]) for pi in PRIORS}
    design = f"TPR {rates[0]:g}, FPR {rates[1]:g}; {sides[0]} against {sides[1]}"
    for name, value in truth.items():
        yield tally(name, design, value, [(each[name].low, each[name].high) for each in drawn if each[name].defined])


@cache
def _decision_estimates(counts: Counts) -> Mapping[str, Estimate]:
    order = (counts.tp, counts.fn, counts.fp, counts.tn)
    member, predicted = np.repeat([1, 1, 0, 0], order), np.repeat([1, 0, 1, 0], order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # such a trial is left out
        found = {each.__name__: each(member, predicted) for each in (accuracy, recall, precision, balanced_accuracy)}
        found |= {f"value at prior {pi:g}": predictive_value(member, predicted, prior=pi) for pi in PRIORS}
    return found


def all_tallies(*, trials: int, seed: int = 0) -> Iterator[Tally]:
    """Every metric in every design."""
    for sides in SIDES:
        for population in POPULATIONS:
            yield from score_tallies(population, sides, trials=trials, seed=seed)
        for rates in RATES:
            yield from decision_tallies(rates, sides, trials=trials, seed=seed)
        for shift, shared in ((0.0, 0.5), (1.0, 0.9), (4.0, 0.0)):
            yield difference_tally(sides, shift, shared, trials=trials, seed=seed)


def summary_table(tallies: Iterable[Tally]) -> str:
    """A row for each metric: the range over its designs."""
    kinds: dict[tuple[str, str], list[Tally]] = {}
    for each in tallies:
        kinds.setdefault((each.metric, _kind(each)), []).append(each)
    rows = ["| metric | scores | designs | coverage | too high, at most | too low, at most | width / two steps |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|")
    order = list(dict.fromkeys(metric for metric, _ in kinds))
    for (metric, kind), group in sorted(kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        coverage = _range([each.coverage for each in group])
        worst = [f"{max(getattr(each, side) for each in group):.4f}" for side in ("too_high", "too_low")]
        narrow = "" if math.isnan(group[0].narrowness) else _range([each.narrowness for each in group])
        rows.append(" | ".join([f"| {metric}", kind, str(len(group)), coverage, *worst, narrow]) + " |")
    return "\n".join(rows)


def _kind(each: Tally) -> str:
    many = "" if math.isnan(each.expected) else f", n f {'>=' if each.expected >= ENOUGH else '<'} {ENOUGH}"
    return f"tied{many}" if each.tied else f"untied{many}" if many else ""


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"


def details_table(tallies: Iterable[Tally]) -> str:
    """A row for each metric and design."""
    rows = ["| metric | design | coverage | too high | too low | width | width / two steps |", "|---|---|" + "--:|" * 5]
    for each in tallies:
        numbers = (each.coverage, each.too_high, each.too_low, each.width, each.narrowness)
        shown = " | ".join("" if math.isnan(number) else f"{number:.4f}" for number in numbers)
        rows.append(f"| {each.metric} | {each.design} | {shown} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of each design (2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--details", action="store_true", help="a row for each design as well")
    args = parser.parse_args()
    tallies = []
    for each in all_tallies(trials=args.trials, seed=args.seed):
        tallies.append(each)
        print(f"{each.metric}: {each.design}", file=sys.stderr, flush=True)
    print(f"Coverage of {LEVEL:.0%} intervals, {args.trials} trials of each design\n")
    print(summary_table(tallies))
    if args.details:
        print(f"\n{details_table(tallies)}")


if __name__ == "__main__":
    main()
