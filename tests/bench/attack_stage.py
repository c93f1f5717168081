"""The attack stage, stock GridSearchCV and MindArmour's attacker on the same features, grids and cores, in one run.

    python tests/bench/attack_stage.py                                        # 8,000 x 101 made-up features
    python tests/bench/attack_stage.py --config CONFIG --features features.h5 # features of a run, grids of its config
    python tests/bench/attack_stage.py --rows 60000 --methods rf --contestants shared --memory-gib 2

Each contestant has a process of its own; the clock starts when the features are in memory and everything is imported.
Peak memory is the proportional set size of the contestant's whole process tree, libraries included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # run as a script, not by pytest
from contestants import CONTESTANTS
from process_tree import run_measured
from scaling import all_tasks, core_use, simulate
from scipy.special import logsumexp

from mia_batch.metrics.base import clopper_pearson
from mia_batch.process.resources import available_cpus
from mia_batch.rundir.features import read_features
from mia_batch.settings.schema import AttackConfig

HERE = Path(__file__).parent
TUTORIAL = HERE.parent.parent / "configs" / "vgg16_cifar100.yaml"
NAMES = {
    "stock": "scikit-learn GridSearchCV", "mindarmour": "MindArmour's attacker", "shared": "this engine",
}


def synthetic(n: int, n_columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Loss and logits of a made-up network that is a little surer of members: (n, n_columns), (n,)."""
    rng, n_classes = np.random.default_rng(seed), n_columns - 1
    member, label = (np.arange(n) % 2).astype(np.int8), rng.integers(n_classes, size=n)
    common = rng.normal(size=(n, 20)) @ rng.normal(size=(20, n_classes)) / 20**0.5  # classes resemble each other
    logits = 4 * common + rng.normal(scale=0.5, size=(n, n_classes))
    logits[np.arange(n), label] += rng.normal(np.where(member, 14.0, 8.0), 5.0)
    loss = logsumexp(logits, axis=1) - logits[np.arange(n), label]
    return np.column_stack([loss, logits]).astype(np.float32).astype(np.float64), member


def read_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same of a real run."""
    features = read_features(path)
    return np.column_stack([features.loss, features.logits]).astype(np.float64), features.member.astype(np.int8)


def run_contestants(
    names: Iterable[str], X: np.ndarray, y: np.ndarray, settings: Mapping[str, Any], folder: Path
) -> dict[str, dict[str, Any]]:
    """One after the other."""
    np.savez(folder / "rows.npz", X=X, y=y)
    (folder / "settings.json").write_text(json.dumps(settings))
    outcomes = {}
    for name in names:
        print(f"running {NAMES[name]} ...", file=sys.stderr, flush=True)
        files = [str(folder / file) for file in ("rows.npz", "settings.json", "result.json")]
        usage = run_measured([sys.executable, str(HERE / "contestants.py"), name, *files])
        outcomes[name] = {**json.loads((folder / "result.json").read_text()), "peak_mib": usage.peak_mib}
    return outcomes


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def cost_table(outcomes: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> str:
    """Wall clock, CPU and memory; per method the seconds of all cores."""
    rows = []
    for name, outcome in outcomes.items():
        bases = [outcomes.get(base) for base in ("stock", "mindarmour")]
        factors = [f"{base['seconds'] / outcome['seconds']:.1f}" if base else "" for base in bases]
        by_method = [f"{outcome['methods'][method]['cpu_seconds']:.1f}" for method in methods]
        use = ""
        if name == "shared":
            n_workers = outcome["methods"][methods[0]]["n_workers"]
            use = f"{100 * core_use(all_tasks(outcome), n_workers):.0f} %"
        cost = [f"{outcome['seconds']:.1f}", f"{outcome['cpu_seconds']:.1f}", f"{outcome['peak_mib']:.0f}"]
        rows.append([NAMES[name], *cost, *by_method, *factors, use])
    header = ["", "wall s", "CPU s", "peak MiB", *(f"{method} CPU s" for method in methods), "x stock", "x MindArmour",
              "core use"]
    return table(header, rows)


def answer_table(outcomes: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> str:
    """What each has found."""
    rows = []
    for method in methods:
        for name, outcome in outcomes.items():
            found = outcome["methods"][method]
            low, high = clopper_pearson(found["n_right"], outcome["n_eval"])
            accuracy = f"{found['n_right'] / outcome['n_eval']:.4f} [{low:.4f}, {high:.4f}]"
            rows.append([method, NAMES[name], f"{found['best_score']:.4f}", accuracy, f"`{found['best_params']}`"])
    return table(["", "", "cross-validated", "held-out accuracy, 95 %", "best parameters"], rows)


def agreement(outcomes: Mapping[str, dict[str, Any]], methods: Sequence[str]) -> str:
    """How far the engine's scores are from GridSearchCV's, and whether its accuracy lies in that one's interval."""
    rows = []
    for method in methods:
        mine, stock = (outcomes[who]["methods"][method] for who in ("shared", "stock"))
        low, high = clopper_pearson(stock["n_right"], outcomes["stock"]["n_eval"])
        inside = low <= mine["n_right"] / outcomes["shared"]["n_eval"] <= high
        difference = np.abs(np.subtract(mine["scores"], stock["scores"])).max()
        rows.append([method, f"{difference:.5f}", "yes" if inside else "NO"])
    return table(["", "largest difference of a candidate's score", "held-out accuracy in stock's interval"], rows)


