"""Files whole or not at all, and what the file system objects to as one line."""

from __future__ import annotations

import errno
import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from mia_batch.data.prepared import Prepared
from mia_batch.errors import InputError
from mia_batch.files import (
    holds,
    is_full,
    not_written,
    open_bytes,
    open_text,
    read_lines,
    read_text,
    sha256,
    write_text,
)
from mia_batch.inputs import Inputs
from mia_batch.rundir.hdf5 import as_input_error
from mia_batch.rundir.journal import Journal
from mia_batch.rundir.paths import RunPaths

SAMPLE = Inputs("image", ("image",), (np.zeros((1, 2, 2, 3), np.uint8),))
FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("code", FULL)
def test_no_room_is_one_line_wherever_it_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "said by the system")

    prepared = Prepared(tmp_path / "prepared")
    with prepared.appending(SAMPLE, "identity"):
        pass
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(InputError, match=r"x: the disk is full$"):
        write_text(tmp_path / "x", "text")
    assert list(tmp_path.iterdir()) == [prepared.folder]
    with pytest.raises(InputError, match=r"f\.h5: the disk is full$"), as_input_error(tmp_path / "f.h5"):
        fail()
    with pytest.raises(InputError, match=r"prepared: the disk is full$"), prepared.appending(SAMPLE, "identity"):
        fail()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(InputError, match=r"run: the disk is full$"):
        RunPaths(tmp_path / "run").create()


def test_a_journal_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path / "journal", ("mark",))
    journal.close()
    journal._file = Full()  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"journal: the disk is full$"):
        journal.put("lr/0", {})


def test_what_is_not_for_want_of_room_says_what_it_is() -> None:
    assert is_full(OSError("Can't write data (errno = 28, error message = 'No space left on device')"))
    error = PermissionError(errno.EACCES, "Permission denied")
    assert str(not_written(Path("x"), error)) == "x: must be writable, got: Permission denied"
    assert str(not_written(Path("x"), error, "--out: must be mine")) == "x: --out: must be mine, got: Permission denied"


def special_files(folder: Path) -> dict[str, Path]:
    """What may lie where a file is expected, by the words for it."""
    fifo, bound = folder / "fifo", folder / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(bound))
    return {
        "a FIFO, which is no regular file": fifo, "a socket, which is no regular file": bound,
        "a device, which is no regular file": Path("/dev/zero"), "Is a directory": folder,
        "No such file or directory": folder / "missing", "Not a directory": Path("/dev/null/x"),
        "File name too long": folder / ("x" * 300), "a name that no file can have": folder / "a\0b",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["rb", "ab", "a+b"])
def test_what_is_no_file_is_never_opened(tmp_path: Path, mode: str) -> None:
    for said, path in special_files(tmp_path).items():
        if mode != "rb" and "No such" in said:
            continue
        with pytest.raises(OSError, match=said):
            open_bytes(path, mode)
    with pytest.raises(OSError, match="a name that no file can have"):
        open_bytes(tmp_path / "\ud800")


def test_a_text_is_read_only_if_it_is_one(tmp_path: Path) -> None:
    for path in special_files(tmp_path).values():
        for read in (open_text, read_text, sha256, lambda path: list(read_lines(path)), lambda path: holds(path, "")):
            with pytest.raises((OSError, InputError)):
                read(path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    (tmp_path / "there").write_text("text")
    assert read_text(link) == "text"


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing, of which no byte is on the disk
    for read in (read_text, lambda path: list(read_lines(path))):
        with pytest.raises(OSError, match="more than"):
            read(path)
    assert not holds(path, "text")
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\n\nc")
    assert list(read_lines(path)) == [(1, "a"), (2, "b"), (3, ""), (4, "c")]
    path.write_bytes(b"abc\nabcd\n")
    with pytest.raises(OSError, match="more than 3 characters in line 2"):
        list(read_lines(path, 3))
    for content in (b"\xff\xfea\0", b"a\n\xed\xa0\x80"):
        path.write_bytes(content)
        with pytest.raises(UnicodeDecodeError):
            list(read_lines(path))


def test_a_file_holds_a_text_or_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("t\u00e9xt")
    assert holds(path, "t\u00e9xt")
    assert not any(holds(path, text) for text in ("t\u00e9x", "t\u00e9xtt", "", "text"))


def test_a_name_in_another_encoding_can_be_written_down(tmp_path: Path) -> None:
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9\0"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9\0"


@pytest.mark.parametrize("name", ["", ".", "/", "a" * 300, "a_file/b"])
def test_a_name_that_no_file_can_have_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(InputError, match=r"must be (a file that can be written|writable), got"):
        write_text(Path(name), "x")
    assert os.listdir(tmp_path) == ["a_file"]


@pytest.mark.parametrize("name", ["a_fifo", "to_a_fifo", "to_null", "to_output"])
def test_a_file_takes_the_place_of_no_device(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "a_fifo")
    (tmp_path / "to_a_fifo").symlink_to("a_fifo")
    (tmp_path / "to_null").symlink_to(os.devnull)
    (tmp_path / "to_output").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    before = (tmp_path / name).lstat()
    with pytest.raises(InputError, match="must be a file that can be written, got a"):
        write_text(tmp_path / name, "x")
    assert (tmp_path / name).lstat() == before
    assert len(os.listdir(tmp_path)) == 4
