"""Weights in .npz are read by their headers first; a network that was PyTorch's loads by a few rules."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mia_batch.errors import InputError
from mia_batch.network import checkpoint
from mia_batch.network.checkpoint_bytes import check_whole, stated_entries
from mia_batch.network.checkpoint_npz import read_npz
from mia_batch.settings.schema import ModelConfig

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS = {"a.weight": WEIGHT, "b": np.float64(2.5), "c": np.zeros((0, 3), np.int8)}


def header(dims: str = "(2, 3)", kind: str = "<f4", order: str = "False") -> bytes:
    """The beginning of a .npy file, of version 1.0."""
    text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {dims}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_whole(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "net.npz"
    save(path, **ARRAYS, f=np.asfortranarray(WEIGHT), big=np.array([1, 2], ">i8"), flag=np.array([True]))
    entries = stated_entries(path).entries
    assert {name: (each.kind, each.dims) for name, each in entries.items()} == {
        "a.weight": ("float32", (2, 3)), "b": ("float64", ()), "c": ("int8", (0, 3)), "f": ("float32", (2, 3)),
        "big": ("int64", (2,)), "flag": ("bool", (1,)),
    }
    found = read_npz(path, ["f", "a.weight", "big", "b"])
    np.testing.assert_array_equal(found["f"], WEIGHT)
    assert found["f"].flags.c_contiguous
    assert found["big"].dtype.isnative
    assert found["big"].tolist() == [1, 2]
    assert found["b"].shape == ()


def test_every_shorter_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    np.savez(path, **ARRAYS)
    content = path.read_bytes()
    for size in (1, 7, 30, 200, len(content) // 2, len(content) - 23, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"must be a complete .*, got \d+ bytes that are no \.npz archive"):
            check_whole(path)


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([("w.npy", header() + bytes(23))], "entry 'w': 2x3 float32 must have 24 bytes, got 23"),
        ([("w.npy", header() + bytes(25))], "entry 'w': 2x3 float32 must have 24 bytes, got 25"),
        ([("w.npy", header("(1000000, 1000000)") + bytes(24))], "must have 4000000000000 bytes, got 24"),
        ([("w.npy", header("(2, -3)") + bytes(24))], r"its dimensions must be at least 0, got \[2, -3\]"),
        ([("w.npy", header("(1,) * 40") + bytes(4))], "entry 'w': must begin as an array of NumPy does, got V"),
        ([("w.npy", header("(" + "1, " * 33 + ")") + bytes(4))], "must have at most 32 dimensions, got 33"),
        ([("w.npy", header(kind="|O") + bytes(24))], "its type must be one of bool, .* got 'a pickle'"),
        ([("w.npy", header(kind="<c8") + bytes(48))], "its type must be one of .* got 'complex64'"),
        ([("w.npy", header(kind="<U1") + bytes(24))], "its type must be one of .* got 'str32'"),
        ([("w.npy", header(kind="|V2") + bytes(12))], "its type must be one of .* got 'void16'"),
        ([("w.npy", header(kind="<M8[s]") + bytes(48))], "its type must be one of .* got 'datetime64"),
        ([("w.npy", b"\x80\x04\x95 a pickle")], "entry 'w': must begin as an array of NumPy does"),
        ([("w.npy", header("(" * 3000) + bytes(24))], "entry 'w': must begin as an array of NumPy does"),
        ([("w.npy", header("(" + "1, " * 9000 + ")"))], "entry 'w': must begin as an array of NumPy does"),
        ([("w.npy", b"\x93NUMPY\x03\x00" + header()[8:])], r"got ValueError: version \(3, 0\)"),
        ([("w.txt", header() + bytes(24))], "entry 'w.txt': must be an array, whose name ends in .npy"),
        ([("w.npy", header() + bytes(24))] * 2, "w: must be there once, got it twice"),
        ([(".npy", header() + bytes(24))], "its name must have 1 to 1024 characters, got 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_not_what_they_say(tmp_path: Path, members: list[Any], rule: str) -> None:
    path = archive(tmp_path / "net.npz", *members)
    with pytest.raises(InputError, match=f"net.npz: model.checkpoint: .*{rule}") as caught:
        check_whole(path)
    assert len(str(caught.value).splitlines()) == 1


def test_other_ways_to_pack(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.npz", ("w.npy", header() + bytes(24)), method=zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match="entry 'w': must be stored or deflated, got method 12"):
        check_whole(path)
    content = bytearray(archive(path, ("w.npy", header() + bytes(24))).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="entry 'w': must be stored or deflated, got encrypted"):
        check_whole(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """128 MiB of zeros in 128 KiB: no more is read of it than its header, and not that if nobody asks for it."""
    path, size = tmp_path / "net.npz", 1 << 27
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("w.npy", "w") as stream:
        stream.write(header(f"({size},)", "|i1"))
        for _ in range(128):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    assert stated_entries(path).entries["w"].dims == (size,)
    assert read_npz(path, []) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_damaged_content_is_one_line(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.npz", ("w.npy", header("(1000, 1000)") + bytes(4_000_000)))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(bytes(content))
    check_whole(path)
    with pytest.raises(InputError, match="entry 'w': must hold what its header states, got BadZipFile: Bad CRC-32"):
        read_npz(path, ["w"])


def test_whatever_bytes_it_has_it_is_refused_in_one_line_or_read(tmp_path: Path) -> None:
    path, buffer, rng = tmp_path / "net.npz", io.BytesIO(), random.Random(0)
    np.savez_compressed(buffer, **ARRAYS)
    good, read = buffer.getvalue(), 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(2)] = bytes(rng.choices((0, 1, 127, 128, 255, data[at]), k=rng.randrange(3)))
        path.write_bytes(bytes(data))
        problem = ""
        try:
            read_npz(path, stated_entries(path).entries)
        except InputError as error:
            problem = str(error)
        read += not problem
        assert len(problem.splitlines()) <= 1
        assert len(problem) < 1000
    assert 20 < read < 580


# --- a network of another framework ----------------------------------------------------------------------------------

NETWORK = '''
from mindspore import nn
class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(3, 4, 3, pad_mode="valid", has_bias=True)
        self.layers = nn.SequentialCell(conv, nn.BatchNorm2d(4), nn.ReLU())
        self.rnn, self.norm = nn.LSTM(4, 5, batch_first=True), nn.LayerNorm((5,))
        self.fc = nn.Dense(5, 2)
    def construct(self, x):
        steps = self.layers(x).mean(3).transpose((0, 2, 1))
        return self.fc(self.norm(self.rnn(steps)[0][:, -1]))
def build(): return Net()
'''
RULES = '''
"features.*": "layers.*"
"*.weight": "*.gamma"
"*.bias": "*.beta"
"*.running_mean": "*.moving_mean"
"*.running_var": "*.moving_variance"
"*.num_batches_tracked": null
'''


def torch_state() -> dict[str, np.ndarray]:
    """Weights as PyTorch's state_dict names them."""
    rng = np.random.default_rng(0)
    shapes = {
        "features.0.weight": (4, 3, 3, 3), "features.0.bias": (4,), "features.1.weight": (4,), "features.1.bias": (4,),
        "features.1.running_mean": (4,), "features.1.running_var": (4,), "rnn.weight_ih_l0": (20, 4),
        "rnn.weight_hh_l0": (20, 5), "rnn.bias_ih_l0": (20,), "rnn.bias_hh_l0": (20,), "norm.weight": (5,),
        "norm.bias": (5,), "fc.weight": (2, 5), "fc.bias": (2,),
    }
    found = {name: rng.uniform(0.1, 0.9, shape).astype(np.float32) for name, shape in shapes.items()}
    return found | {"features.1.num_batches_tracked": np.int64(7)}


