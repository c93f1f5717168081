"""How strong each attack is with K references: the figures of docs/which_attack.md, as Markdown.

    python tests/bench/which_attack.py                                  # 18 trainings, 6 targets
    python tests/bench/which_attack.py --targets 2 --references 1 2 4   # a part of it

Samples are drawn: vectors about several centres of their class, a tenth of them with a label by chance, which a network
can only learn by heart. The pool's networks are trained in MindSpore, in complementary pairs by fair coins, until they
are right on their samples. Some of them play the target: its complement is left out, and its references are the pairs
that come next. A cell has the median over targets, and the least and the largest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mia_batch.attacks.reference_plan import plan_references
from mia_batch.attacks.sides import References
from mia_batch.attacks.stacked import stack_columns
from mia_batch.metrics.ranking import auc, tpr_at_fpr
from mia_batch.settings.schema import AttackConfig
from mia_batch.signals import signal_columns
from mia_batch.stages.attack import make_samples, run_attacks

CLASSES, CENTRES, WIDE, NOISE, WRONG = 10, 8, 30, 1.3, 0.1
EPOCHS, BATCH, RATE = 20, 64, 0.05
RESOLVED_BY = {0.01: 1000, 0.001: 10_000}  # non-members at least, by false positive rate
WITHOUT = ["threshold_loss", "correctness"]
OFFLINE = ["attack_r", "calibration", "lira_offline", "rmia_offline", "pmia_class"]
ONLINE = ["squared_difference", "lira", "lira_fixed", "lira_bayes", "rmia"]
STACKS: dict[str, Any] = {"stack_lr": {"C": [0.01, 1.0]}, "stack_hgb": {"max_iter": [100], "max_leaf_nodes": [7, 15]}}
METHODS = [*WITHOUT, *OFFLINE, *ONLINE, *STACKS]


@dataclass(frozen=True)
class Pool:
    """Networks of complementary pairs, and what they say of every sample."""

    label: np.ndarray  # (n_samples,)
    included: np.ndarray  # bool (n_networks, n_samples)
    logits: np.ndarray  # (n_networks, n_samples, n_classes)

    def phi(self, network: int) -> np.ndarray:
        """(n_samples,)."""
        return signal_columns(self.logits[network], self.label, ["confidence"])["confidence"]


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, WIDE) and labels (n,)."""
    rng = np.random.default_rng(seed)
    centre, label = rng.normal(size=(CLASSES, CENTRES, WIDE)), rng.integers(0, CLASSES, n)
    X = centre[label, rng.integers(0, CENTRES, n)] + NOISE * rng.normal(size=(n, WIDE))
    return X.astype(np.float32), np.where(rng.random(n) < WRONG, rng.integers(0, CLASSES, n), label).astype(np.int32)


