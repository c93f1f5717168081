"""Weights in NumPy's .npz: headers first, and no content that is not asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError, one_line
from mia_batch.files import open_bytes
from mia_batch.network.checkpoint_entry import Entry, IncompleteError, Stated, add_entry
from mia_batch.npy_files import DAMAGED, ENDING, archive, read_header, read_member

NPZ_TYPES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of np.savez and np.savez_compressed
IS_ENCRYPTED = 0x1  # in a member's flags


def npz(file: BinaryIO, size: int) -> Stated:
    """The arrays that the members' headers state; what they hold is not unpacked.

    Raises:
        IncompleteError: no zip archive, or not all of one.
        MalformedError: a member that is no array of numbers, or whose sizes do not agree.
    """
    found: dict[str, Entry] = {}
    try:
        with archive(file) as opened:
            for member in opened.infolist():
                add_entry(found, _entry(opened, member, size), NPZ_TYPES)
    except DAMAGED as error:
        raise IncompleteError(f"that are no .npz archive: {one_line(error)}") from None
    return Stated(found, ordered=False)


def _entry(opened: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> Entry:
    entry = Entry(member.filename.removesuffix(ENDING), "", (), member.file_size)
    if not member.filename.endswith(ENDING):
        raise entry.broken(f"must be an array, whose name ends in {ENDING}", repr(member.filename))
    if member.flag_bits & IS_ENCRYPTED or member.compress_type not in METHODS:
        got = "encrypted" if member.flag_bits & IS_ENCRYPTED else f"method {member.compress_type}"
        raise entry.broken("must be stored or deflated", got)
    if member.compress_size > size:
        raise IncompleteError(f"too few for entry {entry.name[:80]!r}")
    try:
        with opened.open(member) as stream:
            header = read_header(stream)
    except (*DAMAGED, OSError) as error:
        raise entry.broken("must begin as an array of NumPy does", one_line(error)) from None
    kind = "a pickle" if header.dtype.hasobject else header.dtype.name
    return Entry(entry.name, kind, header.shape, member.file_size - header.size)


def read_npz(path: Path, names: Collection[str]) -> dict[str, NDArray]:
    """The arrays of these names, which `npz` has found to be whole; a member's checksum is compared.

    Raises:
        InputError: the content of one cannot be unpacked.
    """
    found: dict[str, NDArray] = {}
    with open_bytes(path) as file, archive(file) as opened:
        for name in names:
            try:
                array = read_member(opened, opened.getinfo(name + ENDING))
            except (*DAMAGED, OSError) as error:
                rule = f"entry {name[:80]!r}: must hold what its header states"
                raise InputError(f"{path}: model.checkpoint: {rule}, got {one_line(error)}") from error
            found[name] = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)
    return found
