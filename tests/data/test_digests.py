"""The content of every file that a configuration names stands in a run's identity."""

from __future__ import annotations

from pathlib import Path

import yaml
from samples import write_records

from mia_batch.data.digests import digests
from mia_batch.files import sha256
from mia_batch.settings.loading import load_config


def test_the_files_of_the_model(tmp_path: Path) -> None:
    for name in ("net.py", "out.py", "names.yaml", "net.ckpt"):
        (tmp_path / name).write_text(name)
    write_records(tmp_path / "train.bin", 20, seed=0)
    model = {"factory": "net.py:build", "checkpoint": "net.ckpt", "output": "out.py:last", "rename": "names.yaml"}
    data = {"source": "cifar100", "path": "."} | {
        side: {"split": "train", "range": rows} for side, rows in (("members", [0, 10]), ("nonmembers", [10, 20]))
    }
    attack = {"methods": [{"method": "threshold_loss"}]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "attack": attack}))
    found = digests(load_config(tmp_path / "c.yaml"))
    files = {"model.checkpoint": "net.ckpt", "model.factory": "net.py", "model.output": "out.py",
             "model.rename": "names.yaml", "data:train.bin": "train.bin"}  # fmt: skip
    assert found == {field: sha256(tmp_path / name) for field, name in files.items()}
