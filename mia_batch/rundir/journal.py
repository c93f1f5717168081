"""Finished tasks of an attack, kept until its result is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mia_batch import json_text
from mia_batch.errors import InputError
from mia_batch.files import not_written, open_bytes
from mia_batch.locks import open_locked
from mia_batch.rundir.identity import mark_of

LONGEST_LINE = 1 << 25  # bytes of a result: scores of a million samples


class Journal:
    """Finished tasks of one attack, a line of JSON each; this process holds the file until it closes it."""

    def __init__(self, path: Path, marks: Sequence[str]) -> None:
        """Read what an earlier process left under one of `marks`; a journal of another mark starts anew.

        Raises:
            InputError: another process is at this attack.
        """
        self.path = path
        self._file = self._open()
        try:
            self._found = self._read(marks)
        except BaseException:
            self.close()
            raise

    def _open(self) -> BinaryIO:
        """The file, locked."""
        try:
            return open_locked(self.path)
        except BlockingIOError:
            raise InputError(f"{self.path}: another process is fitting this attack") from None
        except OSError as error:
            raise not_written(self.path, error) from error

    def _read(self, marks: Sequence[str]) -> dict[str, Any]:
        """The entries before the first line that is torn, or is a mark again; the file is cut there."""
        self._file.seek(0)
        found: dict[str, Any] = {}
        good = 0
        for number, line in enumerate(_lines(self._file)):
            entry = _entry(line)
            mark = entry and mark_of(entry)
            if entry is None or (mark is not None if number else mark not in marks):
                break
            if number:
                found[entry["key"]] = entry["value"]
            good += len(line)
        self._file.truncate(good)
        if not good:
            self._append({"identity": marks[0]})
        return found

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(json_text.sealed(entry)).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise not_written(self.path, error) from error

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        """The result that was put under `key`."""
        return self._found.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a result; when this returns it is on the disk."""
        self._append({"key": key, "value": value})

    def remove(self) -> None:
        """Remove the file, once the attack's result is written."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes open the file."""
        self._file.close()


def tasks_done(path: Path, marks: Sequence[str]) -> int:
    """How many finished tasks a journal of these marks holds, also while a process writes it."""
    with open_bytes(path) as file:
        lines = _lines(file)
        head = _entry(next(lines, b""))
        if head is None or mark_of(head) not in marks:
            return 0
        return sum(line.endswith(b"\n") for line in lines)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Up to the first that is longer than any result: its end is not there."""
    while line := file.readline(LONGEST_LINE):
        yield line
        if not line.endswith(b"\n"):
            return


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's mark, or its key and value; None for a line that is torn, or has changed since it was written."""
    try:
        entry = json_text.unsealed(json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and (mark_of(entry) is not None or {"key", "value"} <= entry.keys())
    return entry if whole else None


class Journals:
    """The journals of all attacks; a task's key begins with its attack."""

    def __init__(self, by_method: dict[str, Journal]) -> None:
        self._by_method = by_method

    def _of(self, key: str) -> Journal:
        return self._by_method[key.partition("/")[0]]

    def get(self, key: str) -> dict[str, Any] | None:
        """See Journal."""
        return self._of(key).get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """See Journal."""
        self._of(key).put(key, value)
