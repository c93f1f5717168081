"""How often a lower bound of epsilon is above the truth, on mechanisms whose epsilon is known.

    python tests/bench/epsilon_validity.py             # 2,000 trials of each design, some 15 minutes; a Markdown table
    python tests/bench/epsilon_validity.py --trials 200

Membership is by a fair coin. An attack sees a sample's answer, and its decisions are made as those of cross-fitted
attacks are. A bound at 95 % may be above the truth in 5 % of the trials. One that always is 0 is of no use.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mia_batch.metrics.base import LEVEL
from mia_batch.metrics.epsilon import epsilon_of_mu, out_of_fold_decisions, out_of_fold_ranks
from mia_batch.metrics.registry import EPSILONS
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.privacy import Claim, Randomised, judge_claim, privacy

DELTA = 1e-5
N_PARTS = 5
CLAIM = "its claim contradicted"
SIZES = (200, 1000)  # samples
OF_ANY = ("epsilon", "epsilon_at_fprs", "epsilon_one_run")  # bounds that hold for every mechanism
Answer = Callable[[np.random.Generator, NDArray[np.bool_]], NDArray[np.float64]]


@dataclass(frozen=True)
class Mechanism:
    """What it answers about samples, and the epsilon that it keeps.

    Attributes:
        kind: in words.
        answer: scores of samples of this membership, high for members.
        epsilon: the truth, at `DELTA` and thus at 0 unless `mu` is given.
        mu: the truth of a mechanism that is mu-GDP; NaN for others, of which bounds that assume it prove nothing.
    """

    kind: str
    answer: Answer
    epsilon: float
    mu: float = math.nan

    @property
    def truths(self) -> Mapping[str, float]:
        """Of each bound that must hold here."""
        found = dict.fromkeys(OF_ANY, self.epsilon)
        if not math.isnan(self.mu):
            found |= {"mu": self.mu, "epsilon_gaussian": self.epsilon, "epsilon_one_run_gaussian": self.epsilon}
        return found


def randomised_response(rng: np.random.Generator, member: NDArray[np.bool_], *, epsilon: float) -> NDArray[np.float64]:
    """Membership, told truly with probability e^epsilon / (1 + e^epsilon)."""
    return np.where(rng.random(len(member)) < 1 / (1 + math.exp(-epsilon)), member, ~member).astype(float)


def laplace(rng: np.random.Generator, member: NDArray[np.bool_], *, epsilon: float) -> NDArray[np.float64]:
    """Counts 0 or 1 with noise of scale 1 / epsilon."""
    return member + rng.laplace(scale=1 / epsilon, size=len(member))


def normal(rng: np.random.Generator, member: NDArray[np.bool_], *, mu: float) -> NDArray[np.float64]:
    """Normals that are mu apart."""
    return rng.normal(mu * member)


def mechanisms() -> Iterator[Mechanism]:
    """All of them."""
    for truth in (0.5, 1.0, 3.0):
        yield Mechanism("randomised response", partial(randomised_response, epsilon=truth), truth)
        yield Mechanism("Laplace noise", partial(laplace, epsilon=truth), truth)
    for mu in (0.5, 1.5):
        yield Mechanism("normal noise", partial(normal, mu=mu), epsilon_of_mu(mu, DELTA), mu)


def attacked(rng: np.random.Generator, mechanism: Mechanism, n: int) -> Scored:
    """An attack by the answers alone. Its scores come from no fit, so that none counts for less than one."""
    member = rng.random(n) < 0.5
    scores, part = mechanism.answer(rng, member), rng.permutation(np.arange(n) % N_PARTS)
    said = out_of_fold_decisions(member, scores, part, delta=DELTA)
    return Scored(member, said, scores, {}, ranks=out_of_fold_ranks(member, scores, part))


@dataclass(frozen=True)
class Bounds:
    """Lower bounds of one figure, trial by trial, NaN where none was made, and the truth."""

    figure: str
    truth: float
    lows: NDArray[np.float64]

    @property
    def too_high(self) -> float:
        """Share that is above the truth."""
        return float(np.mean(self.lows[~np.isnan(self.lows)] > self.truth + 1e-9))

    @property
    def mean(self) -> float:
        """Mean of the bounds, in truths."""
        return float(np.nanmean(self.lows)) / self.truth


def measure(mechanism: Mechanism, n: int, *, trials: int, seed: int) -> list[Bounds]:
    """Each bound of one mechanism, and how often its true epsilon, claimed by it, is said to be contradicted."""
    rng, lows = np.random.default_rng(seed), {name: np.empty(trials) for name in mechanism.truths}
    contradicted = np.zeros(trials)
    for i in range(trials):
        attack = attacked(rng, mechanism, n)
        m = int(attack.member.sum())
        coins = Randomised(np.ones(n, dtype=bool), m, n - m, False)
        found = privacy(attack, delta=DELTA, randomised=coins, names=lows).figures
        for name in lows:
            lows[name][i] = found[name].low if name in found else math.nan  # such coins are not fair
        claim = Claim(mechanism.epsilon, DELTA)
        judged = judge_claim(claim, {"attack": attack}, coins, n_attacks=1, alpha=1 - LEVEL)
        contradicted[i] = math.nan if judged.contradicted is None else judged.contradicted
    bounds = [Bounds(EPSILONS[name].label, mechanism.truths[name], low) for name, low in lows.items()]
    return [*bounds, Bounds(CLAIM, 0.5, contradicted)]  # 1 is above one half, 0 is not


def table(found: Mapping[str, list[list[Bounds]]]) -> str:
    """A row for each mechanism and bound: the range over the designs."""
    rows = ["| mechanism | bound | designs | above the truth, at most | mean / truth |", "|---|---|--:|--:|--:|"]
    for kind, designs in found.items():
        for each in zip(*designs, strict=True):
            worst, means = max(bounds.too_high for bounds in each), [bounds.mean for bounds in each]
            mean = "" if each[0].figure == CLAIM else f"{min(means):.2f} to {max(means):.2f}"
            rows.append(f"| {kind} | {each[0].figure} | {len(each)} | {worst:.4f} | {mean} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of each design (2000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found: dict[str, list[list[Bounds]]] = {}
    for mechanism, n in product(mechanisms(), SIZES):
        bounds = measure(mechanism, n, trials=args.trials, seed=args.seed)
        found.setdefault(mechanism.kind, []).append(bounds)
        shown = ", ".join(f"{each.figure} {each.too_high:.4f}" for each in bounds)
        print(f"{mechanism.kind}, epsilon {mechanism.epsilon:.2f}, {n} samples: {shown}", file=sys.stderr, flush=True)
    print(f"Lower bounds at {LEVEL:.0%}, delta {DELTA:g}, {args.trials} trials of each design\n")
    print(table(found))


if __name__ == "__main__":
    main()