def trained(X: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> nn.Cell:
    """A network of dense layers that has seen these samples `epochs` times."""
    ms.set_seed(seed)
    network = nn.SequentialCell(
        nn.Dense(WIDE, 256), nn.ReLU(), nn.Dense(256, 256), nn.ReLU(), nn.Dense(256, CLASSES)
    )  # fmt: skip
    n_steps = epochs * (len(y) // BATCH)
    rates = RATE / 2 * (1 + np.cos(np.pi * np.arange(n_steps) / n_steps))
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    optimizer = nn.Momentum(network.trainable_params(), ms.Tensor(rates.astype(np.float32)), 0.9)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, loss), optimizer).set_train()
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for rows in order[: len(y) // BATCH * BATCH].reshape(-1, BATCH):
            step(ms.Tensor(X[rows]), ms.Tensor(y[rows]))
    return network.set_train(False)


def make_pool(n: int, n_networks: int, epochs: int, seed: int) -> Pool:
    """Train the networks, one after the other."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    X, label = drawn(n, seed)
    plan = plan_references(np.arange(n), n_networks, seed)
    logits = []
    for number, (inside, own) in enumerate(zip(plan.included, plan.seeds, strict=True)):
        network = trained(X[inside], label[inside], epochs, int(own) % 2**31)
        logits.append(network(ms.Tensor(X)).asnumpy())
        right = logits[-1].argmax(axis=1) == label
        said = f"right on {right[inside].mean():.4f} of its samples, {right[~inside].mean():.4f} of the others"
        print(f"network {number}: {said}", file=sys.stderr, flush=True)
    return Pool(label, plan.included, np.stack(logits))


def references_of(n_networks: int, target: int, k: int) -> list[int]:
    """K networks of the pairs that come after the target's own; of one, the first of the pair."""
    pairs = [(target // 2 + step) % (n_networks // 2) for step in range(1, n_networks // 2)]
    return [network for pair in pairs for network in (2 * pair, 2 * pair + 1)][:k]


def scores_of(pool: Pool, target: int, k: int, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each attack that K references allow, (n_samples,), every sample scored."""
    settings = AttackConfig(backend="serial", methods=[
        {"method": name, "params": STACKS[name]} if name in STACKS else {"method": name} for name in methods
    ])  # fmt: skip
    others = references_of(len(pool.included), target, k)
    phi, others_phi = pool.phi(target)[:, None], np.stack([pool.phi(each) for each in others], axis=1)[:, None, :]
    inside, label = pool.included[others].T.astype(np.int8), pool.label
    columns = signal_columns(pool.logits[target], label, ["loss", "correctness"])
    stack = set(methods) & set(STACKS) and stack_columns(
        References(phi, others_phi, inside, label), cv=settings.cv, max_rows=settings.max_rows, seed=settings.seed
    )
    samples = make_samples(
        pool.included[target], settings, query_phi=phi, reference_phi=others_phi, reference_in=inside, label=label,
        **columns, **(stack or {}),
    )  # fmt: skip
    found = run_attacks(samples, settings, n_jobs=1)
    return {name: result.scores for name, result in found.items() if not result.not_run}


def measured(member: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """AUC, and the true positive rates that so many non-members resolve."""
    n_out = int((~member).sum())
    rates = {f: tpr_at_fpr(member, scores, f).value for f, least in RESOLVED_BY.items() if n_out >= least}
    return {"AUC": auc(member, scores).value, **{f"TPR at {f:.1%} FPR": value for f, value in rates.items()}}


def cell(values: Sequence[float]) -> str:
    """Median, least and largest over targets."""
    shown = [f"{value:.3f}".removeprefix("0") for value in (np.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def tables(found: dict[tuple[str, int], list[dict[str, float]]], counts: Sequence[int]) -> str:
    """A table for each metric, with a line for each attack."""
    names = list(dict.fromkeys(name for name, _ in found))
    parts = []
    for metric in next(iter(found.values()))[0]:
        lines = [f"| {metric} |" + "".join(f" K = {k} |" for k in counts), "|---" * (len(counts) + 1) + "|"]
        for name in names:
            cells = (cell([each[metric] for each in found[name, k]]) if (name, k) in found else "" for k in counts)
            lines.append(f"| `{name}` |" + "".join(f" {each} |" for each in cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=21_000)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="K")
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="ATTACK")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    n_pairs = -(-max(args.references) // 2) + 1
    if not 1 <= args.targets <= 2 * n_pairs or min(args.references) < 1:
        parser.error(f"--targets: must be from 1 to {2 * n_pairs}, and --references at least 1")
    pool = make_pool(args.samples, 2 * n_pairs, args.epochs, args.seed)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for k in args.references:
        for target in np.linspace(0, 2 * n_pairs, args.targets, endpoint=False).astype(int).tolist():
            for name, scores in scores_of(pool, target, k, args.methods).items():
                found.setdefault((name, k), []).append(measured(pool.included[target], scores))
        print(f"K = {k}: done", file=sys.stderr, flush=True)
    print(tables(found, args.references))
    return 0


if __name__ == "__main__":
    sys.exit(main())
