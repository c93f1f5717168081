"""Whether networks of many kinds get the verdict that they have earned, and wrong settings a line for each problem.

    python tests/bench/networks.py                      # all of them, some 13 minutes of one core; two Markdown tables
    python tests/bench/networks.py --only half mixed    # these alone, with their wrong settings
    python tests/bench/networks.py --out campaign       # keep the folders: networks, data, configs, checkpoints, runs

Each network is trained twice. To leak: on few samples, of which many have wrong labels, until it has them by heart. Not
to leak: on many samples for a few epochs, in which it learns what is to be learned. Training and audit are processes of
their own, as a user starts them, in a folder that has the files of `tests/bench/user` and a config.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mia_batch.process.exit_codes import BAD_INPUT, INCONCLUSIVE, LEAK, OK

REPO = Path(__file__).parents[2]
USER = Path(__file__).parent / "user"
METHODS: list[dict[str, Any]] = [
    {"method": "correctness"}, {"method": "threshold_loss"}, {"method": "lr", "params": {"C": [0.01, 1.0, 100.0]}},
]  # fmt: skip
TRACEBACK = "Traceback (most recent call last)"  # Python's; MindSpore logs one of its own where a network cannot run
FEW, MANY = 400, 2000  # samples of each side, of a training that leaks and of one that does not


@dataclass(frozen=True)
class Network:
    """One kind of network and of samples; `name` is the function in `user/model.py`.

    Attributes:
        inputs: in words, likewise `outputs`.
        source: the function in `user/data.py`.
        epochs: of the training that leaks, and of the one that does not.
        rate: learning rate of both.
        save: how `user/train.py` saves the weights; "" trains by `jobs/train.py`.
        model: keys of that section, beside factory and checkpoint; likewise `data`, beside source, members, nonmembers.
        classes: 2 for a network of one output.
    """

    name: str
    inputs: str
    outputs: str
    source: str
    epochs: tuple[int, int] = (50, 2)
    rate: float = 0.05
    save: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=lambda: {"preprocess": "none"})
    classes: int = 4

    @property
    def wrong(self) -> float:
        """Share of wrong labels: of two classes every second answer is right by chance."""
        return 0.3 if self.classes == 2 else 0.4

    @property
    def checkpoint(self) -> str:
        """Its file's name."""
        return {"half": "net.safetensors", "torch": "net.npz"}.get(self.save, "net.ckpt")


def image_keys(size: int, mean: list[float], std: list[float]) -> dict[str, Any]:
    """The section `data` of square images."""
    return {"preprocess": "image", "image_size": [size, size], "mean": mean, "std": std}


COLOURS = image_keys(12, [0.48, 0.5, 0.52], [0.3, 0.31, 0.32])
TWO_CLASSES = {"preprocess": "none", "kwargs": {"classes": 2}}
NETWORKS = (
    Network("residual", "3 channels, bytes; own mean and std", "logits", "images", (40, 4), data=COLOURS),
    Network(
        "spectrogram", "1 channel, floats", "logits; weights among Adam's state behind `network.`", "spectrograms",
        rate=0.003, save="whole", model={"prefix": "network."},
    ),
    Network(
        "four_channels", "4 channels, bytes; four means", "a tuple", "images", (50, 1), model={"index": 1},
        data=image_keys(10, [0.5] * 4, [0.3] * 4) | {"kwargs": {"channels": 4, "size": 10}},
    ),
    Network("thirteen_channels", "13 channels, floats", "a dict", "bands", model={"key": "logits"}),
    Network(
        "recurrent", "tokens and mask, columns of a MindSpore dataset", "logits of a GRU", "dataset", (50, 6), rate=0.1,
        data={"preprocess": "none", "columns": {"inputs": ["ids", "mask"], "label": "topic"}},
    ),
    Network(
        "attention", "tokens and mask of several lengths, padded", "logits", "sentences", (50, 6),
        data={"preprocess": "none", "pad": 0},
    ),
    Network("one_logit", "vectors", "one logit", "vectors", data=TWO_CLASSES, classes=2),
    Network(
        "one_probability", "vectors", "one probability", "vectors", model={"output": "probabilities"},
        data=TWO_CLASSES, classes=2,
    ),
    Network(
        "sequence", "series of vectors", "a sequence, by a function", "series", rate=0.003, save="weights",
        model={"output": "functions.py:last_step"},
    ),
    Network("half", "vectors", "float16 logits; .safetensors", "vectors", rate=0.003, save="half"),
    Network(
        "mixed", "vectors through a function", "float16 probabilities", "vectors", model={"output": "probabilities"},
        data={"preprocess": "functions.py:halved"},
    ),
    Network(
        "two_inputs", "a dict of numbers and a category", "logits; .npz with PyTorch's names", "records", rate=0.003,
        save="torch", model={"rename": "names.yaml"},
    ),
)  # fmt: skip
NAMES = {"embedding.weight": "embedding.embedding_table", "norm.weight": "norm.gamma", "norm.bias": "norm.beta"}


