"""Whether a file is a whole checkpoint whose entries are what they say, without MindSpore.

MindSpore's native code takes an entry's shape at its word, and corrupts its heap where the content is of another size.
Only lengths, names, types and shapes are read here, so that a large file costs no more than a small one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from mia_batch.errors import InputError
from mia_batch.files import open_bytes
from mia_batch.network.checkpoint_entry import (
    MAX_ENTRIES,
    TEXT,
    Entry,
    IncompleteError,
    MalformedError,
    Stated,
    add_entry,
)
from mia_batch.network.checkpoint_npz import npz

SUFFIXES = (".ckpt", ".safetensors")  # of what MindSpore writes: these are watched for
PYTORCH = (".pt", ".pth", ".bin")
READABLE = (*SUFFIXES, ".npz")
# Bytes of one number, by the names of the types that MindSpore can load.
CKPT_TYPES = {
    "Bool": 1, "Int4": 1, "Int8": 1, "UInt8": 1, "Int16": 2, "UInt16": 2, "Float16": 2, "BFloat16": 2, "Int32": 4,
    "UInt32": 4, "Float32": 4, "Int64": 8, "UInt64": 8, "Float64": 8, "str": 4,
}
SAFETENSORS_TYPES = {
    "BOOL": 1, "I8": 1, "U8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8,
    "U64": 8, "F64": 8,
}
MAX_TEXT_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 23  # of safetensors: about 60,000 entries
HEAD_BYTES = 8192  # holds the longest name, shape and type
# Protobuf: a field's number and wire type, then its length, or for DIM its value.
VALUE, TAG, TENSOR, MAP_TENSOR = 0x0A, 0x0A, 0x12, 0x1A  # Checkpoint.value; in it Value's
DIM, TYPE, CONTENT = 0x08, 0x12, 0x1A  # TensorProto's
VARINT_BYTES = 10
CRC_MARK, CRC_BYTES = b"crc_num", 17  # what `crc_check=True` puts at the end: the mark and ten bytes
# The first bytes of what `enc_key` makes: AES-GCM, AES-CBC and SM4-CBC.
ENCRYPTED = tuple((0x7F3A5E00 + mode).to_bytes(4, "little") for mode in (0xD8, 0xD9, 0xDA))
OF_TOOLS = {  # that encrypt files: the first bytes of theirs
    b"Salted__": "openssl", b"age-encryption.org/": "age", b"-----BEGIN AGE": "age", b"-----BEGIN PGP": "GnuPG",
}
PART = re.compile(r"-(\d+)-of-(\d+)$")  # how the parts of large safetensors are named
STRATEGY = "strategy"  # in the name of what MindSpore writes of a parallel strategy


def check_whole(path: Path) -> None:
    """Refuse what `stated_entries` refuses."""
    stated_entries(path)


def stated_entries(path: Path) -> Stated:
    """The entries of a whole checkpoint, of which no content is read.

    Raises:
        InputError: not a file, another ending, empty, bytes that do not add up to entries, one part of several, or an
            entry whose name is empty or there twice, whose type cannot be loaded, or whose content is not of its shape
            and type.
    """
    where = f"{path}: model.checkpoint"
    try:
        with open_bytes(path) as file:
            _check_name(path, where)
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise MalformedError("must be a complete MindSpore checkpoint, got an empty file")
            _refuse_encrypted(file)
            return _READERS[path.suffix](file, size)
    except (FileNotFoundError, IsADirectoryError) as error:
        state = "a folder" if isinstance(error, IsADirectoryError) else "nothing there"
        raise InputError(f"{where}: must be a checkpoint file, got {state}") from None
    except OSError as error:
        raise InputError(f"{where}: must be a file that can be read, got: {error.strerror}") from error
    except IncompleteError as error:
        hint = ", a parallel strategy by its name" if STRATEGY in path.name else ""
        got = f"{size} bytes {error}{hint}"
        raise InputError(f"{where}: must be a complete MindSpore checkpoint, got {got}") from None
    except MalformedError as error:
        raise InputError(f"{where}: {error}") from None


def _check_name(path: Path, where: str) -> None:
    if path.name.endswith(".safetensors.index.json"):
        raise InputError(f"{where}: must be one file with all weights, got the index of several; put them into one")
    if path.suffix not in READABLE:
        choices = f"{', '.join(READABLE[:-1])} or {READABLE[-1]}"
        advice = "; save its state_dict in one of these, without pickles" if path.suffix in PYTORCH else ""
        raise InputError(f"{where}: must end in {choices}, got {path.name}{advice}")
    part = PART.search(path.stem)
    if part and int(part[2]) > 1:
        got = f"part {int(part[1])} of {int(part[2])}"
        raise InputError(f"{where}: must be one file with all weights, got {got}; put them into one")


def _refuse_encrypted(file: BinaryIO) -> None:
    head = file.read(max(map(len, OF_TOOLS)))
    file.seek(0)
    if head.startswith(ENCRYPTED):
        advice = "load it with its dec_key, and save it without enc_key"
        raise MalformedError(f"must not be encrypted, got a file made with enc_key; {advice}")
    for sign, tool in OF_TOOLS.items():
        if head.startswith(sign):
            raise MalformedError(f"must not be encrypted, got a file made by {tool}; decrypt it")


def _ckpt(file: BinaryIO, size: int) -> Stated:
    file.seek(max(0, size - CRC_BYTES))
    has_crc = file.read(len(CRC_MARK)) == CRC_MARK
    found: dict[str, Entry] = {}
    for name, group in groupby(_ckpt_entries(file, size - CRC_BYTES * has_crc), key=lambda entry: entry.name):
        parts = list(group)  # a large tensor is cut into several, one after the other, each with the whole shape
        first = parts[0]
        other = next((part for part in parts if (part.kind, part.dims) != (first.kind, first.dims)), None)
        if other:
            raise other.broken("its name must be there once", f"one {first.words()} and one {other.words()}")
        n_bytes = sum(part.n_bytes for part in parts)
        add_entry(found, Entry(name, first.kind, first.dims, n_bytes), CKPT_TYPES)
    return Stated(found, has_crc)


def _ckpt_entries(file: BinaryIO, end: int) -> Iterator[Entry]:
    """The entries up to byte `end`, which each begin where the one before ends."""
    start, number = 0, 0
    while start < end:
        file.seek(start)
        head = file.read(HEAD_BYTES)
        entry, used = _ckpt_entry(head, start)
        stop = start + used + entry.n_bytes
        if stop > end:
            raise IncompleteError(f"that end within entry {number}, which would end at byte {stop}")
        if number == MAX_ENTRIES:
            raise entry.broken(f"must be one of at most {MAX_ENTRIES}", "more")
        if entry.kind == TEXT:
            file.seek(start + used)
            _check_text(entry, file.read(min(entry.n_bytes, MAX_TEXT_BYTES + 1)))
        yield entry
        start, number = stop, number + 1


def _ckpt_entry(head: bytes, start: int) -> tuple[Entry, int]:
    """The entry that `head` begins with, and how many bytes come before its content.

    The fields are those that MindSpore writes, in the order in which protobuf writes them, and no others: what is read
    here is what protobuf will read.
    """
    fields = _Fields(head, start)
    value_end = fields.length(VALUE)
    tag_bytes = fields.length(TAG) - fields.at
    name = fields.text(tag_bytes)
    if fields.peek() == MAP_TENSOR:
        raise Entry(name, "", (), 0).broken("must be a tensor", "a map parameter")
    tensor_end = fields.length(TENSOR)
    dims = []
    while fields.peek() == DIM:
        dims.append(fields.dim())
    kind = fields.text(fields.length(TYPE) - fields.at)
    content_end = fields.length(CONTENT)
    if not value_end == tensor_end == content_end:
        raise fields.broken()
    n_bytes = content_end - fields.at
    if kind == TEXT:
        return Entry(name, kind, (n_bytes // CKPT_TYPES[TEXT],), n_bytes), fields.at
    # As the one dimension, 0 means a scalar to MindSpore.
    return Entry(name, kind, () if dims == [0] else tuple(dims), n_bytes), fields.at


class _Fields:
    """The fields of an entry, one after the other."""

    def __init__(self, head: bytes, start: int) -> None:
        self._head, self._start = head, start
        self.at = 0

    def broken(self) -> IncompleteError:
        return IncompleteError(f"that are not one from byte {self._start} on")

    def peek(self) -> int | None:
        """The next field's key."""
        return self._head[self.at] if self.at < len(self._head) else None

    def length(self, key: int) -> int:
        """Where the field of this key ends; what it holds comes next."""
        if self.peek() != key:
            raise self.broken()
        self.at += 1
        n_bytes = self._varint()
        return self.at + n_bytes

    def dim(self) -> int:
        self.at += 1
        value = self._varint()
        return value - (1 << 64) if value >> 63 else value

    def text(self, n_bytes: int) -> str:
        end = self.at + n_bytes
        if end > len(self._head):
            raise self.broken()
        try:
            text = self._head[self.at : end].decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken() from None
        self.at = end
        return text

    def _varint(self) -> int:
        """A number in sevens of bits, lowest first."""
        value = 0
        for i, byte in enumerate(self._head[self.at : self.at + VARINT_BYTES]):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80 and value < 1 << 64:
                self.at += i + 1
                return value
        raise self.broken()