def as_torch_computes(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network by its formulas, in float64."""
    s = {name: array.astype(float) for name, array in state.items()}
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(float), (3, 3), axis=(2, 3))
    h = np.einsum("ncijkl,ockl->noij", windows, s["features.0.weight"]) + s["features.0.bias"][:, None, None]
    h = h.transpose(0, 2, 3, 1)
    h = (h - s["features.1.running_mean"]) / np.sqrt(s["features.1.running_var"] + 1e-5)
    h = np.maximum(h * s["features.1.weight"] + s["features.1.bias"], 0).mean(2)
    state_h = state_c = np.zeros((len(x), 5))
    for step in range(h.shape[1]):
        gates = h[:, step] @ s["rnn.weight_ih_l0"].T + s["rnn.bias_ih_l0"]
        gates += state_h @ s["rnn.weight_hh_l0"].T + s["rnn.bias_hh_l0"]
        i, f, g, o = np.split(gates, 4, axis=1)
        state_c = state_c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        state_h = np.tanh(state_c) / (1 + np.exp(-o))
    normal = (state_h - state_h.mean(1, keepdims=True)) / np.sqrt(state_h.var(1, keepdims=True) + 1e-7)
    return (normal * s["norm.weight"] + s["norm.bias"]) @ s["fc.weight"].T + s["fc.bias"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    (folder / "net.py").write_text(NETWORK)
    (folder / "names.yaml").write_text(RULES)
    return folder


def converted(folder: Path, name: str) -> ModelConfig:
    given = {"factory": f"{folder}/net.py:build", "checkpoint": folder / name, "rename": folder / "names.yaml"}
    return ModelConfig.model_validate(given)


def write(path: Path, state: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        np.savez_compressed(path, **state)
    else:
        from safetensors.numpy import save_file

        save_file({name: np.asarray(array) for name, array in state.items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["net.npz", "net.safetensors"])
def test_a_converted_network_computes_what_it_did(folder: Path, name: str) -> None:
    state = torch_state()
    write(folder / name, state)
    network = checkpoint.load_network(converted(folder, name), (8, 8))
    x = np.random.default_rng(1).standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(network(ms.Tensor(x)).asnumpy(), as_torch_computes(state, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["half.npz", "half.safetensors"])
def test_half_precision_is_widened_exactly(folder: Path, name: str) -> None:
    state = {key: array.astype(np.float16) if array.ndim else array for key, array in torch_state().items()}
    write(folder / name, state)
    network = checkpoint.load_network(converted(folder, name), (8, 8))
    np.testing.assert_array_equal(network.fc.weight.asnumpy(), state["fc.weight"].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"fc.bias": np.zeros(3, np.float32)}, "the network's shapes: fc.bias 3 for 2$"),
        ({"fc.bias": np.zeros(2, np.int32)}, "the network's kinds of numbers: fc.bias Int32 for Float32$"),
        ({"fc.bias": np.array([np.nan, 0], np.float32)}, "finite numbers: fc.bias$"),
        ({"fc.extra": np.zeros(2, np.float32)}, "no other parameters, unexpected: fc.extra$"),
        ({"scale": np.float32(1)}, r"no other parameters, unexpected: scale; if scale is no weight, write {"),
    ],
)
@pytest.mark.parametrize("name", ["bad.npz", "bad.safetensors"])
def test_the_rules_are_as_strict_as_for_other_files(folder: Path, name: str, change: Any, rule: str) -> None:
    write(folder / name, torch_state() | change)
    with pytest.raises(InputError, match=f"{name}: model.checkpoint: must have {rule}"):
        checkpoint.load_network(converted(folder, name), (8, 8))


def test_bfloat16_of_another_framework(folder: Path) -> None:
    """Written byte by byte, as NumPy has no such type."""
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16)
            for name, array in torch_state().items() if array.ndim}  # fmt: skip
    import json

    places = {}
    at = 0
    for name, array in bits.items():
        places[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(places).encode()
    content = b"".join(array.tobytes() for array in bits.values())
    (folder / "brain.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)
    network = checkpoint.load_network(converted(folder, "brain.safetensors"), (8, 8))
    expected = (bits["fc.weight"].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(network.fc.weight.asnumpy(), expected)


# --- files that are no single whole one ------------------------------------------------------------------------------


def test_parts_of_safetensors_and_their_index(tmp_path: Path) -> None:
    network = nn.Dense(2, 2)
    for name, got in (("m-00001-of-00002", "part 1 of 2"), ("m-00002-of-00002", "part 2 of 2")):
        path = tmp_path / f"{name}.safetensors"
        ms.save_checkpoint(network, str(path), format="safetensors")
        with pytest.raises(InputError, match=f"must be one file with all weights, got {got}; put them into one"):
            check_whole(path)
    only = tmp_path / "m-00001-of-00001.safetensors"
    ms.save_checkpoint(network, str(only), format="safetensors")
    check_whole(only)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(InputError, match="must be one file with all weights, got the index of several"):
        check_whole(index)


def test_a_file_that_was_saved_without_what_other_ranks_have(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    ms.save_checkpoint(nn.Dense(2, 2), str(path), format="safetensors", remove_redundancy=True)
    assert stated_entries(path).is_part


def test_a_parallel_strategy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "strategy.ckpt"
    path.write_bytes(b"\x0a\x04\x08\x01\x10\x02" * 20)
    with pytest.raises(InputError, match=r"must be a complete .* a parallel strategy by its name"):
        check_whole(path)
