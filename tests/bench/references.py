"""Attacks with references beside their peers' form, on the same made-up answers, in one run.

    python tests/bench/references.py                        # 60,000 samples x 64 references
    python tests/bench/references.py --rows 10000 --references 10

RMIA's peer compares every sample with every z of the population, in blocks of rows, as arXiv 2312.03262 states it.
LiRA's goes through the samples one by one, with scipy's normal density. Both peers do all of the rows.
Stacked references are timed on samples and references of their own, as their work grows with both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # run as a script, not by pytest
from made_references import NAMES, audit, references_of, result_of

from mia_batch.attacks.base import AttackResult
from mia_batch.attacks.lira import lira
from mia_batch.attacks.ratio import log_ratio, rmia_scores
from mia_batch.attacks.sides import References
from mia_batch.attacks.stacked import stack_columns
from mia_batch.metrics.ranking import auc
from mia_batch.process.resources import available_cpus
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples, run_attacks

BLOCK = 500  # rows of the all-pairs matrix at a time
STACK_ROWS, STACK_REFERENCES, STACK_SECONDS = 10_000, 10, 180
STACKS: dict[str, Any] = {
    "stack_lr": {"C": [0.001, 0.01, 0.1, 1.0, 10.0]},
    "stack_knn": {"n_neighbors": [15, 51]},
    "stack_mlp": {"hidden_layer_sizes": [(32,)], "alpha": [0.001]},
    "stack_hgb": {"max_iter": [100], "learning_rate": [0.03, 0.1], "max_leaf_nodes": [7, 15, 31]},
    "stack_rf": {"n_estimators": [100], "max_depth": [5, 10, None], "min_samples_leaf": [1, 4]},
}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def all_pairs(r: np.ndarray, population: np.ndarray, gamma: float) -> np.ndarray:
    """RMIA's shares by the matrix r(x) / r(z), BLOCK rows of it at a time."""
    z = r[population]
    return np.concatenate([
        (r[start : start + BLOCK, np.newaxis] / z >= gamma).mean(axis=1) for start in range(0, len(r), BLOCK)
    ])  # fmt: skip


def lira_loop(refs: References) -> np.ndarray:
    """LiRA's scores, a sample at a time."""
    found = np.empty(len(refs.target))
    for i, (phi, others, inside) in enumerate(zip(refs.target[:, 0], refs.others[:, 0], refs.inside, strict=True)):
        known, unknown = others[inside == 1], others[inside == 0]
        found[i] = stats.norm.logpdf(phi, np.median(known), np.std(known)) - stats.norm.logpdf(
            phi, np.median(unknown), np.std(unknown)
        )
    return found


def compare(name: str, ours: float, peer: float, at_least: float, difference: float) -> bool:
    """Print a line; whether the ratio is as large as asked."""
    factor = peer / ours
    found = f"{ours:8.3f} s  peer {peer:8.2f} s  {factor:7.1f} x (at least {at_least:g})"
    print(f"{name:36} {found}  largest difference {difference:.1e}")
    return factor >= at_least


def compare_rmia(refs: References, member: np.ndarray, gamma: float = 1.0) -> bool:
    """The shares from the ratios, which both forms are given, and the whole attack."""
    seconds, log_r = timed(lambda: log_ratio(refs).values)
    population = np.flatnonzero(member == 0)
    ours, scores = timed(lambda: rmia_scores(log_r, population, gamma=gamma))
    peer, shares = timed(lambda: all_pairs(np.exp(log_r[:, 0]), population, gamma))
    difference = np.abs(scores - shares).max()  # a tie is worth up to 1 / m
    fine = compare("RMIA by sorting, against all pairs", ours, peer, 20, difference)
    whole = (peer + seconds) / (ours + seconds)
    print(f"{'':36} (both are given the ratios, {seconds:.2f} s: with them {whole:.1f} x)")
    return fine


def compare_lira(refs: References) -> bool:
    """The whole attack."""
    ours, scores = timed(lambda: lira(refs).values[:, 0])
    peer, looped = timed(lambda: lira_loop(refs))
    return compare("LiRA, against a loop over samples", ours, peer, 20, np.abs(scores - looped).max())


def _seconds(job: tuple[str, int, int]) -> tuple[str, float]:
    name, rows, k = job
    samples = audit(rows, k)
    return name, timed(lambda: result_of(name, samples))[0]


def all_attacks(rows: int, k: int, n_jobs: int) -> bool:
    """Seconds of each attack with its decision, and of all of them on the cores."""
    with ProcessPoolExecutor(n_jobs) as pool:
        found = dict(pool.map(_seconds, [(name, rows, k) for name in NAMES]))
    print("\n".join(f"{name:20} {seconds:6.2f} s" for name, seconds in found.items()))
    total = sum(found.values())
    print(f"all: {total:.1f} s of a core, about {total / n_jobs:.1f} s on {n_jobs} cores (under 30)")
    return total / n_jobs < 30


def stacks(n_jobs: int) -> bool:
    """Seconds of stacked references, from what references say to scores of the target."""
    settings = AttackConfig(methods=[{"method": name, "params": grid} for name, grid in STACKS.items()])
    made = audit(STACK_ROWS, STACK_REFERENCES)
    refs = references_of(made)

    def work() -> dict[str, AttackResult]:
        rows = stack_columns(refs, cv=settings.cv, max_rows=settings.max_rows, seed=settings.seed)
        return run_attacks(make_samples(made.member, settings, **made.columns, **rows), settings, n_jobs=n_jobs)

    seconds, found = timed(work)
    areas = ", ".join(f"{name} AUC {auc(result.member, result.scores).value:.3f}" for name, result in found.items())
    print(f"{STACK_ROWS} samples x {STACK_REFERENCES} references: {areas}")
    print(f"all five stacks: {seconds:.1f} s on {n_jobs} cores (under {STACK_SECONDS})")
    return seconds < STACK_SECONDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--references", type=int, default=64)
    parser.add_argument("--n-jobs", type=int, default=available_cpus())
    args = parser.parse_args()
    samples = audit(args.rows, args.references)
    refs = references_of(samples)
    print(f"{args.rows} samples x {args.references} references; {args.n_jobs} cores\n")
    fine = [compare_rmia(refs, samples.member), compare_lira(refs)]
    print()
    fine.append(all_attacks(args.rows, args.references, args.n_jobs))
    print()
    fine.append(stacks(args.n_jobs))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
