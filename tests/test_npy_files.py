"""Files of NumPy: what headers say, and that damaged ones are no fault of this program."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mia_batch import npy_files
from mia_batch.npy_files import DAMAGED, map_npy, read_header, read_npz


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_header_says_type_shape_and_order(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros((3, 2), ">f4", order="F"), version)
    size = len(file.getvalue()) - 24
    file.seek(0)
    found = read_header(file)
    assert (found.dtype, found.shape, found.fortran, found.size) == (np.dtype(">f4"), (3, 2), True, size)


@pytest.mark.parametrize("body", [b"-" * 9000 + b"1", b"{'descr': " + b"~" * 9000 + b"1}"])
def test_a_header_that_is_too_deep_is_no_want_of_memory(body: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
    with pytest.raises(ValueError, match="header"):
        read_header(io.BytesIO(content))


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"version \(3, 0\)"):
        read_header(io.BytesIO(b"\x93NUMPY\x03\x00"))


def npy(array: np.ndarray, **header: object) -> bytes:
    """A .npy, whose header may say something else."""
    said = repr({"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header).encode()
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + array.tobytes()


@pytest.mark.parametrize("array", [
    np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3)), np.float32(2.5),
    np.array(["a", "bc"]), np.arange(5, dtype=">u2"), np.zeros(3, bool),
])  # fmt: skip
def test_an_array_is_mapped_as_it_was_saved(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    found = map_npy(tmp_path / "a.npy")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    np.savez(tmp_path / "a.npz", a=array, b=array)
    np.savez_compressed(tmp_path / "c.npz", a=array)
    for name in ("a", "c"):
        (found,) = read_npz(tmp_path / f"{name}.npz", ("a", "x")).values()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


@pytest.mark.parametrize("content", [
    npy(np.arange(4), shape=(5,)), npy(np.arange(4), shape=(3,)), npy(np.arange(4), shape=(-4,)),
    npy(np.arange(4), shape=(1 << 70,)), npy(np.arange(4), shape=(2, -1, -2)), npy(np.arange(4), descr="|O"),
    npy(np.arange(4), descr="<U4000000"), npy(np.arange(4), descr="|V0"), npy(np.arange(4), descr=("<i8", (99,))),
    npy(np.arange(4), descr=[("a", "|O")]), npy(np.arange(4), descr=7), npy(np.arange(4), shape=(True,)),
    npy(np.arange(4), shape=4), npy(np.arange(4))[:-1], npy(np.arange(4)) + b"\0", npy(np.arange(4))[:20], b"", b"PK",
    pickle.dumps(np.arange(4)), b"\x93NUMPY\x01\x00\x80\x00" + b"[" * 128, b"\x93NUMPY\x01\x00\xff\xff{",
    b"\x93NUMPY\x01\x00\x10\x00{'descr': '\\d'} ", npy(np.arange(4), fortran_order="yes"),
])  # fmt: skip
def test_a_header_that_lies_is_believed_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DAMAGED):
        map_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", content)
    with pytest.raises(DAMAGED):
        read_npz(tmp_path / "a.npz", ("a",))


def archived(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_is_not_unpacked_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy_files, "UNPACKED_BYTES", 1 << 20)
    path = archived(tmp_path / "a.npz", {"a.npy": npy(np.zeros(1 << 18)), "b.npy": npy(np.zeros(3))})
    with pytest.raises(ValueError, match="bytes unpacked, of at most 1048576"):
        read_npz(path, ("a", "b"))
    assert read_npz(path, ("b",))["b"].tolist() == [0, 0, 0]
    np.savez(path, a=np.zeros(1 << 18))  # as large as its content
    assert len(read_npz(path, ("a",))["a"]) == 1 << 18


def test_an_archive_that_has_a_name_twice_has_neither(tmp_path: Path) -> None:
    content = archived(tmp_path / "a.npz", {"a.npy": npy(np.zeros(3)), "b.npy": npy(np.ones(3))}).read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(b"b.npy", b"a.npy"))
    with pytest.raises(ValueError, match="a: must be there once, got it twice"):
        read_npz(tmp_path / "a.npz", ("a",))


def test_a_list_of_members_may_not_be_longer_than_any(tmp_path: Path) -> None:
    path = archived(tmp_path / "a.npz", {"a.npy": npy(np.zeros(3))})
    content = bytearray(path.read_bytes())
    content[-10:-6] = (1 << 31).to_bytes(4, "little")  # bytes of the list
    with open(path, "wb") as file:
        file.truncate(1 << 33)
        file.seek(0, 2)
        file.write(content)
    with pytest.raises(ValueError, match="a list of arrays of 2147483648 bytes"):
        read_npz(path, ("a",))


def test_a_flipped_bit_within_a_member_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(100))
    content = bytearray(path.read_bytes())
    content[500] ^= 4
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_npz(path, ("a",))
