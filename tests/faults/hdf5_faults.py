"""What can happen to an HDF5 file: to its bytes, and by way of HDF5 itself."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdf5_campaign import Fault, NotHereError
from hdf5_files import change, change_and_seal

SIZES = (1, 8, 64, 512, 4096)
Change = Callable[[h5py.File, random.Random], None]


def _bytes(change: Callable[[bytearray, random.Random], Any]) -> Fault:
    def fault(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        made = change(data, rng)
        path.write_bytes(data if made is None else made)

    return fault


def _place(data: bytearray, rng: random.Random, size: int = 1) -> int:
    return rng.randrange(max(1, len(data) - size + 1))


def flip_bit(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def flip_many(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((2, 10, 100))):
        flip_bit(data, rng)


def flip_in_headers(data: bytearray, rng: random.Random) -> None:
    """HDF5's metadata stands before and behind the values; a place with text or an address nearby is of it."""
    marks = [b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\x89HDF"]
    found = [i for mark in marks for i in _all(data, mark)]
    place = rng.choice(found) + rng.randrange(96) if found else 0
    data[min(place, len(data) - 1)] = rng.choice((0, 1, 255, rng.randrange(256)))


def _all(data: bytearray, mark: bytes) -> list[int]:
    found, place = [], data.find(mark)
    while place >= 0:
        found.append(place)
        place = data.find(mark, place + 1)
    return found


def zero_block(data: bytearray, rng: random.Random) -> None:
    size = rng.choice(SIZES)
    place = _place(data, rng, size) // size * size
    data[place : place + size] = bytes(min(size, len(data) - place))


def random_block(data: bytearray, rng: random.Random) -> None:
    size = rng.choice(SIZES)
    place = _place(data, rng, size)
    data[place : place + size] = rng.randbytes(min(size, len(data) - place))


def swap_blocks(data: bytearray, rng: random.Random) -> None:
    size = rng.choice(SIZES[1:])
    a, b = _place(data, rng, size), _place(data, rng, size)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.choice((0, 1, 8, 511, 512, 4095, 4096, len(data) - 1, _place(data, rng)))])


def append(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data) + rng.choice((b"\0", rng.randbytes(100), bytes(5000), bytes(data)))


def drop_block(data: bytearray, rng: random.Random) -> bytes:
    size = rng.choice(SIZES)
    place = _place(data, rng, size)
    return bytes(data[:place] + data[place + size :])


def repeat_block(data: bytearray, rng: random.Random) -> bytes:
    size = rng.choice(SIZES)
    place = _place(data, rng, size)
    return bytes(data[: place + size] + data[place:])


def other_content(data: bytearray, rng: random.Random) -> bytes:
    return rng.choice((b"", b"text\n" * 300, rng.randbytes(9000), b"\x89HDF\r\n\x1a\n" + bytes(4000), b"PK\3\4" * 9))


def in_its_place(path: Path, rng: random.Random) -> None:
    """Something that is no file."""
    path.unlink()
    make: Callable[[], object] = rng.choice((
        lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(path.name), lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/tty"), lambda: None,
    ))  # fmt: skip
    make()


BYTES: dict[str, Fault] = {
    each.__name__: _bytes(each) for each in (
        flip_bit, flip_many, flip_in_headers, zero_block, random_block, swap_blocks, cut, append, drop_block,
        repeat_block, other_content,
    )
}  # fmt: skip
BYTES["in_its_place"] = in_its_place


def _names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, each: found.append(name) if isinstance(each, h5py.Dataset) else None)
    return sorted(found)


def _one(file: h5py.File, rng: random.Random) -> tuple[str, Any]:
    """A dataset of numbers that has rows, and its values."""
    names = [name for name in _names(file) if file[name].dtype.kind in "iuf" and file[name].size]
    if not names:
        raise NotHereError
    name = rng.choice(names)
    return name, file[name][()]


def _put(file: h5py.File, name: str, **how: Any) -> None:
    del file[name]
    file.create_dataset(name, **how)


