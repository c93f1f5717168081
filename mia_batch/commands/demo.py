"""`mia-batch demo`: the real job, small. Handwritten digits, a network that memorises them, and its audit."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.records import SIDE
from mia_batch.files import atomic_path, shipped, write_text
from mia_batch.process.child import run_stage, stage_command
from mia_batch.process.exit_codes import FAILED, LEAK, OK
from mia_batch.report.media import shell, terminal
from mia_batch.report.tables import terminal_width, wrapped
from mia_batch.rundir.paths import RunPaths
from mia_batch.stages.arguments import talk_of

log = logging.getLogger(__name__)
EXAMPLES = ("mia-batch demo --out runs/demo",)
WRONG_LABELS = 0.4  # digits are so easy that a network generalises; only wrong labels have to be memorised
SEED = 1
RANKS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--out DIR."""
    parser.add_argument("--out", metavar="DIR", default="runs/demo", help="where everything goes (default runs/demo)")


def run(args: argparse.Namespace) -> int:
    """Pack, train, audit; whatever is there already is not done again."""
    root = Path(args.out).absolute()
    RunPaths(root / "audit").create()
    config = write_inputs(root)
    log.info("training the network on the members until it knows them by heart")
    code = run_stage(stage_command("train", [str(config), *talk_of(args)]))
    if code != OK:
        return code
    log.info("auditing the checkpoint on %d MPI ranks", RANKS)
    audit = [sys.executable, "-m", "mia_batch.cli", "run", str(config)]
    code = run_stage([*audit, "--out", str(root / "audit"), "--ranks", str(RANKS), *talk_of(args)])
    if code != LEAK:
        print(f"demo: the audit ended with exit code {code}, not {LEAK} (leak found)", file=sys.stderr)
        return code or FAILED
    said = f"demo: the audit's own exit code was {code} (leak found), as it should be after memorising."
    print(f"\n{wrapped(said, terminal_width())}")
    print(wrapped(terminal(f"demo: everything is in {root}; run it yourself:"), terminal_width()))
    print(f"{shell('mia-batch', 'run', str(config))} --out DIR --ranks {RANKS}")
    return OK


def write_inputs(root: Path) -> Path:
    """Put images, labels and config below `root`; returns the config's path."""
    data = root / "data"
    data.mkdir(exist_ok=True)
    images, labels = digit_images()
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    halves = np.array_split(shuffled, 2)
    log.info("packing %d digits as CIFAR-100 records, %.0f %% with a wrong label", len(labels), 100 * WRONG_LABELS)
    for name, half in zip(("train.bin", "test.bin"), halves, strict=True):
        with atomic_path(data / name) as temporary:
            temporary.write_bytes(pack_records(images[half], labels[half]).tobytes())
    text, schema = ((shipped("configs") / name).read_text(encoding="utf-8") for name in ("demo.yaml", "schema.json"))
    write_text(root / "schema.json", schema)  # which the config's first line names
    config = root / "demo.yaml"
    write_text(config, text.replace("../runs/demo/", "./"))
    return config


def digit_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """scikit-learn's bundled digits as (1797, 3, 32, 32) images in 0..255, and labels, a share of them wrong."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    large = small.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    rng = np.random.default_rng(SEED)
    labels = digits.target.astype(np.uint8)
    wrong = rng.random(len(labels)) < WRONG_LABELS
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    return np.broadcast_to(large[:, None], (len(large), 3, SIDE, SIDE)), labels


def pack_records(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """CIFAR-100's binary records, (n, 3074): coarse label (0 here), fine label, pixels channel-major."""
    flat = images.reshape(len(images), -1)
    return np.concatenate([np.zeros_like(labels)[:, None], labels[:, None], flat], axis=1).astype(np.uint8)
