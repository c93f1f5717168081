"""Locks and names on file systems that refuse a kind of them: the kernel itself refuses the system calls."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from refusing import Refused, answer, wait_for

from mia_batch.errors import InputError
from mia_batch.locks import give_name, in_turn, in_use, open_locked, try_lock

# Of each file system what it refuses, and whether it has locks.
FILE_SYSTEMS = {
    "": True, "flock=ENOSYS": True, "flock=ENOLCK link=EPERM": True, "flock=ENOTSUPP link=EOPNOTSUPP": True,
    "range=ENOSYS link=ENOSYS": True, "flock=ENOSYS range=ENOLCK": False,
}  # fmt: skip
WITH_LOCKS = [calls for calls, locks in FILE_SYSTEMS.items() if locks]


def hold(path: Path, mark: Path) -> None:
    """Lock the file, say so, and keep it for long."""
    with open_locked(path):
        mark.touch()
        time.sleep(60)


def try_hold(path: Path) -> None:
    open_locked(path).close()


@pytest.mark.parametrize("calls", WITH_LOCKS)
def test_of_two_processes_one_gets_the_lock_and_it_dies_with_its_holder(tmp_path: Path, calls: str) -> None:
    path, mark = tmp_path / "journal", tmp_path / "mark"
    with Refused(calls, hold, path, mark) as holder:
        wait_for(mark)
        assert answer(calls, in_use, path)
        with pytest.raises(BlockingIOError):
            answer(calls, try_hold, path)
        os.kill(holder.process.pid or 0, signal.SIGKILL)
        holder.process.join()
        assert not answer(calls, in_use, path)
        answer(calls, try_hold, path)


def test_without_locks_of_either_kind_the_file_system_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    for work in (try_hold, in_use):
        rule = "must be on a file system that locks files, by flock or by fcntl"
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {rule}, got one that refuses both$"):
            answer("flock=ENOSYS range=ENOLCK", work, path)


def close_another(path: Path) -> bool:
    with open_locked(path):
        open(path, "rb").close()
        return in_use(path)


def test_another_descriptor_of_the_holder_does_not_release_the_lock(tmp_path: Path) -> None:
    """As closing one does with POSIX's own locks: a reader in the writer's process would let others in."""
    assert answer("flock=ENOSYS", close_another, tmp_path / "journal")


def share(path: Path) -> bool:
    with open(path, "rb") as one, open(path, "rb") as two, open(path, "ab") as writer:
        shared = try_lock(one.fileno(), shared=True) and try_lock(two.fileno(), shared=True)
        with pytest.raises(BlockingIOError):
            try_lock(writer.fileno())
        return shared


@pytest.mark.parametrize("calls", WITH_LOCKS)
def test_a_lock_shared_by_readers_keeps_writers_out(tmp_path: Path, calls: str) -> None:
    path = tmp_path / "rows"
    path.touch()
    assert answer(calls, share, path)


def name(folder: Path, text: str, at: float = 0.0, count: int = 1) -> list[int]:
    """Try to give `count` names to a file with `text`; returns the numbers of those that were given."""
    given, new = [], folder / f"new-{text}"
    time.sleep(max(0.0, at - time.time()))
    for number in range(count):
        new.write_text(text)
        try:
            give_name(new, folder / f"name{number}")
            given.append(number)
        except FileExistsError:
            pass
        new.unlink(missing_ok=True)
    return given


@pytest.mark.parametrize("calls", ["", "link=EPERM", "link=ENOSYS flock=ENOSYS"])
def test_of_many_at_once_one_gives_each_name_and_never_replaces_a_file(tmp_path: Path, calls: str) -> None:
    at, count = time.time() + 0.5, 200
    children = {text: Refused(calls, name, tmp_path, text, at, count) for text in "abc"}
    given = {text: child.result() for text, child in children.items()}
    numbers = sorted(number for found in given.values() for number in found)
    assert numbers == list(range(count))
    for text, found in given.items():
        assert {(tmp_path / f"name{number}").read_text() for number in found} <= {text}
    assert answer(calls, name, tmp_path, "late") == []
    assert {path.name for path in tmp_path.iterdir()} == {f"name{number}" for number in numbers}


def test_without_locks_and_links_no_name_is_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be on a file system that locks files"):
        answer("link=EPERM flock=ENOSYS range=ENOSYS", name, tmp_path, "a")
    assert not (tmp_path / "name0").exists()


def test_a_file_that_its_owner_removes_before_the_lock_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"

    def remove_and_lock(descriptor: int, **how: bool) -> bool:
        path.unlink()
        return try_lock(descriptor, **how)

    monkeypatch.setattr("mia_batch.locks.try_lock", remove_and_lock)
    with pytest.raises(BlockingIOError):
        open_locked(path)


def test_an_error_that_is_no_missing_call_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        give_name(tmp_path / "nothing", tmp_path / "name")
    with pytest.raises(PermissionError):
        answer("flock=EACCES", try_hold, tmp_path / "journal")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """To open a FIFO waits until somebody reads it."""
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(InputError, match="must be a file that can be locked, got: a FIFO"), in_turn(tmp_path / "lock"):
        pass