def other_type(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    others = [each for each in ("<f8", ">f4", "<i2", "<u8", "<f2", "|b1", "S9", ">i4") if each != values.dtype.str]
    _put(file, name, data=values.astype(rng.choice(others)))


def other_kind_of_type(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    n = len(values)
    made: Any = rng.choice((
        np.zeros(n, np.dtype([("a", "<f4"), ("b", "<i8")])), np.zeros(n, np.complex64), np.zeros(n, "V7"),
        np.array(["x"] * n, dtype=object),
    ))  # fmt: skip
    _put(file, name, data=made, dtype=h5py.string_dtype() if made.dtype == object else made.dtype)


def other_shape(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    shape = rng.choice([values[:-1], np.concatenate([values, values]), values[None], values[..., None], values.T[:0],
                        values.reshape(-1)[0]])  # fmt: skip
    if shape.shape == values.shape:
        raise NotHereError
    _put(file, name, data=shape)


def chunks(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    _put(file, name, data=values, chunks=True, **rng.choice(({}, {"compression": "gzip"}, {"shuffle": True},
                                                            {"compression": "lzf"}, {"fletcher32": True})))  # fmt: skip


def bomb(file: h5py.File, rng: random.Random) -> None:
    """Very many values, of which next to nothing is stored."""
    name, values = _one(file, rng)
    n = rng.choice((1 << 31, 1 << 40, 1 << 50))
    _put(file, name, shape=(n, *values.shape[1:]), dtype=values.dtype, chunks=(1 << 16, *values.shape[1:]),
         compression=rng.choice((None, "gzip")))  # fmt: skip


def unwritten(file: h5py.File, rng: random.Random) -> None:
    """A shape without values: HDF5 makes them up."""
    name, values = _one(file, rng)
    n = rng.choice((len(values), 1 << 33))
    _put(file, name, shape=(n, *values.shape[1:]), dtype=values.dtype)


def no_values(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    _put(file, name, data=h5py.Empty(values.dtype))


def external_values(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    source = rng.choice(("/dev/zero", "/etc/passwd", "values.raw"))
    _put(file, name, shape=values.shape, dtype=values.dtype, external=[(source, 0, h5py.h5f.UNLIMITED)])


def virtual_values(file: h5py.File, rng: random.Random) -> None:
    name, values = _one(file, rng)
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(rng.choice((".", "other.h5")), rng.choice((name, "x")), values.shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def link(file: h5py.File, rng: random.Random) -> None:
    name, _ = _one(file, rng)
    other = rng.choice(_names(file))
    made: Any = rng.choice((h5py.SoftLink(f"/{name}"), h5py.ExternalLink("other.h5", name), h5py.SoftLink("/nowhere"),
                            h5py.ExternalLink("/dev/zero", "x"), h5py.SoftLink(f"/{other}")))  # fmt: skip
    del file[name]
    file[name] = made


def group_loop(file: h5py.File, rng: random.Random) -> None:
    """A group that holds itself, or the root."""
    name = rng.choice(("attrs", "slices", "x"))
    group = file.require_group(name)
    group[rng.choice(("self", "y"))] = rng.choice((group, file["/"]))


def group_for_values(file: h5py.File, rng: random.Random) -> None:
    name, _ = _one(file, rng)
    del file[name]
    file.create_group(name)


def removed(file: h5py.File, rng: random.Random) -> None:
    del file[rng.choice(_names(file))]


def one_for_another(file: h5py.File, rng: random.Random) -> None:
    """Two names change places."""
    a, b = rng.sample(_names(file), 2)
    file.move(a, "between")
    file.move(b, a)
    file.move("between", b)


def something_more(file: h5py.File, rng: random.Random) -> None:
    file[rng.choice(("more", "slices/more", "x/y/z"))] = np.arange(5)


def many_objects(file: h5py.File, rng: random.Random) -> None:
    for i in range(rng.choice((200, 12_000))):
        file.create_group(f"many/{i}")


def other_attribute(file: h5py.File, rng: random.Random) -> None:
    names = sorted(file.attrs)
    if not names:
        raise NotHereError
    name = rng.choice(names)
    value: Any = rng.choice((1.5, "{", "[" * 60_000, "null", "1" * 5000, np.zeros(9), b"\xff\xfe", '"x"', "NaN", "{}"))
    del file.attrs[name]
    file.attrs[name] = value


def removed_attribute(file: h5py.File, rng: random.Random) -> None:
    names = sorted(file.attrs)
    if not names:
        raise NotHereError
    del file.attrs[rng.choice(names)]


def many_attributes(file: h5py.File, rng: random.Random) -> None:
    for i in range(rng.choice((50, 500))):
        file.attrs[f"a{i}"] = "1"


STRUCTURE: tuple[Change, ...] = (
    other_type, other_kind_of_type, other_shape, chunks, bomb, unwritten, no_values, external_values, virtual_values,
    link, group_loop, group_for_values, removed, one_for_another, something_more, many_objects, other_attribute,
    removed_attribute, many_attributes,
)  # fmt: skip


def _by(how: Callable[[Path, Callable[[h5py.File], None]], None], made: Change) -> Fault:
    return lambda path, rng: how(path, partial(made, rng=rng))


# As somebody would who does not know of seals, and as one who seals the file again.
BY_HDF5 = {each.__name__: _by(change, each) for each in STRUCTURE}
SEALED_AGAIN = {f"{each.__name__}, sealed": _by(change_and_seal, each) for each in STRUCTURE}
