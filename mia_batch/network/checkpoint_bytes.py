"""Whether a file is a whole checkpoint, by its layout alone: no MindSpore, and no more read than lengths and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from mia_batch.errors import InputError

SUFFIXES = (".ckpt", ".safetensors")
ENTRY = 0x0A  # protobuf: field 1, a length and that many bytes. Checkpoint.value and, in it, Value.tag
CRC_MARK, CRC_BYTES = b"crc_num", 17  # what `crc_check=True` puts at the end: the mark and ten bytes
VARINT_BYTES = 10


def check_whole(path: Path) -> None:
    """Refuse what cannot be a checkpoint, or is not all of one.

    Raises:
        InputError: not a file, another ending, empty, or bytes that do not add up to entries.
    """
    where = f"{path}: model.checkpoint"
    if not path.is_file():
        state = "a folder" if path.is_dir() else "nothing there"
        raise InputError(f"{where}: must be a checkpoint file, got {state}")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{where}: must end in {' or '.join(SUFFIXES)}, got {path.name}")
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            broken = _safetensors_break(file, size) if path.suffix == ".safetensors" else _ckpt_break(file, size)
    except OSError as error:
        raise InputError(f"{where}: must be a file that can be read, got: {error.strerror}") from error
    if size == 0:
        raise InputError(f"{where}: must be a complete MindSpore checkpoint, got an empty file")
    if broken:
        raise InputError(f"{where}: must be a complete MindSpore checkpoint, got {size} bytes {broken}")


def _ckpt_break(file: BinaryIO, size: int) -> str | None:
    """Where the chain of entries breaks; None if it ends with the file."""
    start, number = 0, 0
    while start < size:
        file.seek(start)
        head = file.read(2 * VARINT_BYTES + 2)
        length, used = _varint(head[1:])
        if head[0] != ENTRY or length is None or head[1 + used : 2 + used] != bytes([ENTRY]):
            return None if number and _is_crc(file, start, size) else f"that are not one from byte {start} on"
        end = start + 1 + used + length
        if end > size:
            return f"that end within entry {number}, which would end at byte {end}"
        start, number = end, number + 1
    return None


def _varint(data: bytes) -> tuple[int | None, int]:
    """A number in sevens of bits, lowest first, and how many bytes it takes; None if it does not end."""
    value = 0
    for used, byte in enumerate(data[:VARINT_BYTES], start=1):
        value |= (byte & 0x7F) << 7 * (used - 1)
        if byte < 0x80:
            return value, used
    return None, 0


def _is_crc(file: BinaryIO, start: int, size: int) -> bool:
    file.seek(start)
    return size - start == CRC_BYTES and file.read(len(CRC_MARK)) == CRC_MARK


def _safetensors_break(file: BinaryIO, size: int) -> str | None:
    """What of the layout (length, header in JSON, tensors) is not there."""
    header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > size - 8:
        return "that are no safetensors file"
    try:
        header = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + header_bytes + max(ends, default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        return "that are no safetensors file"
    return None if whole == size else f"of {whole}"
