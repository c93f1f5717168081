"""How often the gate says what is not so, on attacks and on data whose truth is known.

    python tests/bench/gate_validity.py                # 2,000 trials of each design; a Markdown table
    python tests/bench/gate_validity.py --trials 200

LEAK may be said in 5 % of the trials without a leak above the level, NO LEAK in 5 % of those with one just above it.
Attacks are simulated by their decisions, or are the real ones, cross-fitted on drawn features.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated_attacks import decisions, exposed, verdict_of

from mia_batch.attacks.base import AttackResult, AttackSettings
from mia_batch.attacks.grouping import group_codes
from mia_batch.attacks.registry import ATTACKS
from mia_batch.metrics.base import UndefinedMetricWarning
from mia_batch.samples import Samples
from mia_batch.search.tasks import execute
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples
from mia_batch.stages.reduce import scored
from mia_batch.verdict.measures import Scored
from mia_batch.verdict.rules import Gate

METHODS: tuple[dict[str, object], ...] = (
    {"method": "lr", "params": {"C": [0.01, 1.0]}}, {"method": "knn", "params": {"n_neighbors": [5]}},
)  # fmt: skip
N_COLUMNS = 4
Trial = Callable[[np.random.Generator], Mapping[str, Scored]]


@dataclass(frozen=True)
class Design:
    """What is drawn, and the outcome that may not be frequent: "leak", "no leak", or "" where a leak must be found."""

    name: str
    trial: Trial
    wrong: str
    limit: float = 0.05


def attacked(X: NDArray[np.float64], member: NDArray[np.int8], group: NDArray[np.int64] | None) -> dict[str, Scored]:
    """Real attacks on drawn features, as the attack stage and the reducer make them, in this process."""
    attack = AttackConfig(methods=METHODS, cv=2)  # the folds of the search do not matter here
    samples = make_samples(member, attack, group=group, features=X)
    told = {each.method: AttackSettings(each.params, attack.seed) for each in attack.methods}
    return {name: scored(_result(samples, name, its), {}, Gate(), group) for name, its in told.items()}


def _result(samples: Samples, name: str, settings: AttackSettings) -> AttackResult:
    found: dict[str, object] = {}
    for task in ATTACKS[name].tasks(samples, settings):  # searches first, refits after them
        work = task.work.given({key: found[key] for key in task.after}) if task.after else task.work  # type: ignore[union-attr]
        found[task.key] = execute(samples, task.key, work).result if work is not None else None  # type: ignore[arg-type]
    return ATTACKS[name].result(samples, settings, found)


def cross_fitted(
    rng: np.random.Generator, *, m: int, n: int, shift: float = 0.0, step: float = 0.0
) -> dict[str, Scored]:
    """Rows that stand alone; a shift of the first column in members, a step to which values are rounded."""
    member = np.repeat([1, 0], (m, n)).astype(np.int8)
    X = rng.normal(size=(m + n, N_COLUMNS))
    X[:, 0] += shift * member
    return attacked(np.round(X / step) * step if step else X, member, None)


def views(rng: np.random.Generator, *, n_groups: int, size: int) -> dict[str, Scored]:
    """Several views of one image, which differ by little; membership is the image's, by lot."""
    group = np.repeat(np.arange(2 * n_groups), size)
    X = rng.normal(size=(2 * n_groups, N_COLUMNS))[group] + 0.05 * rng.normal(size=(len(group), N_COLUMNS))
    return attacked(X, (group < n_groups).astype(np.int8), group_codes(None, group, len(group)))


def simulated(rng: np.random.Generator, *, n: int, accuracy: float, n_attacks: int = 4) -> dict[str, Scored]:
    """Correlated attacks of one balanced accuracy."""
    return decisions(rng, n, accuracy, n_attacks)


def unequal(rng: np.random.Generator, *, m: int, n: int, accuracy: float) -> dict[str, Scored]:
    """Of equal sides so many rows are kept."""
    kept = np.r_[:m, max(m, n) : max(m, n) + n]
    return {
        name: Scored(each.member[kept], each.predicted[kept], each.scores[kept], {})
        for name, each in decisions(rng, max(m, n), accuracy, 4).items()
    }


def a_share_exposed(rng: np.random.Generator, *, n: int, share: float) -> dict[str, Scored]:
    """One attack that knows a share of the members, and three that know nothing."""
    return {"known": exposed(rng, n, share), **decisions(rng, n, 0.5, 3)}


def designs() -> Iterator[Design]:
    """All of them, the cheap ones first."""
    for n in (50, 200, 1000, 2000):
        for accuracy, wrong in ((0.5, "leak"), (0.6, "leak"), (0.602, "no leak")):
            trial = partial(simulated, n=n, accuracy=accuracy)
            yield Design(f"4 attacks, balanced accuracy {accuracy:g}; {n} a side", trial, wrong)
    for m, n in ((50, 500), (500, 50), (200, 2000), (2000, 200)):
        for accuracy, wrong in ((0.5, "leak"), (0.6, "leak"), (0.602, "no leak")):
            trial = partial(unequal, m=m, n=n, accuracy=accuracy)
            yield Design(f"4 attacks, balanced accuracy {accuracy:g}; {m} against {n}", trial, wrong)
    yield Design("30% of members exposed; 1000 a side", partial(a_share_exposed, n=1000, share=0.3), "")
    yield Design("10% of members exposed; 200 a side", partial(a_share_exposed, n=200, share=0.1), "no leak")
    for n in (50, 200, 500):
        yield Design(f"cross-fitted on noise; {n} a side", partial(cross_fitted, m=n, n=n), "leak")
    for m, n in ((50, 500), (500, 50)):
        yield Design(f"cross-fitted on noise; {m} against {n}", partial(cross_fitted, m=m, n=n), "leak")
    yield Design("cross-fitted on noise, tied; 200 a side", partial(cross_fitted, m=200, n=200, step=2.0), "leak")
    # Normals .5067 apart: the best threshold has a balanced accuracy of .6, and no attack has more.
    for n in (100, 400):
        yield Design(f"cross-fitted at the level; {n} a side", partial(cross_fitted, m=n, n=n, shift=0.5067), "leak")
    yield Design("cross-fitted on normals 2 apart; 100 a side", partial(cross_fitted, m=100, n=100, shift=2.0), "")
    for size in (2, 10):
        trial = partial(views, n_groups=100, size=size)
        yield Design(f"cross-fitted on noise, {size} views each of 100 images a side", trial, "leak")


def outcomes(design: Design, *, trials: int, seed: int) -> Counter[str]:
    """How often the gate says what."""
    rng, found = np.random.default_rng(seed), Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for _ in range(trials):
            found[verdict_of(design.trial(rng)).outcome] += 1
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of each design (2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="designs whose names hold this")
    args = parser.parse_args()
    print(f"Outcomes of the default gate, {args.trials} trials of each design\n")
    print("| design | LEAK | NO LEAK | INCONCLUSIVE | must hold |\n|---|--:|--:|--:|---|")
    for design in designs():
        if args.only in design.name:
            found = outcomes(design, trials=args.trials, seed=args.seed)
            shares = " | ".join(f"{found[name] / args.trials:.4f}" for name in ("leak", "no leak", "inconclusive"))
            rule = f"{design.wrong.upper()} at most {design.limit:g}" if design.wrong else "LEAK at least 0.95"
            print(f"| {design.name} | {shares} | {rule} |", flush=True)


if __name__ == "__main__":
    main()