def _check_text(entry: Entry, content: bytes) -> None:
    if not 0 < len(content) <= MAX_TEXT_BYTES:
        raise entry.broken(f"text must have 1 to {MAX_TEXT_BYTES} bytes", entry.n_bytes)
    try:
        content.decode("utf-32-le", "surrogatepass")
    except UnicodeDecodeError as error:
        raise entry.broken("text must be UTF-32", error.reason) from None


def _safetensors(file: BinaryIO, size: int) -> Stated:
    header_bytes = int.from_bytes(file.read(8), "little")
    start = 8 + header_bytes
    if start > size:
        raise IncompleteError("that are no safetensors file")
    if header_bytes > MAX_HEADER_BYTES:
        raise MalformedError(f"header: must have at most {MAX_HEADER_BYTES} bytes, got {header_bytes}")
    try:
        header = json.loads(file.read(header_bytes).decode("utf-8"), object_pairs_hook=_unique)
        metadata = dict(header.pop("__metadata__", {}))
        entries = [(_safetensors_entry(name, stated), stated["data_offsets"]) for name, stated in header.items()]
        packed = {name for name in metadata if name in header}  # MindSpore's: such a tensor is of another type
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise IncompleteError("that are no safetensors file") from None
    found: dict[str, Entry] = {}
    at = 0
    for entry, offsets in entries:
        if offsets != [at, at + entry.n_bytes] or entry.n_bytes < 0:
            raise entry.broken(f"must begin at byte {at} of the data, where the one before ends", offsets)
        if entry.name in packed and (metadata[entry.name], entry.kind) != ("Int4", "I8"):
            got = f"{metadata[entry.name]} of {entry.kind}"
            raise entry.broken("its type in __metadata__ must be Int4 of I8", got)
        add_entry(found, entry, SAFETENSORS_TYPES)
        at += entry.n_bytes
    if start + at != size:
        raise IncompleteError(f"of {start + at}")
    is_part = metadata.get("remove_redundancy") == "True"
    return Stated(found, has_crc="crc_num" in metadata, ordered=False, is_part=is_part)


def _safetensors_entry(name: str, stated: dict[str, Any]) -> Entry:
    dims, (first, last) = stated["shape"], stated["data_offsets"]
    numbers = (*dims, first, last)
    if not all(type(number) is int and abs(number) < 1 << 63 for number in numbers) or type(stated["dtype"]) is not str:
        raise TypeError
    return Entry(name, stated["dtype"], tuple(dims), last - first)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Entry(name, "", (), 0).broken("its name must be there once", "a second entry")
        found[name] = value
    return found


_READERS: dict[str, Callable[[BinaryIO, int], Stated]] = {".ckpt": _ckpt, ".safetensors": _safetensors, ".npz": npz}
