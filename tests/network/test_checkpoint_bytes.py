"""A checkpoint's layout is seen to be whole without MindSpore, on files that MindSpore itself wrote."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_bytes import check_whole

VALUES = {"layers.0.weight": np.ones((20, 30), np.float32), "classifier.bias": np.zeros(300, np.float32)}


@pytest.fixture(params=["ckpt", "safetensors", "crc"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind = "ckpt" if request.param == "crc" else request.param
    path = tmp_path / f"net.{kind}"
    entries = [{"name": name, "data": ms.Tensor(value)} for name, value in VALUES.items()]
    ms.save_checkpoint(entries, str(path), format=kind, crc_check=request.param == "crc")
    path.chmod(0o644)
    return path


def test_what_mindspore_writes_is_whole(checkpoint: Path) -> None:
    check_whole(checkpoint)


def test_every_shorter_file_is_refused(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for size in {0, 1, 7, 8, 9, 200, len(content) // 2, len(content) - 18, len(content) - 1}:
        checkpoint.write_bytes(content[:size])
        with pytest.raises(InputError, match="must be a complete MindSpore checkpoint, got") as caught:
            check_whole(checkpoint)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["net.ckpt", "net.safetensors"])
@pytest.mark.parametrize("content", [b"weights: none\n", b"\n\n\n\n\n", bytes(100), b"\x0a" + b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: model.checkpoint: must be a complete .* got {len(content)} bytes"):
        check_whole(tmp_path / name)