@dataclass(frozen=True)
class Wrong:
    """A setting that is wrong for a network, by `--set`; what it must be answered with."""

    network: str
    changes: tuple[str, ...]
    says: str
    code: int = BAD_INPUT
    lines: int = 1  # one for each problem


WRONG_SETTINGS = (
    Wrong("residual", ("data.mean=[0.5, 0.5]",), "mean and std must have one value for each channel"),
    Wrong("residual", ("data.mean=[0.5]", "data.std=[0.3]"), "each of the image's 3 channels"),
    Wrong("residual", ("data.preprocess=none",), "only with preprocess: image"),
    Wrong("residual", ("data.kwargs.channels=4",), "channels"),
    Wrong("spectrogram", ("model.prefix=null",), "write model.prefix: network."),
    Wrong("spectrogram", ("model.prefix=module.",), "model.prefix"),
    Wrong("spectrogram", ("data.kwargs.dtype=int32",), "model: must take inputs int32"),
    Wrong("four_channels", ("model.index=2",), "model.index: must be in [0, 2)"),
    Wrong("four_channels", ("model.index=null",), "write model.index: N"),
    Wrong("four_channels", ("model.index=null", "model.key=logits"), "model.key"),
    Wrong("thirteen_channels", ("model.key=scores",), "'logits'"),
    Wrong("thirteen_channels", ("model.key=null",), "write model.key: NAME"),
    Wrong("thirteen_channels", ("model.key=null", "model.index=1"), "model.index"),
    Wrong("thirteen_channels", ("model.kwargs.channels=12",), "the network's shapes"),
    Wrong("thirteen_channels", ("data.kwargs.spoiled=1",), "finite"),
    Wrong("recurrent", ("data.columns.inputs=[ids, masks]",), "must have columns ids, masks"),
    Wrong("recurrent", ("data.columns.inputs=[mask, ids]",), "in the order of the network's parameters"),
    Wrong("recurrent", ("data.columns.inputs=ids",), "model: must take inputs"),
    Wrong("recurrent", ("data.columns=null",), "data.columns says which are taken"),
    Wrong("recurrent", ("model.kwargs.tokens=100",), "the network's shapes"),
    Wrong("attention", ("data.pad=null",), "data.pad"),
    Wrong("attention", ("data.pad=0.5",), "data.pad: must be a value of int"),
    Wrong("attention", ("data.pad_to=8",), "data.pad_to"),
    Wrong("attention", ("data.kwargs.dtype=float32",), "model: must take inputs float32"),
    Wrong("one_logit", ("model.output=probabilities",), "one for each sample must be in [0, 1]"),
    Wrong("one_logit", ("data.kwargs.classes=4",), "label must be in [0, 2)"),
    Wrong("one_probability", ("model.output=logits",), "model.output: probabilities", INCONCLUSIVE),
    Wrong("sequence", ("model.output=logits",), "write model.output: FILE.py:function"),
    Wrong("sequence", ("model.output=functions.py:classes",), "leave out argmax"),
    Wrong("sequence", ("model.output=functions.py:mean_of_all",), "must give floating-point logits of shape"),
    Wrong("sequence", ("model.output=functions.py:broken",), "broken raised"),
    Wrong("sequence", ("model.output=functions.py:last",), "last_step"),
    Wrong("half", ("model.factory=model.py:one_logit", "model.kwargs={}"), "the network's shapes"),
    Wrong("half", ("data.kwargs.shift=1",), "no better than guessing", INCONCLUSIVE),
    Wrong("mixed", ("model.output=logits",), "Set model.output: probabilities", INCONCLUSIVE),
    Wrong("mixed", ("data.preprocess=functions.py:standardised",), "data.preprocess"),
    Wrong("two_inputs", ("model.rename=null",), "missing: embedding.embedding_table", lines=2),  # missing, unexpected
    Wrong("two_inputs", ("model.rename=wrong_names.yaml",), "model.rename"),
)


