"""Finished tasks of an attack, kept until its result is written."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from mia_batch.errors import InputError
from mia_batch.files import not_written


class Journal:
    """Finished tasks of one attack, a line of JSON each; it belongs to this process until it is closed."""

    def __init__(self, path: Path, run: str) -> None:
        """Read what an earlier process of the same `run` has left; the journal of any other run starts anew.

        Raises:
            InputError: another process is at this attack.
        """
        self.path = path
        try:
            self._file = open(path, "a+b")  # noqa: SIM115  (open until the attack ends)
        except OSError as error:
            raise not_written(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{path}: another process is fitting this attack") from None
        self._found = self._read({"run": run})

    def _read(self, header: dict[str, str]) -> dict[str, Any]:
        """The entries up to the first line that a kill has torn, which is cut off."""
        self._file.seek(0)
        found: dict[str, Any] = {}
        good = 0
        for number, line in enumerate(self._file):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
                if number and entry:
                    found[entry["key"]] = entry["value"]
            except (ValueError, TypeError, KeyError):
                entry = None
            if not entry or (number == 0 and entry != header):
                break
            good += len(line)
        self._file.truncate(good)
        if not good:
            self._append(header)
        return found

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
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
        """The attack's own file holds everything now."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes have it."""
        self._file.close()


class Journals:
    """The journals of the attacks that are being fitted; a task's key begins with its attack."""

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
