"""Small real inputs: CIFAR-100 records, a config that uses them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from audits import Audit, write_checkpoints
from finished import finished_audit
from samples import write_records

from mia_batch.rundir.paths import RunPaths

# Text is as wide as where there is no terminal, unless a test says how wide. Not deleted: readline sets it behind
# Python's back, and processes inherit it.
os.environ["COLUMNS"] = "0"


def plain_config(data: Path, checkpoint: Path) -> dict[str, Any]:
    """A config as YAML would give it: a small VGG over the records in `data`."""
    return {
        "model": {
            "factory": "mia_batch.models.vgg:vgg11",
            "kwargs": {"num_classes": 10, "batch_norm": True, "width": 0.125},
            "checkpoint": str(checkpoint),
        },
        "data": {
            "source": "cifar100",
            "path": str(data),
            "members": {"split": "train"},
            "nonmembers": {"split": "test"},
        },
        "extract": {"device": "CPU", "batch_size": 16},
        "attack": {"cv": 2, "methods": [{"method": "lr", "params": {"C": [0.1, 1.0]}}]},
    }


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """An entry point called in a test sets its own, for as long as the process lives."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """An entry point called in a test leaves its handler on a stream that is soon closed, and levels."""
    loggers = [logging.getLogger(name) for name in ("mia_batch", "mia_batch.stages.train", "py.warnings")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, logger.propagate) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder with train.bin (90 records) and test.bin (70)."""
    folder = tmp_path / "data"
    write_records(folder / "train.bin", 90, seed=1)
    write_records(folder / "test.bin", 70, seed=2)
    return folder


@pytest.fixture
def write_config(tmp_path: Path, records: Path) -> Callable[..., Path]:
    """Write the plain config with changes such as {"attack.cv": 3} (None deletes) and return its path."""
    checkpoint = tmp_path / "net.ckpt"
    checkpoint.write_bytes(b"not read here")

    def write(changes: dict[str, Any] | None = None, *, name: str = "c.yaml", checkpoint: Path = checkpoint) -> Path:
        raw = plain_config(records, checkpoint)
        for dotted, value in (changes or {}).items():
            *sections, key = dotted.split(".")
            target = raw
            for section in sections:
                target = target.setdefault(section, {})
            if value is None:
                del target[key]
            else:
                target[key] = value
        path = tmp_path / name
        path.write_text(yaml.safe_dump(raw))
        return path

    return write


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of one network with different weights."""
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), 6)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A real audit of outputs that has found a leak; nobody changes it."""
    return finished_audit(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def new_audit(tmp_path: Path, checkpoints: list[Path]) -> Callable[..., Audit]:
    """Write the config of an audit of the first checkpoint; options as of Audit.write."""
    return lambda **options: Audit.write(tmp_path, checkpoints[0], **options)