@dataclass(frozen=True)
class Cell:
    """A network that is trained to leak, or not to, in a folder of its own."""

    network: Network
    leaks: bool
    folder: Path

    @property
    def expected(self) -> int:
        """The exit code that its audit has earned."""
        return LEAK if self.leaks else OK

    def config(self) -> dict[str, Any]:
        """As a user would write it."""
        net = self.network
        own = {"num_classes": net.classes} if net.classes > 2 else {}
        kwargs = {"n": self.n, "wrong": net.wrong, **net.data.get("kwargs", {})}
        sides = {"members": {"split": "train"}, "nonmembers": {"split": "test"}, "nonmembers_used_for": "none"}
        train = {"epochs": self.epochs, "batch_size": 32, "learning_rate": net.rate, "weight_decay": 0.0}
        return {
            "model": {"factory": f"model.py:{net.name}", "kwargs": own, "checkpoint": net.checkpoint, **net.model},
            "data": {"source": f"data.py:{net.source}", **net.data, "kwargs": kwargs, **sides},
            "extract": {"device": "CPU"}, "attack": {"backend": "serial", "methods": METHODS}, "train": train,
        }  # fmt: skip

    @property
    def n(self) -> int:
        """Samples of a side."""
        return FEW if self.leaks else MANY

    @property
    def epochs(self) -> int:
        """Of the training."""
        return self.network.epochs[0 if self.leaks else 1]

    def write(self) -> None:
        """The user's files, and the config."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in USER.glob("*.py"):
            shutil.copy(file, self.folder)
        (self.folder / "names.yaml").write_text(yaml.safe_dump(NAMES))
        (self.folder / "wrong_names.yaml").write_text(yaml.safe_dump({**NAMES, "norm.weight": "norm.weight"}))
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(self.config(), sort_keys=False))

    def train(self) -> subprocess.CompletedProcess[str] | None:
        """By the project's job, or by the user's own script; how it has failed, if it has."""
        if (self.folder / self.network.checkpoint).exists():
            return None
        self.write()
        net = self.network
        own = ["--network", net.name, "--source", net.source, "--samples", self.n, "--wrong", net.wrong]
        script = ["train.py", *own, "--epochs", self.epochs, "--rate", net.rate, "--save", net.save, net.checkpoint]
        done = self._run(*(script if net.save else [REPO / "jobs" / "train.py", "audit.yaml"]))
        return done if done.returncode != OK else None

    def audit(self, out: str, changes: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`mia-batch run`, as a user starts it."""
        return self._run("-m", "mia_batch.cli", "run", "audit.yaml", "--out", out, *(f"--set={c}" for c in changes))

    def _run(self, *words: object) -> subprocess.CompletedProcess[str]:
        command, env = [sys.executable, *map(str, words)], {**os.environ, "PYTHONPATH": str(REPO)}  # not one installed
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)


