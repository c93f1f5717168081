"""A checkpoint is seen to be whole and true to its shapes without MindSpore, on files that MindSpore itself wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.train.checkpoint_pb2 import Checkpoint

from mia_batch.errors import InputError
from mia_batch.network.checkpoint import read_checkpoint
from mia_batch.network.checkpoint_bytes import check_whole, stated_entries

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


def saved(path: Path, *entries: tuple[str, tuple[int, ...], str, bytes]) -> Path:
    """A checkpoint with these entries: name, shape, type and content."""
    message = Checkpoint()
    for name, dims, kind, content in entries:
        value = message.value.add(tag=name)
        value.tensor.dims.extend(dims)
        value.tensor.tensor_type, value.tensor.tensor_content = kind, content
    path.write_bytes(message.SerializeToString())
    return path


W = bytes(16)


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ([("w", (0,), "Float32", W), ("w", (4,), "Float32", W)], "its name must be there once, got one scalar Float32"),
        ([("w", (4,), "Float32", W), ("w", (0,), "Float32", b"")], "its name must be there once, got one 4 Float32"),
        ([("w", (4,), "Float32", W), ("w", (4,), "Float32", W)], "4 Float32 must have 16 bytes, got 32"),
        ([("w", (4,), "Float32", W), ("v", (4,), "Float32", W), ("w", (4,), "Float32", W)], "got a second entry"),
        ([("w", (10**9,), "Float32", W)], "1000000000 Float32 must have 4000000000 bytes, got 16"),
        ([("w", (2**32, 2**32), "Float32", b"")], f"must have {2**66} bytes, got 0"),
        ([("w", (4,), "Float64", W)], "4 Float64 must have 32 bytes, got 16"),
        ([("w", (0,), "Float32", b"")], "scalar Float32 must have 4 bytes, got 0"),
        ([("w", (-2, -2), "Float32", W)], r"its dimensions must be at least 0, got \[-2, -2\]"),
        ([("w", (1,) * 33, "Float32", W)], "must have at most 32 dimensions, got 33"),
        ([("", (4,), "Float32", W)], "its name must have 1 to 1024 characters, got 0"),
        ([("w" * 1025, (4,), "Float32", W)], "its name must have 1 to 1024 characters, got 1025"),
        ([("w", (2,), "Complex64", W)], "its type must be one of Bool, .* got 'Complex64'"),
        ([("s", (0,), "str", b"")], "text must have 1 to 1048576 bytes, got 0"),
        ([("s", (0,), "str", b"abc\xff" * 2)], "text must be UTF-32, got"),
        ([("s", (0,), "str", b"a\0\0")], "text must be UTF-32, got"),
        ([("s", (0,), "str", b"a\0\0\0"), ("s", (0,), "str", b"a\0\0\0")], "1 str must have 4 bytes, got 8"),
    ],
)
def test_entries_that_are_not_what_they_say(tmp_path: Path, entries: list[Any], rule: str) -> None:
    path = saved(tmp_path / "net.ckpt", *entries)
    with pytest.raises(InputError, match=f"net.ckpt: model.checkpoint: entry '.*': .*{rule}") as caught:
        check_whole(path)
    assert len(str(caught.value).splitlines()) == 1


def safetensors(path: Path, header: str, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    return path


def tensor(name: str, first: int, last: int, shape: str = "[4]", kind: str = "F32") -> str:
    return f'"{name}": {{"dtype": "{kind}", "shape": {shape}, "data_offsets": [{first}, {last}]}}'


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        (tensor("w", 0, 32), "entry 'w': 4 F32 must have 16 bytes, got 32"),
        (tensor("w", 0, 16) + "," + tensor("w", 16, 32), "entry 'w': its name must be there once"),
        (tensor("w", 0, 16) + "," + tensor("v", 0, 16), r"entry 'v': must begin at byte 16 .* got \[0, 16\]"),
        (tensor("w", 16, 32), "entry 'w': must begin at byte 0"),
        (tensor("w", 0, 16), "got 102 bytes of 86"),
        (tensor("w", 0, -16, "[-4]"), "entry 'w': must begin at byte 0"),
        (tensor("w", 0, 32, "[-4, -2]"), "entry 'w': its dimensions must be at least 0"),
        (tensor("w", 0, 32, "[4]", "C64"), "entry 'w': its type must be one of BOOL"),
        (tensor("w", 0, 32, f"[{2**32}, {2**32}]"), "entry 'w': .* must have"),
        (tensor("w", 0, 32, "[8.0]"), "no safetensors file"),
        (tensor("w", 0, 32, f"[1{'0' * 4000}]"), "no safetensors file"),
        ('"__metadata__": {"w": "Int4"}, ' + tensor("w", 0, 32, "[8]"), "entry 'w': its type in __metadata__ must be"),
        ('"w": ' + "[" * 100_000, "no safetensors file"),
    ],
)
def test_safetensors_that_are_not_what_they_say(tmp_path: Path, header: str, rule: str) -> None:
    path = safetensors(tmp_path / "net.safetensors", "{" + header + "}", bytes(32))
    with pytest.raises(InputError, match=rule) as caught:
        check_whole(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_map_parameter_is_refused(tmp_path: Path) -> None:
    message = Checkpoint()
    message.value.add(tag="table").maptensor.tensor.add(dims=[4], tensor_type="int32", tensor_content=W)
    (tmp_path / "map.ckpt").write_bytes(message.SerializeToString())
    with pytest.raises(InputError, match="entry 'table': must be a tensor, got a map parameter"):
        check_whole(tmp_path / "map.ckpt")


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_an_encrypted_file_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "enc.ckpt"
    ms.save_checkpoint(nn.Dense(2, 2), str(path), enc_key=b"0123456789abcdef", enc_mode=mode)
    rule = r"must not be encrypted, got a file made with enc_key; load it with its dec_key, and save it without"
    with pytest.raises(InputError, match=rf"enc\.ckpt: model\.checkpoint: {rule}"):
        check_whole(path)


@pytest.mark.parametrize("optimizer", [nn.Adam, nn.SGD, nn.Momentum, nn.RMSProp, nn.Lamb])
@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_what_training_saves_is_whole(tmp_path: Path, optimizer: Any, kind: str) -> None:
    network = nn.SequentialCell(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dense(4, 2))
    arguments = {"momentum": 0.9} if optimizer is nn.Momentum else {}
    rates = nn.exponential_decay_lr(0.1, 0.9, 20, 10, 1)
    extra: dict[str, Any] = {"epoch": 3, "rate": 0.1, "best": True, "random_op": ms.Generator()}
    extra |= {"note": "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}", "empty": ""} if kind == "ckpt" else {}
    path = tmp_path / f"net.{kind}"
    trained = nn.TrainOneStepCell(network, optimizer(network.trainable_params(), rates, **arguments))
    ms.save_checkpoint(trained, str(path), append_dict=extra, format=kind)
    assert not stated_entries(path).has_crc
    found = read_checkpoint(path)
    assert {"0.weight", "1.moving_mean", "learning_rate"} <= {name.removeprefix("network.") for name in found}
    assert [found.get(name) for name in ("note", "empty")] == [extra.get(name) for name in ("note", "empty")]


@pytest.mark.parametrize("dtype", [ms.bfloat16, ms.float16, ms.float64, ms.int8, ms.qint4x2, ms.bool_, ms.uint64])
@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_every_type_and_shape_that_mindspore_saves_is_whole(tmp_path: Path, kind: str, dtype: Any) -> None:
    path = tmp_path / f"net.{kind}"
    shapes = {"a": (2, 4), "b": (1,), "c": (1, 1, 1, 1, 2)} | ({} if dtype == ms.qint4x2 else {"d": ()})
    values = {name: ms.Tensor(np.ones(shape, np.int8), dtype=dtype) for name, shape in shapes.items()}
    entries = [{"name": name, "data": value} for name, value in values.items()]
    ms.save_checkpoint(entries, str(path), format=kind, crc_check=dtype != ms.bfloat16)
    assert stated_entries(path).has_crc == (dtype != ms.bfloat16)
    assert {name: entry.shape for name, entry in read_checkpoint(path).items()} == shapes


def test_a_tensor_that_mindspore_cuts_into_several_entries_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # KB; it is 512 MB
    path, array = tmp_path / "net.ckpt", np.arange(2000, dtype=np.float32).reshape(10, 200)
    ms.save_checkpoint([{"name": "w", "data": ms.Tensor(array)}, {"name": "v", "data": ms.Tensor(1.0)}], str(path))
    message = Checkpoint()
    message.ParseFromString(path.read_bytes())
    assert [value.tag for value in message.value] == ["w"] * 8 + ["v"]
    np.testing.assert_array_equal(read_checkpoint(path)["w"].asnumpy(), array)
    del message.value[3]
    path.chmod(0o644)
    path.write_bytes(message.SerializeToString())
    with pytest.raises(InputError, match="entry 'w': 10x200 Float32 must have 8000 bytes, got 6976"):
        check_whole(path)


def test_a_large_file_costs_no_more_than_a_small_one(tmp_path: Path) -> None:
    path, n_bytes = tmp_path / "net.ckpt", 1 << 32
    small = saved(tmp_path / "small.ckpt", ("w", (2**20, 1024), "Float32", b"")).read_bytes()
    name, tensor_fields = small[2:5], small[7:-1]

    def varint(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    inner = tensor_fields + varint(n_bytes)
    value = name + b"\x12" + varint(len(inner) + n_bytes) + inner
    with open(path, "wb") as file:  # whose content is a hole
        file.write(b"\x0a" + varint(len(value) + n_bytes) + value)
        file.truncate(file.tell() + n_bytes)
    started = time.perf_counter()
    check_whole(path)
    assert time.perf_counter() - started < 1