def scaling_table(
    outcomes: Mapping[str, dict[str, Any]], X: np.ndarray, y: np.ndarray, attack: AttackConfig, n_cores: Sequence[int]
) -> str:
    """Simulated from the measured times of tasks."""
    rows = []
    for n in n_cores:
        found = simulate(X, y, attack, outcomes["shared"], outcomes["stock"], n)
        rows.append([str(n), f"{found.engine:.1f}", f"{found.bound:.1f}", f"{found.engine / found.bound:.2f}",
                     f"{found.stock:.1f}"])
    header = ["cores", "s", "max(longest search task + refit, total / cores)", "ratio", "stock s"]
    return table(header, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=TUTORIAL, help="whose section `attack` to use")
    parser.add_argument("--features", type=Path, help="features.h5 of a run (default: made-up features)")
    parser.add_argument("--rows", type=int, default=8000, help="made-up rows to fit on; a quarter more is held out")
    parser.add_argument("--columns", type=int, default=101)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of the config's (default: all)")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--n-jobs", type=int, default=available_cpus())
    parser.add_argument("--memory-gib", type=float, help="the engine's budget (default: the config's)")
    parser.add_argument("--scaling", type=int, nargs="*", default=[8, 32, 128], metavar="CORES")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse()
    raw = yaml.safe_load(args.config.read_text())["attack"]
    if args.methods:
        raw["methods"] = [method for method in raw["methods"] if method["method"] in args.methods]
    if args.memory_gib:
        raw["memory_gib"] = args.memory_gib
    attack = AttackConfig(**raw)
    n = round(args.rows / (1 - attack.eval_fraction))
    X, y = read_rows(args.features) if args.features else synthetic(n, args.columns)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"attack": raw, "n_jobs": args.n_jobs}
        outcomes = run_contestants(args.contestants, X, y, settings, Path(folder))
    if args.out:
        args.out.write_text(json.dumps(outcomes))
    methods = [method.method for method in attack.methods]
    print(f"{len(X)} rows x {X.shape[1]} columns, a share of {attack.eval_fraction} held out; {args.n_jobs} cores\n")
    print(cost_table(outcomes, methods))
    print(answer_table(outcomes, methods))
    if "stock" in outcomes and "shared" in outcomes:
        print(agreement(outcomes, methods))
        print(scaling_table(outcomes, X, y, attack, args.scaling))


if __name__ == "__main__":
    main()
