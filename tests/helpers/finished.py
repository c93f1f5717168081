"""A real audit of a made-up model's outputs, as `mia-batch import` and `mia-batch run` leave it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from outputs import made_up, write_npz

from mia_batch.rundir.paths import RunPaths

METHODS = [{"method": "correctness"}, {"method": "threshold_loss"}, {"method": "lr", "params": {"C": [0.1, 1.0]}}]


def mia_batch(*argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, as a process."""
    command = [sys.executable, "-m", "mia_batch.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def finished_audit(root: Path, *, n: int = 300, surer: float = 2.0, name: str = "outputs") -> RunPaths:
    """Make one with three attacks in `root`, whose parent gets the outputs and the configuration."""
    root.parent.mkdir(parents=True, exist_ok=True)
    outputs = write_npz(root.parent / name, made_up(n, surer=surer))
    config = root.parent / f"{name}.yaml"
    attack = {"backend": "serial", "cv": 2, "methods": METHODS}
    config.write_text(yaml.safe_dump({"data": {"source": "outputs", "files": str(outputs)}, "attack": attack}))
    done = mia_batch("run", config, "--out", root)
    assert done.returncode in (0, 3, 4), done.stderr
    return RunPaths(root)
