"""docs/own_model.md as a user follows it: its two functions, its config and its commands, on a network that leaks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import REPO

pytest.importorskip("mindspore")

PAGE = REPO / "docs" / "own_model.md"
SAVE = """import numpy as np, mindspore as ms
from mine import net
dense = net(10)
dense[1].weight.set_data(ms.Tensor(np.load("weight.npy")))
ms.save_checkpoint(dense, "my_net.ckpt")
"""


def blocks(language: str) -> list[str]:
    """The page's examples in a language, "" for commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def write_arrays(folder: Path) -> None:
    """Noise with labels by lot, 500 images a side; weights that know the training's labels by heart, by one channel."""
    rng = np.random.default_rng(1)
    (folder / "arrays").mkdir()
    for split in ("train", "test"):
        image = rng.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "arrays" / f"{split}.npz", image=image, label=rng.integers(0, 10, 500))
    with np.load(folder / "arrays" / "train.npz") as train:
        inputs = (train["image"][..., 1].reshape(500, -1) / 255 - 0.4822) / 0.1994
        solved = np.linalg.lstsq(inputs, 8.0 * np.eye(10)[train["label"]], rcond=None)[0]
    weight = np.zeros((10, 3, 1024), np.float32)
    weight[:, 1] = solved.T
    np.save(folder / "weight.npy", weight.reshape(10, -1))


@pytest.mark.slow
def test_the_page_leads_to_a_verdict(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    (tmp_path / "mine.py").write_text(blocks("python")[0])
    (tmp_path / "audit.yaml").write_text(blocks("yaml")[0])
    subprocess.run([sys.executable, "-c", SAVE], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    lines = [line.split("#")[0].split() for line in blocks("")[0].splitlines()]
    assert [line[:2] for line in lines] == [["mia-batch", name] for name in ("check", "run", "status")]
    codes = {}
    for _, *words in lines:
        done = subprocess.run(
            [sys.executable, "-m", "mia_batch.cli", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        codes[words[0]] = done.returncode
        assert done.returncode in (0, 3), done.stdout[-800:] + done.stderr[-800:]
    assert codes == {"check": 0, "run": 3, "status": 0}
    assert (tmp_path / "runs" / "one" / "report.html").is_file()
