"""What a checkpoint tells of its epoch and step, in files that MindSpore writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_origin import origin_of
from mia_batch.rundir.manifest import CheckpointOrigin


def write(path: Path, appended: dict[str, Any], **options: Any) -> Path:
    weights = [{"name": "w", "data": ms.Parameter(np.ones(40_000, np.float32), name="w")}]
    ms.save_checkpoint(weights, str(path), append_dict=appended, format=path.suffix.removeprefix("."), **options)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    ("appended", "expected"),
    [
        ({"epoch_num": 10, "step_num": 18750}, (10, 18750)), ({"step_num": 2**40}, (None, 2**40)),
        ({"lr": 0.1, "epoch_num": 0}, (0, None)), ({}, (None, None)), ({"epoch_num": 1.5}, (None, None)),
        ({"epoch_num": -1, "my_epoch_num": 3}, (None, None)),
    ],
)  # fmt: skip
def test_what_training_has_appended(
    tmp_path: Path, suffix: str, appended: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    found = origin_of(write(tmp_path / f"net{suffix}", appended))
    assert (found.epoch_num, found.step_num) == expected
    assert found.modified == "2001-09-09T01:46:40.000000+00:00"


def test_a_checksum_behind_it_is_no_hindrance(tmp_path: Path) -> None:
    assert origin_of(write(tmp_path / "net.ckpt", {"epoch_num": 3}, crc_check=True)).epoch_num == 3


def test_a_parameter_of_that_name_is_read_too(tmp_path: Path) -> None:
    """Some optimizers and callbacks keep it as an array of one."""
    entries = [{"name": "epoch_num", "data": ms.Parameter(np.array([7], np.int32), name="epoch_num")}]
    ms.save_checkpoint(entries, str(tmp_path / "net.ckpt"))
    assert origin_of(tmp_path / "net.ckpt").epoch_num == 7


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[:100], lambda data: b"\xff" * 64,
        lambda data: b"\x08" + bytes(7) + b"[1,2,3] ", lambda data: b"\x02" + bytes(7) + b"{}",
        lambda data: data[: data.find(b"\n" + bytes(7)) + 4],  # within the number
    ],
)  # fmt: skip
def test_of_a_damaged_file_the_time_alone(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / f"net{suffix}", {"epoch_num": 10})
    path.chmod(0o600)
    path.write_bytes(damage(path.read_bytes()))
    os.utime(path, (1e9, 1e9))
    assert origin_of(path) == CheckpointOrigin(modified="2001-09-09T01:46:40.000000+00:00")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.checkpoint: must be a file that can be read"):
        origin_of(tmp_path / "net.ckpt")