def row(cell: Cell) -> tuple[str, bool]:
    """Train and audit: the row of the table, and whether the verdict is right."""
    started = time.monotonic()
    result = cell.train() or cell.audit("run")
    right = result.returncode == cell.expected and TRACEBACK not in result.stderr
    print(f"{cell.folder.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if not right:
        print(result.stdout + result.stderr, file=sys.stderr, flush=True)
    net, trained = cell.network, "leak" if cell.leaks else "not leak"
    figures = _figures(cell.folder / "run" / "summary.json")
    return _line(net.name, net.inputs, net.outputs, trained, *figures, result.returncode, _word(right)), right


def _line(*columns: object) -> str:
    return f"| {' | '.join(map(str, columns))} |"


def _word(right: bool) -> str:
    return "right" if right else "WRONG"


def _figures(summary: Path) -> tuple[str, ...]:
    """Accuracy on members and on non-members, the best attack's balanced accuracy, and the outcome."""
    if not summary.exists():
        return "", "", "", "none"
    found = json.loads(summary.read_text())
    sides = [found["audited"][side]["accuracy"] for side in ("members", "nonmembers")]
    best = max(each["metrics"]["balanced_accuracy"]["value"] or 0 for each in found["methods"].values())
    return *(f"{number:.3f}" for number in (*sides, best)), found["verdict"]["outcome"]


def answer(cell: Cell, wrong: Wrong, out: str) -> tuple[str, bool]:
    """Audit with a wrong setting: the row of the table, and whether it is answered with its code in one line."""
    result = cell.train() or cell.audit(out, wrong.changes)
    said = [line for line in result.stderr.splitlines() if line.startswith("mia-batch: ")]
    if result.returncode == INCONCLUSIVE:  # the verdict's paragraph
        said = [" ".join(part.split()) for part in result.stdout.split("\n\n") if part.startswith("NOT EVALUABLE")]
    right = result.returncode == wrong.code and len(said) == wrong.lines and wrong.says in said[0]
    right = right and TRACEBACK not in result.stdout + result.stderr
    if not right:
        print(f"{wrong}\n{result.stdout}{result.stderr}", file=sys.stderr, flush=True)
    changes = ", ".join(f"`{change}`" for change in wrong.changes)
    return _line(wrong.network, changes, result.returncode, _word(right)), right


def cells(out: Path, only: Collection[str]) -> Iterator[Cell]:
    """Those of the networks named, or of all; each network's leaking one first."""
    for network in NETWORKS:
        for leaks in (True, False):
            if not only or network.name in only:
                yield Cell(network, leaks, out / f"{network.name}-{'leak' if leaks else 'no-leak'}")


def campaign(out: Path, only: Collection[str] = ()) -> bool:
    """Print both tables as they come; whether everything is right."""
    all_right = True
    print("| network | inputs | outputs | trained to | members | non-members | attack | outcome | exit code | |")
    print("|---|---|---|---|--:|--:|--:|---|--:|---|")
    chosen = list(cells(out, only))
    for cell in chosen:
        line, right = row(cell)
        print(line, flush=True)
        all_right = all_right and right
    print("\n| network | wrong setting | exit code | |\n|---|---|--:|---|")
    leaking = {cell.network.name: cell for cell in chosen if cell.leaks}
    for number, wrong in enumerate(WRONG_SETTINGS):
        if wrong.network in leaking:
            line, right = answer(leaking[wrong.network], wrong, f"wrong-{number}")
            print(line, flush=True)
            all_right = all_right and right
    return all_right


def main() -> int:
    """0 if every verdict and every answer is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], choices=[each.name for each in NETWORKS], metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder to keep; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return 0 if campaign(args.out or Path(temporary), args.only) else 1


if __name__ == "__main__":
    sys.exit(main())
