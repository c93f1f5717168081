"""When a checkpoint was made: its file's time, and the epoch and step that its training has put into it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from mia_batch import json_text
from mia_batch.errors import InputError
from mia_batch.files import open_bytes
from mia_batch.rundir.manifest import CheckpointOrigin

# As MindSpore's `CheckpointConfig(append_info=["epoch_num", "step_num"])` puts them behind the weights of a .ckpt: a
# message of a name and a tensor, which is dims (none, or one), type and content.
NUMBER = re.compile(
    rb"\x0a.(epoch_num|step_num)\x12.(?:\x08\x01)?\x12\x05Int(?:32|64)\x1a(?:\x04(.{4})|\x08(.{8}))", re.DOTALL
)
END_BYTES = 1 << 16
HEADER_BYTES = 1 << 23  # of a .safetensors; more names no network has


def origin_of(path: Path) -> CheckpointOrigin:
    """When the checkpoint at `path` was made; of a damaged one the file's time alone.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            modified = _time(os.fstat(file.fileno()).st_mtime)
            read = _safetensors_numbers if path.suffix == ".safetensors" else _ckpt_numbers
            numbers = {name: value for name, value in read(file) if value >= 0}
    except OSError as error:
        raise InputError(f"{path}: model.checkpoint: must be a file that can be read, got {error.strerror}") from error
    return CheckpointOrigin(modified=modified, **numbers)


def _time(seconds: float) -> str:
    """ISO 8601, UTC; empty where no calendar has it, as a clock or a copy may have made it."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return ""


def _ckpt_numbers(file: BinaryIO) -> Iterator[tuple[str, int]]:
    size = file.seek(0, 2)
    file.seek(max(0, size - END_BYTES))
    for found in NUMBER.finditer(file.read()):
        yield found[1].decode(), int.from_bytes(found[2] or found[3], "little", signed=True)


def _safetensors_numbers(file: BinaryIO) -> Iterator[tuple[str, int]]:
    size = int.from_bytes(file.read(8), "little")
    try:
        header = json_text.parse(file.read(min(size, HEADER_BYTES)).decode("utf-8"))
        places = {name: header[name] for name in ("epoch_num", "step_num") if name in header}
        for name, place in places.items():
            first, end = place["data_offsets"]
            if place["dtype"] in ("I32", "I64") and end - first in (4, 8):
                file.seek(8 + size + first)
                content = file.read(end - first)
                yield name, int.from_bytes(content, "little", signed=True) if len(content) == end - first else -1
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # what is no checkpoint, the plan says
        return
